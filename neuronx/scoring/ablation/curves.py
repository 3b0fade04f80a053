"""How the loss of an image changes with the amount of one unit, as a Chebyshev series: cheap to evaluate anywhere.

The change is smooth (its absolute value is not), so that few nodes give it to many digits; slopes come along for fits.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from neuronx.scoring.ablation.head import LinearHead, cross_entropy

ROUNDING = 1e-6
FEWEST, MOST = 8, 96
LARGE = 300.0
"""Changes of a logit beyond which exponentials might overflow."""


@dataclass(frozen=True)
class Curves:
    """Changes of the loss of N images with each of K units.

    Attributes:
        coefficients: (n, K, N) float64 of the series in t = (amount - origin - centre) / half.
        centre: (K, 1).
        half: (K, 1), half the range; beyond it curves go on straight.
        origin: (K, N) activations, where the range is one of changes; (1, 1) zero, where it is one of amounts.
    """

    coefficients: Tensor
    centre: Tensor
    half: Tensor
    origin: Tensor

    def of(self, units: Tensor | slice, images: slice) -> "Curves":
        """Those of some units (places among K) and images."""
        origin = self.origin if self.origin.numel() == 1 else self.origin[units, images]
        return Curves(self.coefficients[:, units, images], self.centre[units], self.half[units], origin)

    def at(self, amounts: Tensor) -> tuple[Tensor, Tensor]:
        """Changes of the loss at amounts (K, N), and their slopes in the amount; both (K, N). By Clenshaw's rule."""
        free = (amounts - self.origin - self.centre) / self.half
        t = free.clamp(-1, 1)
        twice = 2 * t
        zero = torch.zeros_like(t)
        a, b, da, db = zero, zero, zero, zero
        for j in range(len(self.coefficients) - 1, 0, -1):
            c = self.coefficients[j]
            a, b, da, db = torch.addcmul(c, twice, a).sub_(b), a, (2 * a).addcmul_(twice, da).sub_(db), da
        value = torch.addcmul(self.coefficients[0], t, a).sub_(b)
        slope = torch.addcmul(a, t, da).sub_(db)
        return value + slope * (free - t), slope / self.half

    def reach(self, amounts: Tensor) -> Tensor:
        """How far amounts (K, N) go, (K,): 1 is the end of the range."""
        return ((amounts - self.origin - self.centre) / self.half).abs().amax(1)


def nodes(n: int) -> Tensor:
    """(n,) float64 zeros of the n-th Chebyshev polynomial, in (-1, 1)."""
    return torch.cos(math.pi * (torch.arange(n, dtype=torch.float64) + 0.5) / n)


def series(values: Tensor) -> Tensor:
    """Coefficients (n, ...) of the interpolating Chebyshev series from values (n, ...) at `nodes(n)`, float64."""
    n = len(values)
    angles = math.pi * (torch.arange(n, dtype=torch.float64) + 0.5) / n
    transform = torch.cos(torch.arange(n, dtype=torch.float64)[:, None] * angles) * 2 / n
    transform[0] /= 2
    return (transform.to(values.device) @ values.double().flatten(1)).view(values.shape)


def linear_curves(
    head: LinearHead,
    units: Tensor,
    logits: Tensor,
    labels: Tensor,
    temperature: float,
    z: Tensor,
    low: Tensor,
    high: Tensor,
) -> Curves:
    """Curves of units whose pooled activations feed the logits linearly.

    With p = softmax(logits), raising a unit by x changes the cross entropy by log sum_c p_c exp(x w_c) - x w_y. At
    nodes x that all images share, the exponentials belong to unit and class only, and the sum over classes is a matrix
    product for all images. The number of nodes follows from the nearest singularity that two classes can cause, at
    i pi / (their difference in weight), such that even the worst image is right to six digits of its largest change.

    Args:
        head: The weights.
        units: (K,) indices.
        logits: (N, C).
        labels: (N,).
        temperature: Logits are divided by it.
        z: (K, N) float64, pooled activations.
        low: (K,) the smallest change of an activation that matters.
        high: (K,) the largest.
    """
    device = z.device
    w = head.weight.T[units].double().to(device) / temperature  # (K, C)
    centre, half = (low + high)[:, None] / 2, ((high - low)[:, None] / 2).clamp(min=1e-12)
    distance = float((math.pi / (half[:, 0] * (w.amax(1) - w.amin(1)).clamp(min=1e-300))).min())
    n = min(MOST, max(FEWEST, math.ceil(-math.log(ROUNDING) / math.asinh(distance))))
    x = centre + half * nodes(n).to(device)  # (K, n)
    change = (x.T[..., None] * w).flatten(0, 1)  # (n * K, C)
    steep = bool(change.abs().amax() > LARGE)
    raised = change if steep else torch.expm1(change)
    values = torch.empty(n, len(units), len(logits), dtype=torch.float64, device=device)
    for part in torch.arange(len(logits)).split(32 if steep else 1024):
        some, y = logits[part].double().to(device), labels[part].to(device)
        if steep:
            spread = (some / temperature + raised[:, None]).flatten(0, 1)
            loss = cross_entropy(spread, y.repeat(len(raised))).view(len(raised), -1)
            values[:, :, part] = (loss - cross_entropy(some, y, temperature)).view(n, len(units), -1)
        else:
            shares = (some / temperature).softmax(1)
            values[:, :, part] = torch.log1p(raised @ shares.T).view(n, len(units), -1) - x.T[..., None] * w[:, y]
    return Curves(series(values), centre, half, z)


def tail_curves(changes: Tensor, low: Tensor, high: Tensor) -> Curves:
    """Curves through measured changes of the loss.

    Args:
        changes: (n, K, N), with unit k at low + (high - low) * (1 + nodes(n)) / 2.
        low: (K,) the smallest amount.
        high: (K,) the largest.
    """
    centre, half = (low + high)[:, None] / 2, ((high - low)[:, None] / 2).clamp(min=1e-12)
    return Curves(series(changes), centre, half, torch.zeros(1, 1, dtype=torch.float64, device=changes.device))
