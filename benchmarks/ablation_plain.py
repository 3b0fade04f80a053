"""Ablation scoring as its formula says, unit by unit: the class head runs anew on all activations for each amount."""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy


def plain(
    unit: int, q: Tensor, z: Tensor, head: nn.Linear, labels: Tensor, val: int, mode: str, temperature: float
) -> Tensor:
    """The score of one unit.

    Args:
        unit: Index.
        q: (N,) its predictions, val images first.
        z: (K, N) activations.
        head: The class head.
        labels: (N,).
        val: Number of val images.
        mode: optim or norm.
        temperature: Logits are divided by it.
    """
    x, y = z.T.contiguous(), labels

    def loss(amounts: Tensor | None, rows: slice) -> Tensor:
        changed = x[rows].clone()
        if amounts is not None:
            changed[:, unit] = amounts
        return cross_entropy(head(changed) / temperature, y[rows], reduction="none")

    on_val, on_test = slice(0, val), slice(val, len(x))
    own = x[on_val, unit]
    if mode == "norm":
        r = torch.corrcoef(torch.stack((own, q[on_val])))[0, 1]
        simulated = (q[on_test] - q[on_test].mean()) / q[on_test].std() * own.std() * r + own.mean()
    else:
        with torch.no_grad():
            before = loss(None, on_val)
        c, d = torch.ones((), requires_grad=True), torch.zeros((), requires_grad=True)
        adam = torch.optim.Adam([c, d], lr=1e-2)
        for _ in range(100):
            adam.zero_grad()
            (loss(c * q[on_val] + d, on_val) - before).abs().sum().backward()
            adam.step()
        simulated = (c * q[on_test] + d).detach()
    with torch.no_grad():
        before = loss(None, on_test)
        damage = [(loss(a, on_test) - before).abs().sum() for a in (simulated, own.mean().expand(len(before)))]
    return 1 - damage[0] / damage[1]
