"""What `sim=purity` found, as rows and tables: the published table, with intervals over units."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from neuronx.metrics.bootstrap import interval
from neuronx.metrics.purity import Alignment
from neuronx.scoring.floors import SHUFFLED
from neuronx.types import Cell, Score, Table, Unit

RANDOM = "random"
"""Labels shuffled, of clusters as large as PURE's."""
HELD_OUT = "held out"
COLUMNS = (
    "target",
    "layer",
    "space",
    "crop",
    "references",
    "k",
    "method",
    "units",
    "intra",
    "inter",
    "gap",
    "gap_low",
    "gap_high",
    "over_random",
    "over_random_low",
    "over_random_high",
)
ALIGNMENT = (
    "target",
    "layer",
    "space",
    "crop",
    "vectors",
    "units",
    "pooled",
    "subsets",
    "subsets_sem",
    "within",
    "within_low",
    "within_high",
)


@dataclass(frozen=True)
class Measured:
    """Mean distances of the references of L live units, clustered in one way; all (L,) float64.

    Attributes:
        way: What was clustered by.
        k: Number of clusters.
        held: Whether clusters were made of half of the references, and distances are of the others.
        intra: Inside clusters.
        inter: Between them.
        overall: Of all pairs.
        random_intra: Inside clusters of the same sizes drawn at random.
        random_inter: Between those.
    """

    way: str
    k: int
    held: bool
    intra: Tensor
    inter: Tensor
    overall: Tensor
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
class Studied:
    """All that was found about one layer.

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
        measured: Of the live units.
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
    measured: Sequence[Measured]
    aligned: Mapping[str, Alignment]


def score_rows(one: Studied, ks: Sequence[int]) -> list[Score]:
    """Rows of all units: the gap of each kind of clusters, its mean over k, and that of shuffled ones."""
    rows: list[Score] = []
    ways = dict.fromkeys(measured.way for measured in one.measured) or ("pure",)
    for score, held in (("purity", False), ("purity_held_out", True)):
        for way in ways:
            own = [measured for measured in one.measured if (measured.way, measured.held) == (way, held)]
            gaps = _of_all(one, [measured.gap for measured in own])
            chance = _of_all(one, [measured.random_gap for measured in own])
            rows += _rows(one, way, score, gaps, ks)
            if way in one.aligned:  # the ceiling needs no floor
                rows += _rows(one, SHUFFLED + way, score, chance, ks)
    return rows


def _of_all(one: Studied, gaps: Sequence[Tensor]) -> Tensor:
    """(K, U), NaN for units that were not measured."""
    found = torch.full((max(1, len(gaps)), len(one.units)), math.nan, dtype=torch.float64)
    if gaps:
        found[:, one.live] = torch.stack(list(gaps))
    return found


def _rows(one: Studied, method: str, score: str, gaps: Tensor, ks: Sequence[int]) -> list[Score]:
    rows = []
    for unit, own, count in zip(one.units, gaps.T.tolist(), one.counted.tolist(), strict=True):
        value = sum(own) / len(own)
        dead = math.isnan(value)
        said = "inactive" if dead else f"gap {', '.join(f'{gap:.4f}' for gap in own)} for k = {_listed(ks)}"
        rows.append(
            Score(
                target=one.target,
                pool=one.pool,
                unit=Unit(one.layer, unit),
                method=method,
                score=score,
                value=value,
                sem=math.nan,
                n=int(count),
                status="inactive" if dead else "ok",
                explanation=said,
                judge=one.space,
                images=one.images,
            )
        )
    return rows


def _listed(ks: Sequence[int]) -> str:
    return ", ".join(map(str, ks))


def purity_table(studied: Sequence[Studied], seed: int = 0) -> Table:
    """Means over units of distances inside and between clusters, by layer, references, k and method.

    Intervals are 95 % bootstraps over units, paired where they are of a difference: `over_random` is the gap less that
    of the same clusters with shuffled labels.
    """
    rows: list[list[Cell]] = []
    for one in studied:
        for m in sorted(one.measured, key=lambda m: (m.held, m.k)):
            place: list[Cell] = [one.target, one.layer, one.space, one.crop, HELD_OUT if m.held else "all", m.k]
            over = interval((m.gap - m.random_gap).numpy(), seed=seed)
            means = [float(m.intra.mean()), float(m.inter.mean())]
            rows.append([*place, m.way, len(m.gap), *means, *interval(m.gap.numpy(), seed=seed), *over])
            if m.way == "pure":
                means = [float(m.random_intra.mean()), float(m.random_inter.mean())]
                gap = interval(m.random_gap.numpy(), seed=seed)
                rows.append([*place, RANDOM, len(m.gap), *means, *gap, None, None, None])
    return COLUMNS, rows


def alignment_table(studied: Sequence[Studied], seed: int = 0) -> Table:
    """Correlations of distances with those in the space: pooled over all units, over groups of units, within units."""
    rows: list[list[Cell]] = []
    for one in studied:
        for vectors, found in one.aligned.items():
            within = found.within[~found.within.isnan()]
            groups = found.subsets[~found.subsets.isnan()]
            sem = float(groups.std() / len(groups) ** 0.5) if len(groups) > 1 else math.nan
            mean = float(groups.mean()) if len(groups) else math.nan
            place: list[Cell] = [one.target, one.layer, one.space, one.crop, vectors, len(within)]
            rows.append([*place, found.pooled, mean, sem, *interval(within.numpy(), seed=seed)])
    return ALIGNMENT, rows
