"""Fair comparisons: of methods on the same units, of judges with each other, of a judge with what it judges."""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from neuronx.errors import UserError
from neuronx.metrics.correlation import FEW, interval, mean_and_sem, spearman
from neuronx.scoring.rows import SHUFFLED, is_method
from neuronx.types import Comparison, Judge, Score, Unit

if TYPE_CHECKING:
    from neuronx.data.probe import Probe

Board = dict[str, dict[Unit, float]]
"""Method -> unit -> score, of the units that could be scored."""


@dataclass(frozen=True)
class JudgeAgreement:
    """How far two judges put things in the same order.

    Attributes:
        target: Name of the network.
        layer: The layer.
        score: As in `Score`.
        method: Whose units are ranked; "" when methods are ranked by their mean.
        judges: Names of the two.
        rho: Spearman's rank correlation; NaN with fewer than two units or methods.
        n: How many units or methods were ranked.
    """

    target: str
    layer: str
    score: str
    method: str
    judges: tuple[str, str]
    rho: float
    n: int

    def __str__(self) -> str:
        what = f"{self.n} units of {self.method}" if self.method else f"{self.n} methods"
        if math.isnan(self.rho):
            return (
                f"{self.judges[0]} and {self.judges[1]} cannot be compared on {what}, too few or all alike "
                f"({self.score}, {self.target} {self.layer})"
            )
        return (
            f"{self.judges[0]} and {self.judges[1]} rank {what} with correlation {self.rho:.2f} "
            f"({self.score}, {self.target} {self.layer})"
        )


def compare(scores: Sequence[Score], seed: int = 0) -> list[Comparison]:
    """Compares methods on the units scored for both: every pair of methods, and each method with its shuffled self.

    The interval is the 95 % percentile bootstrap over units, paired, or the t interval of fewer than ten. Where
    several judges scored, the first counts.

    Args:
        scores: Of any number of networks, layers and methods.
        seed: Of the bootstrap.
    """
    first: dict[str, str] = {}
    for row in scores:
        first.setdefault(row.score, row.judge)
    compared: list[Comparison] = []
    for (target, layer, score, judge), board in _boards(scores).items():
        if judge != first[score]:
            continue
        methods = [method for method in board if is_method(method)]
        shuffled = [(method, SHUFFLED + method) for method in methods if SHUFFLED + method in board]
        for a, b in [*itertools.combinations(methods, 2), *shuffled]:
            both = sorted(board[a].keys() & board[b].keys())
            if both:
                diff, low, high = interval([board[a][unit] - board[b][unit] for unit in both], seed=seed)
                kind = "bootstrap" if len(both) >= FEW else "t" if len(both) > 1 else "none"
                compared.append(Comparison(target, layer, score, a, b, diff, low, high, len(both), kind))
    return compared


def agreement(scores: Sequence[Score]) -> list[JudgeAgreement]:
    """Compares every two judges: on the units of each method, then on the order of the methods, layer by layer."""
    boards = _boards(scores)
    agreements: list[JudgeAgreement] = []
    for target, layer, score in dict.fromkeys(key[:3] for key in boards):
        judges = [key[3] for key in boards if key[:3] == (target, layer, score)]
        for pair in itertools.combinations(judges, 2):
            first, second = (boards[target, layer, score, judge] for judge in pair)
            methods = [method for method in first if is_method(method) and method in second]
            means: list[tuple[float, float]] = []
            for method in methods:
                units = sorted(first[method].keys() & second[method].keys())
                a, b = ([board[method][unit] for unit in units] for board in (first, second))
                agreements.append(JudgeAgreement(target, layer, score, method, pair, spearman(a, b), len(units)))
                if units:
                    means.append((mean_and_sem(a)[0], mean_and_sem(b)[0]))
            a, b = ([pair_of_means[k] for pair_of_means in means] for k in (0, 1))
            agreements.append(JudgeAgreement(target, layer, score, "", pair, spearman(a, b), len(means)))
    return agreements


def check_judge(judge: Judge, probe: "Probe", makers: Iterable[Sequence[str]] = ()) -> None:
    """Makes sure that a judge may judge: its own kind of pictures, and no explanation that its encoder has made.

    Args:
        judge: Who is to judge.
        probe: The images.
        makers: `made_by` of explanations; or names and encoders of methods that are about to explain.

    Raises:
        UserError: A judge of another domain, or one whose encoder takes part in explaining.
    """
    if judge.domain not in ("", probe.domain):
        raise UserError(
            f"The judge {judge.name} knows {judge.domain} pictures, and those of `{probe.name}` are {probe.domain}: "
            "take a judge of that domain, or judge=labels."
        )
    if not judge.encoders:
        return  # nobody's encoder has to be loaded to know that
    for method, *encoders in filter(None, dict.fromkeys(map(tuple, makers))):
        if set(judge.encoders) & set(encoders):
            raise UserError(
                f"The judge {judge.name} has made the explanations of {method} (its weights are the same) and cannot "
                "judge them: take another judge= or clip=."
            )


def _boards(scores: Sequence[Score]) -> dict[tuple[str, str, str, str], Board]:
    """(target, layer, score, judge) -> what was scored there."""
    boards: dict[tuple[str, str, str, str], Board] = {}
    for row in scores:
        board = boards.setdefault((row.target, row.unit.layer, row.score, row.judge), {})
        units = board.setdefault(row.method, {})
        if row.status == "ok":
            units[row.unit] = row.value
    return boards
