"""How many parts a unit has, and what becomes of parts that are too small."""

from dataclasses import dataclass

import torch
from torch import Tensor

from neuronx.errors import UserError, unknown
from neuronx.methods.pure.clusters import Clusters, distances, kmeans, largest_first, members
from neuronx.methods.pure.polysemantic import clouds

WAYS = ("silhouette", "gap")
DRAWS = 20
"""Clouds that `gap` draws."""


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


@dataclass(frozen=True, kw_only=True)
class PartOptions:
    """How many parts a unit has, and which units are split.

    Attributes:
        k: Number of parts of every split unit; or `silhouette`, the number with the widest mean silhouette; or `gap`,
            the smallest number, which may be one, with the largest gap but for its standard error between the scatter
            of the circuits and of Gaussian clouds (Tibshirani, Walther and Hastie, 2001; the clouds of `polysemantic`).
        alpha: Level of the test that a unit is polysemantic: a unit is split where one cloud would look as split with a
            smaller chance. None splits every unit whose references make at least two parts.
        most: Largest number of parts that `silhouette` and `gap` try.
        min_size: References that a part needs; smaller ones are dissolved, their references join the nearest part.
        n_init: Restarts of k-means.
        draws: Clouds that the test draws for each unit.
        seed: Of centres and clouds.
    """

    k: int | str = "silhouette"
    alpha: float | None = 0.001
    most: int = 5
    min_size: int = 5
    n_init: int = 10
    draws: int = 50
    seed: int = 0


def choose(inner: Tensor, counted: Tensor, options: PartOptions) -> Clusters:
    """Clusters the circuits of each unit into as many parts as it has, whether the test would split it or not.

    Args:
        inner: (K, m, m) float64, inner products of each unit's circuits, from `products`.
        counted: (K, m) bool, which of them count.
        options: Of which `alpha` and `draws` play no part.

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
    tried = [k] if isinstance(k, int) else list(range(1 if k == "gap" else min(2, most), most + 1))
    found = {n: _kmeans(inner, counted, n, n_init, seed) for n in tried}
    if isinstance(k, int):
        best = torch.full((len(inner),), k)
    elif k == "silhouette":
        far = distances(inner)
        widths = torch.stack([silhouette(far, clusters.labels, n) for n, clusters in found.items()])
        best = torch.tensor(tried)[widths.argmax(0).cpu()]
    else:
        best = _by_gap(inner, counted, found, n_init, seed)
    labels = torch.full_like(counted, -1, dtype=torch.int64)
    for n, clusters in found.items():
        labels[best.to(labels.device) == n] = clusters.labels[best.to(labels.device) == n]
    return dissolved(inner, labels, int(best.max()) if len(best) else 1, options.min_size)


def dissolved(inner: Tensor, labels: Tensor, k: int, min_size: int) -> Clusters:
    """Clusters without those of fewer than `min_size` points, which join the nearest of the others, if there are any.

    A unit all of whose clusters are small has one.
    """
    labels = largest_first(labels, k)
    sizes = members(labels, k).sum(1)
    kept = sizes >= min_size
    inside = members(labels, k) * kept[:, None]
    squares = inner.diagonal(dim1=1, dim2=2)
    count, sums = inside.sum(1).clamp(min=1), inner @ inside
    to = squares[..., None] - 2 * sums / count[:, None] + ((sums * inside).sum(1) / count.square())[:, None]
    near = to.masked_fill(~kept[:, None], torch.inf).argmin(2)
    stays = kept.gather(1, labels.clamp(min=0))
    labels = torch.where(labels < 0, -1, torch.where(stays, labels, near))
    labels = largest_first(labels, k)
    inside = members(labels, k)
    own = ((inner @ inside) * inside).sum(1) / inside.sum(1).clamp(min=1)
    spread = (squares * (labels >= 0)).sum(1)
    return Clusters(labels, (spread - own.sum(1)).clamp(min=0), k)


def _kmeans(inner: Tensor, counted: Tensor, k: int, n_init: int, seed: int) -> Clusters:
    """k-means; a unit with fewer points than clusters has a cluster for each point."""
    enough = counted.sum(1) >= k
    own = torch.where(counted, (counted.cumsum(1) - 1), -1)
    labels, inertia = own, torch.zeros(len(inner), dtype=torch.float64, device=inner.device)
    if enough.any():
        found = kmeans(inner[enough], k, counted[enough], n_init=n_init, seed=seed)
        labels[enough], inertia[enough] = found.labels, found.inertia
    return Clusters(labels, inertia, k)


def _by_gap(inner: Tensor, counted: Tensor, found: dict[int, Clusters], n_init: int, seed: int) -> Tensor:
    """(K,) the smallest k whose gap reaches the largest one, less its standard error."""
    made = []
    for one, counts in clouds(inner, counted, DRAWS, seed):
        made.append(torch.stack([_scatter(_kmeans(one, counts, k, n_init, seed).inertia) for k in found]))
    drawn = torch.cat([some.view(len(found), -1, len(inner)) for some in made], 1)
    gaps = drawn.mean(1) - torch.stack([_scatter(one.inertia) for one in found.values()])
    error = drawn.std(1, correction=0) * (1 + 1 / DRAWS) ** 0.5
    best = gaps.argmax(0, keepdim=True)
    good = gaps >= (gaps.gather(0, best) - error.gather(0, best))
    return torch.tensor(list(found))[good.int().argmax(0).cpu()]


def _scatter(inertia: Tensor) -> Tensor:
    return inertia.clamp(min=1e-300).log()
