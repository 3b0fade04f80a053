"""How well scores agree with the truth, concept by concept."""

import torch
from torch import Tensor


def auroc(scores: Tensor, truth: Tensor) -> Tensor:
    """Chance that an image with the concept scores above one without, ties counted half (Mann and Whitney, 1947).

    Args:
        scores: (N, C) floating point.
        truth: (N, C) bool.

    Returns:
        (C,) float64 in [0, 1]; NaN where all images or none show the concept.
    """
    n = len(scores)
    ordered, order = scores.sort(dim=0)
    # Tied scores share the mean of their ranks.
    rows = ordered.T.contiguous()
    below, above = (torch.searchsorted(rows, rows, right=right) for right in (False, True))
    ranks = (below + above + 1).T.double() / 2
    positive = truth.gather(0, order).double()
    count = positive.sum(0)
    return ((ranks * positive).sum(0) - count * (count + 1) / 2) / (count * (n - count))
