"""The leaderboard: how well each method explains each layer, one row a method; and which units of a layer are dead."""

import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from neuronx.errors import UserError, brief
from neuronx.metrics.bootstrap import mean_and_sem
from neuronx.scoring.baselines import CEILING, is_method
from neuronx.types import Activations, Score, Unit

DEAD_BELOW = 0.01
"""A unit is dead when its largest activation over all images is below this (Linear Explanations, appendix C.2)."""


@dataclass(frozen=True)
class LeaderboardRow:
    """One method on one layer: a row of `leaderboard.csv`.

    Attributes:
        target: Name of the network.
        layer: The layer.
        pool: Its pooling.
        method: The method, or a floor or ceiling, as in `Score`.
        score: As in `Score`.
        mean: Mean over the units that could be scored, float64; NaN when there are none.
        sem: Sample standard deviation over the square root of their number; NaN for fewer than two.
        n_units: How many could be scored.
        n_inactive: How many others never change.
        n_unjudged: How many have an explanation that the judge cannot judge.
        n_no_effect: How many change nothing downstream when they are replaced.
        judge: Name of the judge.
        images: `<data>/<split>:<n>`.
        n_broken: How many are NaN or infinite on some image.
    """

    target: str
    layer: str
    pool: str
    method: str
    score: str
    mean: float
    sem: float
    n_units: int
    n_inactive: int
    n_unjudged: int
    n_no_effect: int
    judge: str
    images: str
    n_broken: int = 0

    @property
    def board(self) -> tuple[str, ...]:
        """What the rows of one table have in common."""
        return self.target, self.layer, self.pool, self.score, self.judge, self.images

    @property
    def is_floor(self) -> bool:
        """Whether it is what explanations without meaning reach."""
        return not (is_method(self.method) or self.is_ceiling)

    @property
    def is_ceiling(self) -> bool:
        """Whether it is the best that the judge's concepts can do."""
        return self.method == CEILING


def leaderboard(scores: Sequence[Score], without: Collection[tuple[str, Unit]] = ()) -> list[LeaderboardRow]:
    """Averages scores over units, by network, layer, method, score, judge and images.

    Tables stand in the order in which they first appear; in each, the ceiling first, then methods, then floors, the
    best first.

    Args:
        scores: Of any number of networks and methods.
        without: Units to leave out, each with the name of its network.
    """
    groups: dict[tuple[str, ...], list[Score]] = {}
    for one in scores:
        if not isinstance(one, Score):
            raise UserError(f"A leaderboard is made of scores; found {brief(one)}.")
        if (one.target, one.unit) not in without:
            board = one.target, one.unit.layer, one.pool, one.score, one.judge, one.images
            groups.setdefault((*board, one.method), []).append(one)
    rows = [_row(group) for group in groups.values()]
    boards = list(dict.fromkeys(row.board for row in rows))
    return sorted(rows, key=lambda row: (boards.index(row.board), *_rank(row)))


def _row(group: Sequence[Score]) -> LeaderboardRow:
    first = group[0]
    values = [one.value for one in group if one.status == "ok"]
    mean, sem = mean_and_sem(values)
    count = Counter(one.status for one in group)
    return LeaderboardRow(
        target=first.target,
        layer=first.unit.layer,
        pool=first.pool,
        method=first.method,
        score=first.score,
        mean=mean,
        sem=sem,
        n_units=len(values),
        n_inactive=count["inactive"],
        n_unjudged=count["unjudged"],
        n_no_effect=count["no_effect"],
        judge=first.judge,
        images=first.images,
        n_broken=count["broken"],
    )


def _rank(row: LeaderboardRow) -> tuple[int, float, str]:
    kind = 0 if row.is_ceiling else 2 if row.is_floor else 1
    return kind, math.inf if math.isnan(row.mean) else -row.mean, row.method


@dataclass(frozen=True)
class Activity:
    """Which units of a layer are dead.

    Attributes:
        target: Name of the network.
        layer: The layer.
        n_units: How many units were looked at.
        dead: Those that are dead.
    """

    target: str
    layer: str
    n_units: int
    dead: frozenset[Unit]

    @property
    def share(self) -> float:
        """The share of dead units, 0 to 1."""
        return len(self.dead) / self.n_units


def dead_units(activations: Activations) -> frozenset[Unit]:
    """The units whose largest activation over all images is below .01; the memory map is read once."""
    below = (activations.values.amax(0) < DEAD_BELOW).tolist()
    return frozenset(unit for unit, dead in zip(activations.units, below, strict=True) if dead)


def activity(target: str, activations: Activations) -> Activity:
    """Looks at one layer of the network called `target`."""
    return Activity(target, activations.layer, len(activations.units), dead_units(activations))
