"""k-means of many units at once: what parts the circuits of a unit fall into.

Points take part only through their inner products, so that a unit costs m x m numbers however long its vectors are; all
units and all restarts go together. A unit's result does not depend on what other units there are.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from neuronx.errors import UserError
from neuronx.targets.latents import uniforms

CHUNK = 2**22
"""Largest number of inner products that are worked on at a time."""


@dataclass(frozen=True)
class Clusters:
    """Clusters of the m points of each of K units, the largest first.

    Attributes:
        labels: (K, m) int64; -1 for points that do not count.
        inertia: (K,) float64, the squared distances to the centroids, summed over the points.
        k: Number of clusters; a unit with fewer different points has fewer, and the last ones are empty.
    """

    labels: Tensor
    inertia: Tensor
    k: int

    @property
    def sizes(self) -> Tensor:
        """(K, k) int64, points in each cluster."""
        return members(self.labels, self.k).sum(1).long()

    def centroids(self, vectors: Tensor) -> Tensor:
        """(K, k, D) float32 of vectors (K, m, D); an empty cluster's is NaN."""
        inside = members(self.labels, self.k).to(vectors)
        return (inside.transpose(1, 2) @ vectors) / inside.sum(1)[:, :, None].where(
            self.sizes[:, :, None] > 0, torch.nan
        )


def members(labels: Tensor, k: int) -> Tensor:
    """(K, m, k) float64 of ones and zeros: which cluster each point is in; no one for label -1."""
    return (labels[:, :, None] == torch.arange(k, device=labels.device)).double()


def products(vectors: Tensor, counted: Tensor) -> Tensor:
    """Inner products (K, m, m) float64 of each unit's vectors (K, m, D), less the mean of those that count (K, m)."""
    found = torch.empty(*vectors.shape[:2], vectors.shape[1], dtype=torch.float64, device=vectors.device)
    for some in torch.arange(len(vectors)).split(max(1, CHUNK // max(1, vectors[0].numel()))):
        x, w = vectors[some].double(), counted[some].double()[:, :, None]
        x = (x - (x * w).sum(1, keepdim=True) / w.sum(1, keepdim=True).clamp(min=1)) * w
        found[some] = x @ x.transpose(1, 2)
    return found


def distances(products: Tensor) -> Tensor:
    """Euclidean distances (K, m, m) float64 from inner products, exactly 0 on the diagonal."""
    squares = products.diagonal(dim1=1, dim2=2)
    found = (squares[:, :, None] + squares[:, None, :] - 2 * products).clamp_(min=0).sqrt_()
    found.diagonal(dim1=1, dim2=2).zero_()
    return found


def kmeans(
    products: Tensor, k: int, counted: Tensor | None = None, *, n_init: int = 10, seed: int = 0, max_iter: int = 300
) -> Clusters:
    """Clusters the points of each unit by k-means: k-means++ (Arthur and Vassilvitskii, 2007), then Lloyd's iteration.

    Args:
        products: (K, m, m) float64, inner products of the points, from `products`.
        k: Number of clusters.
        counted: (K, m) bool, which points take part; all by default.
        n_init: Restarts; that of least inertia counts.
        seed: Of the first centres.
        max_iter: Rounds of Lloyd's iteration at most.

    Raises:
        UserError: k or n_init below 1, or a unit with fewer points than clusters.
    """
    counted = torch.ones(products.shape[:2], dtype=torch.bool, device=products.device) if counted is None else counted
    if k < 1 or n_init < 1:
        raise UserError(f"k-means with {k} clusters and {n_init} restarts: both must be at least 1.")
    if len(counted) and int(counted.sum(1).min()) < k:
        raise UserError(f"k-means of {int(counted.sum(1).min())} points cannot make {k} clusters.")
    labels, inertia = torch.full(counted.shape, -1, device=products.device), products.new_zeros(len(products))
    for some in torch.arange(len(products)).split(max(1, CHUNK // max(1, n_init * products.shape[1] * 64))):
        labels[some], inertia[some] = _kmeans(products[some], k, counted[some], n_init, seed, max_iter)
    return Clusters(largest_first(labels, k), inertia, k)


def _kmeans(G: Tensor, k: int, counted: Tensor, n_init: int, seed: int, max_iter: int) -> tuple[Tensor, Tensor]:
    squares, w = G.diagonal(dim1=1, dim2=2), counted.double()
    spread = (squares * w).sum(1)  # points are centred: the sum of squares about the mean
    inside = _first_centres(G, squares, w, k, n_init, seed)  # (K, R, m, k)
    labels = torch.full(inside.shape[:3], -1, device=G.device)
    off = squares[:, None, :]
    for _ in range(max_iter + 1):
        far = _to_centroids(G, squares, inside)  # (K, R, m, k)
        near, found = far.min(3)
        # An empty cluster takes the point that is farthest from its own centroid, if there is any off its centroid.
        sizes = torch.zeros(*found.shape[:2], k, dtype=w.dtype, device=G.device)
        sizes.scatter_add_(2, found, w[:, None].expand_as(near))
        near = torch.where(counted[:, None], near, 0.0)
        for empty in range(k if bool((sizes == 0).any()) else 0):
            distance, point = near.max(2, keepdim=True)
            moved = (sizes[:, :, empty, None] == 0) & (distance > 1e-12 * off.amax(2, keepdim=True))
            found.scatter_(2, point, torch.where(moved, empty, found.gather(2, point)))
            near.scatter_(2, point, torch.where(moved, 0.0, distance))
        if torch.equal(found, labels):
            break
        labels = found
        inside = torch.nn.functional.one_hot(labels, k).to(w) * w[:, None, :, None]
    sums = (_times(G, inside) * inside).sum(2)
    inertia = spread[:, None] - (sums / inside.sum(2).clamp(min=1)).sum(2)
    best = inertia.argmin(1)
    rows = torch.arange(len(G), device=G.device)
    return torch.where(counted, labels[rows, best], -1), inertia[rows, best].clamp(min=0)


def _times(G: Tensor, inside: Tensor) -> Tensor:
    """G (K, m, m) times memberships (K, R, m, k): (K, R, m, k)."""
    K, R, m, k = inside.shape
    flat = inside.permute(0, 2, 1, 3).reshape(K, m, R * k)
    return (G @ flat).view(K, m, R, k).permute(0, 2, 1, 3)


def _to_centroids(G: Tensor, squares: Tensor, inside: Tensor) -> Tensor:
    """Squared distances (K, R, m, k) of points to the means of clusters; infinite to an empty one."""
    sizes = inside.sum(2)
    sums = _times(G, inside)
    own = (sums * inside).sum(2) / sizes.clamp(min=1).square()
    found = squares[:, None, :, None] - 2 * sums / sizes.clamp(min=1)[:, :, None] + own[:, :, None]
    return found.clamp_(min=0).masked_fill_((sizes == 0)[:, :, None], torch.inf)


def _first_centres(G: Tensor, squares: Tensor, w: Tensor, k: int, n_init: int, seed: int) -> Tensor:
    """Memberships (K, R, m, k) of one point each, drawn by k-means++ with the same numbers for every unit."""
    K, m = w.shape
    drawn = uniforms(seed, torch.arange(n_init), k).double().to(G.device)  # (R, k)
    weight = w[:, None].expand(K, n_init, m)
    nearest = torch.full((K, n_init, m), torch.inf, dtype=G.dtype, device=G.device)
    inside = torch.zeros(K, n_init, m, k, dtype=G.dtype, device=G.device)
    for c in range(k):
        chance = weight if c == 0 else torch.where(nearest.sum(2, keepdim=True) > 0, nearest * weight, weight)
        reached = chance.cumsum(2)
        point = (reached <= drawn[:, c, None] * reached[..., -1:]).sum(2, keepdim=True).clamp(max=m - 1)
        inside[..., c].scatter_(2, point, 1.0)
        row = G.gather(1, point.squeeze(2)[:, :, None].expand(-1, -1, m))  # (K, R, m)
        distance = squares[:, None] + squares.gather(1, point.squeeze(2))[:, :, None] - 2 * row
        nearest = torch.minimum(nearest, distance.clamp(min=0)) * weight
    return inside


def largest_first(labels: Tensor, k: int) -> Tensor:
    """Labels (K, m) by size of the cluster; of equals the one with the earliest point."""
    m, inside = labels.shape[1], members(labels, k)
    earliest = torch.where(inside.any(1), inside.argmax(1), m)
    order = (inside.sum(1) * (m + 1) - earliest).argsort(1, descending=True)
    rank = order.argsort(1)
    return torch.where(labels >= 0, rank.gather(1, labels.clamp(min=0)), -1)
