"""What orders say, for many rows at once, ties at their middle ranks: AUROC, average precision, Spearman's correlation.

Rows are sorted once, and everything is read off the sorted order. Ties are exact: equal values share their middle rank
and their threshold, however they are stored and whichever way they were sorted.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


def ascending(x: Tensor) -> Tensor:
    """The places (K, N) int64 that sort each row of x (K, N) from its lowest value to its highest."""
    return torch.from_numpy(x.numpy().argsort(axis=1))  # vectorised in NumPy: half of the time of torch.sort


@dataclass(frozen=True)
class Ties:
    """Where the group of equal values that each place of K sorted rows belongs to begins, and its middle.

    Attributes:
        first: (K, N) int64, the first place of the group.
        ranks: (K, N) float64, middle ranks counted from 0.
    """

    first: Tensor
    ranks: Tensor


def ties(x: Tensor) -> Ties | None:
    """The ties of sorted rows (K, N); None where no row has any. Costs little where few values tie."""
    k, n = x.shape
    row, place = (x[:, 1:] == x[:, :-1]).nonzero(as_tuple=True)  # each ties with the next
    if not len(row):
        return None
    flat = row * n + place
    begins = torch.ones_like(flat, dtype=torch.bool)
    begins[1:] = flat[1:] != flat[:-1] + 1
    group = begins.cumsum(0) - 1
    start = flat[begins]
    size = torch.bincount(group).double() + 1
    first, ranks = torch.arange(n).repeat(k), torch.arange(n, dtype=torch.float64).repeat(k)
    for members in (flat, flat + 1):
        first[members] = start[group] % n
        ranks[members] = (start[group] % n) + (size[group] - 1) / 2
    return Ties(first.view(k, n), ranks.view(k, n))


def auroc_and_precision(labels: Tensor, tied: Ties | None = None) -> tuple[Tensor, Tensor]:
    """AUROC and average precision of scores for labels, both (K,) float64; NaN where a row has labels of one kind.

    AUROC = P(s+ > s-) + P(s+ = s-) / 2. Average precision is the step sum of (R_n - R_{n-1}) P_n over thresholds, one
    for each distinct score: the mean over positives of the precision at their own score.

    Args:
        labels: (K, N) bool, in the order of the scores, lowest first.
        tied: Of the scores.
    """
    k, n = labels.shape
    row, place = labels.nonzero(as_tuple=True)
    positives = torch.bincount(row, minlength=k)
    until = positives.cumsum(0)
    above = until[row] - torch.arange(len(row))  # positives from this one on
    first, rank = place, place.double()
    if tied is not None:
        first, rank = tied.first[row, place], tied.ranks[row, place]
        lower = (first != place).nonzero()[:, 0]
        above[lower] = until[row[lower]] - torch.searchsorted(row * n + place, row[lower] * n + first[lower])
    sums = torch.bincount(row, rank, minlength=k)
    precisions = torch.bincount(row, above.double() / (n - first), minlength=k)
    both = (positives > 0) & (positives < n)
    ones = positives.double()
    auroc = (sums - ones * (ones - 1) / 2) / (ones * (n - ones)).clamp(min=1)
    return torch.where(both, auroc, math.nan), torch.where(both, precisions / ones.clamp(min=1), math.nan)


def rank_correlation(order: Tensor, x: Ties | None, y: Ties | None) -> Tensor:
    """Spearman's correlation (K,) float64 of x and y at middle ranks; NaN where one of them is constant.

    Args:
        order: (K, N) int64, for each place of x sorted the place of the same picture in y sorted.
        x: Ties of x sorted.
        y: Ties of y sorted.
    """
    n = order.shape[1]
    middle = (n - 1) / 2
    places = (torch.arange(n, dtype=torch.float64) - middle)[None]
    of_x = places if x is None else x.ranks - middle
    of_y = order.double() - middle if y is None else y.ranks.gather(1, order) - middle
    products = (of_y * of_x).sum(1)
    squares = (of_x * of_x).sum(1) * (places if y is None else y.ranks - middle).square().sum(1)
    return torch.where(squares > 0, products / squares.clamp(min=1e-300).sqrt(), math.nan).clamp(-1, 1)


def spearman_rows(x: Tensor, y: Tensor) -> Tensor:
    """Spearman's correlation (K,) float64 of the rows of x and y (K, N), ties at middle ranks; NaN for a constant."""
    by_y = ascending(y)
    x, y = x.gather(1, by_y), y.gather(1, by_y)
    by_x = ascending(x)
    return rank_correlation(by_x, ties(x.gather(1, by_x)), ties(y))
