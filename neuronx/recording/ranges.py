"""Beyond the top: images drawn from ranges of a unit's ranking, and how active the unit is there.

The published figure shows the ranks 0-5, 5-50, 50-500 and 500-5000 (Linear Explanations, figure 4); with shares of the
images instead of ranks come the rows of CLIP-Dissect's figures 12 and 13.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from neuronx.errors import UserError

RANKS = ((0, 5), (5, 50), (50, 500), (500, 5000))

CHUNK = 2**24
"""Activations that are sorted at a time."""


@dataclass(frozen=True)
class Ranges:
    """Images of K units from R ranges of their rankings.

    Attributes:
        ranks: R pairs (first, end), clipped to the number of images; rank 0 is the most active image.
        rows: (K, R, n) int64, images of each range, strongest first; -1 where a range has fewer than n.
        activations: (K, R, n) float32 of these images; NaN where there is none.
        low: (K, R) float32, the smallest activation in the whole range.
        high: (K, R) float32, the largest.
    """

    ranks: tuple[tuple[int, int], ...]
    rows: Tensor
    activations: Tensor
    low: Tensor
    high: Tensor


def activation_ranges(
    values: Tensor,
    rows: Tensor | None = None,
    *,
    ranks: Sequence[tuple[int, int]] = RANKS,
    n: int = 4,
    seed: int = 0,
) -> Ranges:
    """Draws n images from each range of every unit's ranking, none twice.

    The same seed draws the same ranks for every unit, so that a unit's row does not depend on which others are shown.

    Args:
        values: (N, K) float32, pooled activations.
        rows: (N,) int64, which images they belong to; 0 to N-1 by default. Equally active images rank in this order.
        ranks: (first, end) pairs, 0 <= first < end; they are clipped to N, and left out where nothing remains.
        n: Images of each range.
        seed: Of the draw.

    Raises:
        UserError: A range that is empty or begins below 0, n below 1, or no range among the first N.
    """
    images = len(values)
    rows = torch.arange(images) if rows is None else rows
    if n < 1:
        raise UserError(f"n={n} images of each range: draw at least one.")
    if wrong := [pair for pair in ranks if not 0 <= pair[0] < pair[1]]:
        raise UserError(f"The range of ranks {wrong[0][0]}-{wrong[0][1]} holds nothing; write first and end, as 5-50.")
    clipped = tuple((first, min(end, images)) for first, end in ranks if first < images)
    if not clipped:
        raise UserError(f"There are {images} images only, and the first range begins at rank {min(ranks)[0]}.")
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.full((len(clipped), n), -1)
    for number, (first, end) in enumerate(clipped):
        some = torch.randperm(end - first, generator=generator)[:n].sort().values + first
        drawn[number, : len(some)] = some
    ends = torch.tensor(clipped)
    parts = []
    for few in values.split(max(1, CHUNK // images), dim=1):
        ordered, order = few.float().sort(dim=0, descending=True, stable=True)
        parts.append(
            (rows[order[drawn.clamp(min=0)]], ordered[drawn.clamp(min=0)], ordered[ends - torch.tensor([0, 1])])
        )
    found, activations, limits = (torch.cat(some, -1).movedim(-1, 0) for some in zip(*parts, strict=True))
    missing = drawn < 0
    return Ranges(
        ranks=clipped,
        rows=found.masked_fill(missing, -1),
        activations=activations.masked_fill(missing, torch.nan),
        low=limits[..., 1],
        high=limits[..., 0],
    )
