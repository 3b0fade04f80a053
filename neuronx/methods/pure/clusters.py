"""Clusters of many units at once: how many parts the circuits of a unit fall into, and which circuit is in which part.

Points take part only through their inner products, so that a unit costs m x m numbers however long its vectors are; all
units and all restarts go together. A unit's result does not depend on what other units there are.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from neuronx.errors import UserError, unknown
from neuronx.metrics.purity import members
from neuronx.options import Count, OpenShare, Seed, TwoOrMore
from neuronx.progress import progress
from neuronx.targets.latents import uniforms

CHUNK = 2**22
"""Largest number of inner products that are worked on at a time."""
WAYS = ("silhouette",)


@dataclass(frozen=True, kw_only=True)
class PartOptions:
    """How many parts a unit has, and which units are split.

    Attributes:
        k: Number of parts of every split unit; or `silhouette`, the number with the widest mean silhouette.
        alpha: Level of the test that a unit is polysemantic: a unit is split where circuits of one mode would look as
            split with a smaller chance. `bh:.05` lets a share of .05 of the units that are split in a layer be false
            ones (Benjamini and Hochberg). None splits every unit whose references make at least two parts.
        most: Largest number of parts that `silhouette` tries.
        min_size: References that a part needs; smaller ones are dissolved, their references join the nearest part.
        n_init: Restarts of k-means.
        halves: Random halves of the references that the test looks at.
        seed: Of centres and halves.
    """

    k: int | str = "silhouette"
    alpha: OpenShare | str | None = 0.001
    most: TwoOrMore = 5
    min_size: Count = 5
    n_init: Count = 10
    halves: Count = 10
    seed: Seed = 0


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


def choose(inner: Tensor, counted: Tensor, options: PartOptions) -> Clusters:
    """Clusters the circuits of each unit into as many parts as it has, whether the test would split it or not.

    Args:
        inner: (K, m, m) float64, inner products of each unit's circuits, from `products`.
        counted: (K, m) bool, which of them count.
        options: Of which `alpha` and `halves` play no part.

    Returns:
        Clusters; a unit with fewer parts than `k` has empty ones. Units with fewer circuits than clusters to try have
        as many clusters as they have circuits at most, before small ones are dissolved.

    Raises:
        UserError: k, most or min_size below 1, or a way that does not exist.
    """
    k, most, n_init, seed = options.k, options.most, options.n_init, options.seed
    if isinstance(k, str) and k not in WAYS:
        raise unknown("way to choose the number of parts", k, WAYS, "Or write a number.")
    for name, value in (("k", k), ("most", most), ("min_size", options.min_size)):
        if isinstance(value, int) and value < 1:
            raise UserError(f"{name}={value} of the parts of units: it must be at least 1.")
    tried = [k] if isinstance(k, int) else list(range(min(2, most), most + 1))
    found = {n: kmeans(inner, n, counted, n_init=n_init, seed=seed) for n in tried}
    if isinstance(k, int):
        best = torch.full((len(inner),), k)
    else:
        far = distances(inner)
        widths = torch.stack([silhouette(far, clusters.labels, n) for n, clusters in found.items()])
        best = torch.tensor(tried)[widths.argmax(0).cpu()]
    labels = torch.full_like(counted, -1, dtype=torch.int64)
    for n, clusters in found.items():
        labels[best.to(labels.device) == n] = clusters.labels[best.to(labels.device) == n]
    return dissolved(inner, labels, int(best.max()) if len(best) else 1, options.min_size)


def dissolved(inner: Tensor, labels: Tensor, k: int, min_size: int) -> Clusters:
    """Dissolves clusters of fewer than `min_size` points: each of their points joins the nearest of the others.

    Where all clusters of a unit are small, its points make one.
    """
    labels = largest_first(labels, k)
    inside = members(labels, k)
    kept = inside.sum(1) >= min_size
    squares = inner.diagonal(dim1=1, dim2=2)
    near = _to_centroids(inner, squares, (inside * kept[:, None])[:, None])[:, 0].argmin(2)
    stays = (labels < 0) | kept.gather(1, labels.clamp(min=0))
    labels = largest_first(torch.where(stays, labels, near), k)
    inside = members(labels, k)
    between = (((inner @ inside) * inside).sum(1) / inside.sum(1).clamp(min=1)).sum(1)
    return Clusters(labels, ((squares * (labels >= 0)).sum(1) - between).clamp(min=0), k)


def silhouette(far: Tensor, labels: Tensor, k: int) -> Tensor:
    """Mean silhouette width (K,) of clusters (Rousseeuw, 1987), in [-1, 1]; 0 where all points are in one.

    Args:
        far: (K, m, m) float64, distances of the points.
        labels: (K, m) int64, -1 for points that do not count.
        k: Number of clusters.
    """
    inside = members(labels, k)
    sizes, sums = inside.sum(1), far @ inside
    own = inside.bool()
    size = sizes.gather(1, labels.clamp(min=0))
    within = (sums * inside).sum(2) / (size - 1).clamp(min=1)
    others = (sums / sizes.clamp(min=1)[:, None]).masked_fill(own | (sizes == 0)[:, None], torch.inf).amin(2)
    width = (others - within) / torch.maximum(others, within).clamp(min=1e-300)
    counts = (labels >= 0) & (size > 1) & others.isfinite()
    return torch.where(counts, width, 0.0).sum(1) / (labels >= 0).sum(1).clamp(min=1)


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
    products: Tensor, k: int, counted: Tensor | None = None, *, n_init: Count = 10, seed: Seed = 0, max_iter: int = 300
) -> Clusters:
    """Clusters the points of each unit by k-means: k-means++ (Arthur and Vassilvitskii, 2007), then Lloyd's iteration.

    A unit with fewer points than clusters has a cluster for each point.

    Args:
        products: (K, m, m) float64, inner products of the points, from `products`.
        k: Number of clusters.
        counted: (K, m) bool, which points take part; all by default.
        n_init: Restarts; that of least inertia counts.
        seed: Of the first centres.
        max_iter: Rounds of Lloyd's iteration at most.

    Raises:
        UserError: k or n_init below 1.
    """
    if k < 1 or n_init < 1:
        raise UserError(f"k-means with {k} clusters and {n_init} restarts: both must be at least 1.")
    counted = torch.ones(products.shape[:2], dtype=torch.bool, device=products.device) if counted is None else counted
    labels, inertia = torch.where(counted, counted.cumsum(1) - 1, -1), products.new_zeros(len(products))
    enough = (counted.sum(1) >= k).nonzero().squeeze(1)
    for units in progress(enough.split(max(1, CHUNK // max(1, n_init * products.shape[1] * 64))), "splitting units"):
        labels[units], inertia[units] = _kmeans(products[units], k, counted[units], n_init, seed, max_iter)
    return Clusters(largest_first(labels, k), inertia, k)


def _kmeans(G: Tensor, k: int, counted: Tensor, n_init: Count, seed: Seed, max_iter: int) -> tuple[Tensor, Tensor]:
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


def _first_centres(G: Tensor, squares: Tensor, w: Tensor, k: int, n_init: Count, seed: int) -> Tensor:
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
