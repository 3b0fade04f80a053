"""How well each of C concepts finds the active pictures of each of K units: average precision of all pairs."""

import torch
from torch import Tensor

from neuronx.metrics.panel import active_from, at_most
from neuronx.metrics.ranks import ascending
from neuronx.progress import progress


def average_precision(activations: Tensor, concepts: Tensor, alpha: float = 0.05) -> Tensor:
    """Average precision (K, C) float64 of concepts as scores for the pictures on which units are active; as `panel`.

    Each concept is sorted once. A unit then needs only the ranks of its active pictures, so that a pair costs
    alpha N numbers, not N.

    Args:
        activations: (N, K).
        concepts: (N, C) scores of any scale.
        alpha: Share of the pictures on which a unit is active; ties at the cut-off all are.

    Returns:
        NaN for a unit that never changes.
    """
    n, k = activations.shape
    least = active_from(activations.T.sort(1).values, at_most(alpha, n))
    above = _at_or_above(concepts.T.contiguous())
    found = torch.full((k, concepts.shape[1]), torch.nan, dtype=torch.float64)
    for unit in progress(range(k), "average precision"):
        active = (activations[:, unit] >= least[unit]).nonzero()[:, 0]
        if not len(active):
            continue
        retrieved = above[:, active].sort(1).values  # from the highest score to the lowest
        right = torch.arange(1, len(active) + 1, dtype=torch.float64).expand(len(retrieved), -1)
        if (retrieved[:, 1:] == retrieved[:, :-1]).any():  # equal scores are retrieved together
            right = torch.searchsorted(retrieved, retrieved, right=True).double()
        found[unit] = (right / retrieved).mean(1)
    return found


def _at_or_above(concepts: Tensor) -> Tensor:
    """(C, N) int32: of each score, how many pictures have one that is as high or higher."""
    counts = torch.empty(concepts.shape, dtype=torch.int32)
    for scores, row in zip(concepts, counts, strict=True):
        order = ascending(scores[None])[0]
        rising = scores[order]
        row[order] = (len(scores) - torch.searchsorted(rising, rising)).int()
    return counts
