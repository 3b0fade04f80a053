"""A Vision Transformer whose class token looks within a mask, one picture, head and row at a time."""

import torch


def masked_embedding(tower, picture, weights):
    """The embedding (E,) of a picture (3, H, W) by open_clip's tower; weights (P,) of what the class token may see."""
    patches = tower.conv1(picture[None])[0].flatten(1).T
    tokens = torch.cat([tower.class_embedding[None], patches]) + tower.positional_embedding
    tokens = torch.stack([tower.ln_pre(token) for token in tokens])
    for block in tower.transformer.resblocks:
        attention = block.attn
        normal = torch.stack([block.ln_1(token) for token in tokens])
        width = normal.shape[1]
        size = width // attention.num_heads
        weight, bias = attention.in_proj_weight, attention.in_proj_bias
        told = []
        for row in range(len(tokens)):
            heads = []
            for head in range(attention.num_heads):
                own = slice(head * size, (head + 1) * size)
                q, k, v = (
                    normal @ weight[i * width : (i + 1) * width][own].T + bias[i * width : (i + 1) * width][own]
                    for i in range(3)
                )
                seen = torch.softmax(torch.stack([q[row] @ one / size**0.5 for one in k]), 0)
                if row == 0:
                    seen = torch.cat([seen[:1], seen[1:] * weights])
                heads.append(sum(share * value for share, value in zip(seen, v, strict=True)))
            told.append(attention.out_proj(torch.cat(heads)))
        tokens = tokens + block.ls_1(torch.stack(told))
        tokens = tokens + torch.stack([block.ls_2(block.mlp(block.ln_2(token))) for token in tokens])
    embedded = tower.ln_post(tokens[0]) @ tower.proj
    return embedded / embedded.norm()
