"""Gates: how much of a unit's activation on an image belongs to each of its parts, from the circuit there.

Distances come as (P, k) squares of one image and unit each, infinite to parts that a unit does not have; gates are
(P, k) float32, or (P, k + 1) with `reject`, at least 0, and sum to 1.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from neuronx.methods.pure.clusters import members

KINDS = ("hard", "soft", "reject", "distilled")


@dataclass(frozen=True)
class Centres:
    """The parts of S split units.

    Attributes:
        points: (S, k, C') float32, mean circuit of each part; NaN where a unit has fewer parts.
        radius: (S, k) float32, the distance from it within which 95 % of the part's references lie.
        spread: (S,) float32, mean squared distance of the references to their part's centre.
    """

    points: Tensor
    radius: Tensor
    spread: Tensor

    @property
    def there(self) -> Tensor:
        """(S, k) bool, which parts there are."""
        return ~self.points[:, :, 0].isnan()


def centres(vectors: Tensor, labels: Tensor, k: int) -> Centres:
    """The centres of parts, from references (S, m, C') with labels (S, m), -1 for those that do not count."""
    inside = members(labels, k).to(vectors)
    sizes = inside.sum(1)
    points = (inside.transpose(1, 2) @ vectors) / sizes[:, :, None]
    far = torch.cdist(vectors, points.nan_to_num(), compute_mode="donot_use_mm_for_euclid_dist")
    own = torch.where(inside > 0, far, torch.nan)
    radius = own.nanquantile(0.95, dim=1)
    spread = (far.square() * inside).sum((1, 2)) / sizes.sum(1).clamp(min=1)
    return Centres(points, radius.nan_to_num(), spread)


def squared_distances(vectors: Tensor, own: Tensor, to: Centres) -> Tensor:
    """From circuits (P, C') of the split units `own` (P,) to the centres of their parts: (P, k) float32."""
    points = to.points[own].nan_to_num()
    found = (vectors[:, None] - points).square().sum(2)
    return found.masked_fill(~to.there[own], torch.inf)


def hard(squares: Tensor) -> Tensor:
    """All of it to the nearest part."""
    return torch.nn.functional.one_hot(squares.argmin(1), squares.shape[1]).float()


def soft(squares: Tensor, spread: Tensor) -> Tensor:
    """By the softmax of -d^2 / (2 spread), spread (P,): what a mixture of equal round clouds would say."""
    return (-squares / (2 * spread.clamp(min=1e-12)[:, None])).softmax(1)


def reject(squares: Tensor, radius: Tensor) -> Tensor:
    """All to the nearest part; but to a last one, "other", where that is further away than its radius (P, k)."""
    near = squares.argmin(1, keepdim=True)
    outside = (squares.gather(1, near).sqrt() > radius.gather(1, near)).float()
    return torch.cat([hard(squares) * (1 - outside), outside], 1)
