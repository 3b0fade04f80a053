"""How pure the parts of units are: distances of references inside and between clusters, for all units at once.

Everything is float64, and points take part only through their inner products.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

CHUNK = 2**22
"""Numbers that are worked on at a time: 32 MB."""


@dataclass(frozen=True)
class Separation:
    """Distances of the points of U units, averaged over ordered pairs of two different points; all (U,) float64.

    NaN for a unit with fewer than two points.

    Attributes:
        intra: Over pairs of one cluster. Where no cluster has two points, it is `inter`.
        inter: Over pairs of two clusters. Where there is one cluster only, it is `intra`.
        overall: Over all pairs; what either is on average for labels drawn at random.
    """

    intra: Tensor
    inter: Tensor
    overall: Tensor

    @property
    def gap(self) -> Tensor:
        """(U,) mean distance between clusters less that inside; 0 is chance."""
        return self.inter - self.intra


@dataclass(frozen=True)
class Alignment:
    """How well the distances of points in one space follow those of the same points in another.

    Attributes:
        within: (U,) float64, Pearson correlation over the pairs of each unit; NaN where either does not vary.
        pooled: Over the pairs of all units together, as published: differences of scale between units count too.
        subsets: (S,) float64, the same for S random groups of units; the published figure is their mean.
    """

    within: Tensor
    pooled: float
    subsets: Tensor


def pair_distances(points: Tensor) -> Tensor:
    """Euclidean distances between the m points of each unit, (U, m, D) of any floating dtype: (U, m, m) float64.

    Exactly 0 on the diagonal and between equal points.
    """
    found = torch.empty(len(points), points.shape[1], points.shape[1], dtype=torch.float64, device=points.device)
    for some in torch.arange(len(points)).split(max(1, CHUNK // max(1, points[0].numel() if len(points) else 1))):
        x = points[some].double()
        x -= x.mean(1, keepdim=True)  # distances stay, and few digits cancel
        products = x @ x.transpose(1, 2)
        squares = products.diagonal(dim1=1, dim2=2)
        both = squares[:, :, None] + squares[:, None, :]
        far = both - 2 * products
        # What is left of equal points is rounding.
        found[some] = far.masked_fill_(far <= 1e-13 * both, 0.0).sqrt_()
    found.diagonal(dim1=1, dim2=2).zero_()
    return found


def separation(distances: Tensor, labels: Tensor) -> Separation:
    """Distances inside and between clusters (PURE, the CLIP evaluation).

    Pairs have equal weight, so that large clusters count more, and a cluster of one point has no pair inside.

    Args:
        distances: (U, m, m), symmetric, 0 on the diagonal.
        labels: (U, m) int64; -1 for points that do not count.
    """
    k = int(labels.max()) + 1 if labels.numel() else 1
    inside = members(labels, max(1, k)).to(distances.device)
    between = inside.transpose(1, 2) @ distances.double() @ inside  # (U, k, k)
    sizes = inside.sum(1)
    n = sizes.sum(1)
    same, total = between.diagonal(dim1=1, dim2=2).sum(1), between.sum((1, 2))
    same_pairs, pairs = (sizes * (sizes - 1)).sum(1), n * (n - 1)
    intra, inter = same / same_pairs, (total - same) / (pairs - same_pairs)
    return Separation(
        torch.where(same_pairs == 0, inter, intra),
        torch.where(pairs == same_pairs, intra, inter),
        total / pairs,
    )


def shuffled(labels: Tensor, seed: int = 0) -> Tensor:
    """The labels (U, m) of each unit's points in random order: clusters of the same sizes that mean nothing.

    Points that do not count, -1, stay out.
    """
    out = labels < 0
    keys = torch.rand(labels.shape, generator=torch.Generator().manual_seed(seed)).to(labels.device)
    drawn = (keys + 2 * out).argsort(1)  # those that count come first, in random order
    places = out.int().argsort(dim=1, stable=True)
    return torch.full_like(labels, -1).scatter_(1, places, labels.gather(1, drawn))


def nearest(points: Tensor, labels: Tensor, wanted: Tensor) -> Tensor:
    """Gives points the cluster whose mean is nearest, in the Euclidean sense.

    Args:
        points: (U, m, D).
        labels: (U, m) int64 of the points that clusters are made of; -1 for others.
        wanted: (U, m) bool, the points to be given one.

    Returns:
        (U, m) int64; -1 for points that are not wanted, and for all points of a unit without clusters.
    """
    found = torch.full_like(labels, -1)
    k = max(1, int(labels.max()) + 1) if labels.numel() else 1
    for some in torch.arange(len(points)).split(max(1, CHUNK // max(1, points[0].numel() if len(points) else 1))):
        x, inside = points[some].double(), members(labels[some], k)
        sizes = inside.sum(1)
        means = (inside.transpose(1, 2) @ x) / sizes.clamp(min=1)[:, :, None]
        squares = means.square().sum(2)[:, None] - 2 * (x @ means.transpose(1, 2))  # less |x|^2
        near = squares.masked_fill((sizes == 0)[:, None], torch.inf).argmin(2)
        found[some] = torch.where(wanted[some] & (sizes.sum(1) > 0)[:, None], near, -1)
    return found


def alignment(a: Tensor, b: Tensor, counted: Tensor, *, subsets: int = 30, seed: int = 0) -> Alignment:
    """Correlates two sets of distances of the same points, (U, m, m) each, over pairs of different points.

    Pairs at distance 0 in either space are left out, as published: equal points, such as two images without circuits.

    Args:
        a: Distances.
        b: Others.
        counted: (U, m) bool, which points take part.
        subsets: Groups of units, of equal size, into which they are drawn; units that are left over are in none. Fewer
            where there are fewer units.
        seed: Of the groups.
    """
    a, b = a.double(), b.double()
    pairs = (counted[:, :, None] & counted[:, None, :] & (a * b != 0)).double()
    centre = pairs.sum().clamp(min=1)
    a, b = a - (a * pairs).sum() / centre, b - (b * pairs).sum() / centre
    sums = torch.stack([(pairs * x).sum((1, 2)) for x in (torch.ones_like(a), a, b, a * a, b * b, a * b)])
    subsets = min(subsets, len(a))
    size = len(a) // subsets if subsets else 0
    order = torch.randperm(len(a), generator=torch.Generator().manual_seed(seed))[: subsets * size]
    groups = sums[:, order].view(6, subsets, size).sum(2) if subsets else sums[:, :0]
    return Alignment(_pearson(sums), float(_pearson(sums.sum(1, keepdim=True))), _pearson(groups))


def members(labels: Tensor, k: int) -> Tensor:
    """Memberships (U, m, k) float64 of labels (U, m); none for -1."""
    return (labels[:, :, None] == torch.arange(k, device=labels.device)).double()


def _pearson(sums: Tensor) -> Tensor:
    """Correlations (K,) from numbers of pairs and sums of a, b, a^2, b^2, a b: (6, K); NaN where nothing varies."""
    n, a, b, aa, bb, ab = sums
    n = n.clamp(min=1)
    va, vb = aa - a * a / n, bb - b * b / n
    flat = (va <= 1e-12 * aa) | (vb <= 1e-12 * bb)
    return torch.where(flat, torch.nan, (ab - a * b / n) / (va * vb).clamp(min=1e-300).sqrt()).clamp(-1, 1)
