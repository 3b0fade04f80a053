"""What a CLIP sees of a part of a picture: the rest is there, but the class token may not look at it.

In every block of a Vision Transformer, the weights with which the class token attends to patches are multiplied by the
share of each patch that the mask covers, after the softmax and without making them sum to 1 again; its weight on itself
and all that the patches do among each other stay. This is how MILAN's published code compares captions with regions.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from neuronx.errors import UserError
from neuronx.targets.identity import transform_digest
from neuronx.targets.preprocess import Preprocess
from neuronx.types import Plain

if TYPE_CHECKING:
    from neuronx.targets.target import Target


@dataclass(frozen=True, eq=False)
class MaskedClip:
    """From pictures and masks to embeddings.

    Towers without a class token that attends to patches (ResNets, and Vision Transformers that pool otherwise, as
    SigLIP's) see pictures in which everything outside the mask has the colour that their normalisation takes to 0.

    Attributes:
        target: The image tower of a CLIP, `clip.encoder.image_target(clip.name)`.
        published_masks: Bring masks to the patches by plain bilinear interpolation, as published, in which small ones
            may vanish; otherwise a patch has the mean of the mask on it.
    """

    target: "Target"
    published_masks: bool = False

    @property
    def name(self) -> str:
        """Of the CLIP."""
        return self.target.name

    @property
    def identity(self) -> dict[str, Plain]:
        """All that decides the embeddings, but for the pictures and the masks."""
        return {
            "masked": self.target.digest,
            "transform": transform_digest(self.target.transform),
            "published_masks": self.published_masks,
        }

    @property
    def attends(self) -> bool:
        """Whether masks confine the attention of a class token, rather than the pixels."""
        return _has_class_token(self._tower)

    @property
    def _tower(self) -> Any:
        return self.target.module.visual

    def __call__(self, images: Tensor, masks: Tensor) -> Tensor:
        """Unit embeddings (N, E) float32, on the tower's device.

        Args:
            images: (N, 3, H, W) uint8, squashed to the tower's size.
            masks: (N, 1, H', W'), 1 inside and 0 outside, of the whole of each picture.
        """
        tower = self._tower
        size, device = _size(tower), next(tower.parameters()).device
        pictures = images.to(device).float().div_(255)
        if pictures.shape[2:] != size:
            pictures = F.interpolate(pictures, size, mode="bicubic", antialias=True).clamp_(0, 1)
        mean, std = (torch.tensor(values, device=device)[:, None, None] for values in self._statistics)
        inputs, masks = (pictures - mean) / std, masks.to(device, torch.float32)
        if self.attends:
            patch = _pair(tower.conv1.kernel_size)
            grid = size[0] // patch[0], size[1] // patch[1]
            embedded = confined(tower, inputs, self._shrunk(masks, grid).flatten(1))
        else:
            embedded = tower(inputs * self._shrunk(masks, size))
        return F.normalize(embedded.float(), dim=-1)

    @property
    def _statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each channel that the tower's pictures are normalised by."""
        how = self.target.transform
        if isinstance(how, Preprocess):
            return how.mean or (0.0,) * 3, how.std or (1.0,) * 3
        return tuple(self._tower.preprocess_cfg["mean"]), tuple(self._tower.preprocess_cfg["std"])

    def _shrunk(self, masks: Tensor, grid: tuple[int, int]) -> Tensor:
        if self.published_masks or grid[0] > masks.shape[2] or grid[1] > masks.shape[3]:
            return F.interpolate(masks, grid, mode="bilinear", align_corners=False)
        return F.adaptive_avg_pool2d(masks, grid)


def confined(tower: Any, inputs: Tensor, weights: Tensor) -> Tensor:
    """The embeddings (N, E) of open_clip's Vision Transformer whose class token sees patches by `weights`.

    Args:
        tower: With a class token that is its output.
        inputs: (N, 3, H, W) float.
        weights: (N, P), one for each patch, row by row; with 1 everywhere it is the tower's own embedding.
    """
    patches = tower.conv1(inputs).flatten(2).transpose(1, 2)
    tokens = torch.cat([tower.class_embedding.to(patches.dtype).expand(len(patches), 1, -1), patches], 1)
    tokens = tower.ln_pre(tokens + tower.positional_embedding.to(patches.dtype))
    weights = F.pad(weights, (1, 0), value=1).to(tokens.dtype)
    for block in tower.transformer.resblocks:
        tokens = tokens + block.ls_1(_attention(block.attn, block.ln_1(tokens), weights))
        tokens = tokens + block.ls_2(block.mlp(block.ln_2(tokens)))
    pooled = tower.ln_post(tokens[:, 0])
    return pooled if tower.proj is None else pooled @ tower.proj


def _attention(attention: nn.MultiheadAttention, tokens: Tensor, weights: Tensor) -> Tensor:
    """Self-attention whose first row of weights, that of the class token, is multiplied by `weights` (N, 1 + P)."""
    joined = F.linear(tokens, attention.in_proj_weight, attention.in_proj_bias)
    # (N, heads, 1 + P, width of a head) each
    query, key, value = (one.unflatten(2, (attention.num_heads, -1)).transpose(1, 2) for one in joined.chunk(3, 2))
    every = F.scaled_dot_product_attention(query, key, value)
    row = (query[:, :, :1] @ key.transpose(2, 3) * query.shape[3] ** -0.5).softmax(3)
    seen = row * weights[:, None, None] @ value
    return attention.out_proj(torch.cat([seen, every[:, :, 1:]], 2).transpose(1, 2).flatten(2))


def _has_class_token(tower: Any) -> bool:
    from open_clip.transformer import ResidualAttentionBlock, VisionTransformer

    return (
        isinstance(tower, VisionTransformer)
        and tower.attn_pool is None
        and tower.pool_type == "tok"
        and all(isinstance(block, ResidualAttentionBlock) for block in tower.transformer.resblocks)
    )


def _size(tower: Any) -> tuple[int, int]:
    """Of the pictures that a tower of open_clip takes."""
    size = getattr(tower, "image_size", None)
    if size is None:
        raise UserError(f"The size of pictures of {type(tower).__name__} is unknown, so it cannot look within masks.")
    return _pair(size)


def _pair(size: int | tuple[int, ...]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])
