"""What `sim=purity` measured, as rows and tables: the published table, with intervals over units."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from neuronx.metrics.correlation import interval
from neuronx.metrics.purity import Alignment
from neuronx.scoring.rows import SHUFFLED
from neuronx.types import Cell, Score, Table, Unit

RANDOM = "random"
"""Labels shuffled, of clusters as large as PURE's."""
HELD_OUT = "held out"
COLUMNS = (
    *("target", "layer", "space", "crop", "references", "k", "method", "units", "intra", "inter"),
    *("gap", "gap_low", "gap_high", "over_random", "over_random_low", "over_random_high"),
)
ALIGNMENT = (
    *("target", "layer", "space", "crop", "vectors", "units", "pooled", "subsets", "subsets_sem"),
    *("within", "within_low", "within_high"),
)


@dataclass(frozen=True)
class ClusterDistances:
    """Mean distances of the references of L live units, clustered in one way; all (L,) float64.

    Attributes:
        method: What was clustered by.
        k: Number of clusters.
        held_out: Whether clusters were made of half of the references, and distances are of the others.
        intra: Inside clusters.
        inter: Between them.
        random_intra: Inside clusters of the same sizes drawn at random.
        random_inter: Between those.
    """

    method: str
    k: int
    held_out: bool
    intra: Tensor
    inter: Tensor
    random_intra: Tensor
    random_inter: Tensor

    @property
    def gap(self) -> Tensor:
        """(L,) inter less intra."""
        return self.inter - self.intra

    @property
    def random_gap(self) -> Tensor:
        """(L,) the same of random labels."""
        return self.random_inter - self.random_intra


@dataclass(frozen=True)
class LayerPurity:
    """All that was measured of one layer.

    Attributes:
        target: Name of the network.
        layer: The layer.
        pool: Its pooling.
        units: The U units asked for.
        counted: (U,) int64, on how many references each fires.
        live: (U,) bool, which of them were measured.
        space: Where distances were measured.
        crop: What of the pictures.
        images: Where references come from.
        distances: Of the live units.
        aligned: Name of vectors -> how their distances follow those in the space.
    """

    target: str
    layer: str
    pool: str
    units: tuple[int, ...]
    counted: Tensor
    live: Tensor
    space: str
    crop: str
    images: str
    distances: Sequence[ClusterDistances]
    aligned: Mapping[str, Alignment]

    @property
    def place(self) -> list[Cell]:
        """The first columns of both tables."""
        return [self.target, self.layer, self.space, self.crop]


def score_rows(purity: LayerPurity, ks: Sequence[int]) -> list[Score]:
    """Rows of all units: the gap of each kind of clusters, its mean over k, and that of shuffled ones."""
    rows: list[Score] = []
    methods = dict.fromkeys(distances.method for distances in purity.distances) or ("pure",)
    for score, held_out in (("purity", False), ("purity_held_out", True)):
        for method in methods:
            own = [each for each in purity.distances if (each.method, each.held_out) == (method, held_out)]
            rows += _rows(purity, method, score, [each.gap for each in own], ks)
            if method in purity.aligned:  # the ceiling needs no floor
                rows += _rows(purity, SHUFFLED + method, score, [each.random_gap for each in own], ks)
    return rows


def _rows(purity: LayerPurity, method: str, score: str, live: Sequence[Tensor], ks: Sequence[int]) -> list[Score]:
    """Of all units, from the gaps (L,) of the live ones, for each k."""
    gaps = torch.full((max(1, len(live)), len(purity.units)), math.nan, dtype=torch.float64)
    if live:
        gaps[:, purity.live] = torch.stack(list(live))
    rows = []
    for unit, own, count in zip(purity.units, gaps.T.tolist(), purity.counted.tolist(), strict=True):
        value = sum(own) / len(own)
        inactive = math.isnan(value)
        in_words = f"gap {', '.join(f'{gap:.4f}' for gap in own)} for k = {', '.join(map(str, ks))}"
        rows.append(
            Score(
                target=purity.target,
                pool=purity.pool,
                unit=Unit(purity.layer, unit),
                method=method,
                score=score,
                value=value,
                sem=math.nan,
                n=int(count),
                status="inactive" if inactive else "ok",
                explanation="inactive" if inactive else in_words,
                judge=purity.space,
                images=purity.images,
            )
        )
    return rows


def purity_table(layers: Sequence[LayerPurity], seed: int = 0) -> Table:
    """Means over units of distances inside and between clusters, by layer, references, k and method.

    Intervals are 95 % bootstraps over units, paired where they are of a difference: `over_random` is the gap less that
    of the same clusters with shuffled labels.
    """
    rows: list[list[Cell]] = []
    for purity in layers:
        for own in sorted(purity.distances, key=lambda own: (own.held_out, own.k)):
            place = [*purity.place, HELD_OUT if own.held_out else "all", own.k]
            over = interval((own.gap - own.random_gap).numpy(), seed=seed)
            means = [float(own.intra.mean()), float(own.inter.mean())]
            rows.append([*place, own.method, len(own.gap), *means, *interval(own.gap.numpy(), seed=seed), *over])
            if own.method == "pure":
                means = [float(own.random_intra.mean()), float(own.random_inter.mean())]
                gap = interval(own.random_gap.numpy(), seed=seed)
                rows.append([*place, RANDOM, len(own.gap), *means, *gap, None, None, None])
    return COLUMNS, rows


def alignment_table(layers: Sequence[LayerPurity], seed: int = 0) -> Table:
    """Correlations of distances with those in the space: pooled over all units, over groups of units, within units."""
    rows: list[list[Cell]] = []
    for purity in layers:
        for vectors, aligned in purity.aligned.items():
            within = aligned.within[~aligned.within.isnan()]
            groups = aligned.subsets[~aligned.subsets.isnan()]
            sem = float(groups.std() / len(groups) ** 0.5) if len(groups) > 1 else math.nan
            mean = float(groups.mean()) if len(groups) else math.nan
            place = [*purity.place, vectors, len(within), aligned.pooled]
            rows.append([*place, mean, sem, *interval(within.numpy(), seed=seed)])
    return ALIGNMENT, rows
