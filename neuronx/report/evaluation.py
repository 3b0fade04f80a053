"""What `evaluate` found, and the files that it becomes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from neuronx.report.activity import Activity
from neuronx.report.leaderboard import LeaderboardRow, leaderboard
from neuronx.tables.csv import write_csv
from neuronx.tables.explanations import write_explanations
from neuronx.tables.scores import write_records, write_scores
from neuronx.types import Comparison, Explanation, PartSamples, Score, Table


@dataclass(frozen=True)
class Evaluation:
    """What one run found.

    Attributes:
        explanations: By name of the network and method.
        scores: One a unit, method and score, floors and ceiling among them.
        comparisons: Of methods on the same units.
        agreement: Between judges, where there are several; each entry is a sentence when turned into text.
        activity: Dead units, by layer.
        tables: What methods have to say beyond their explanations, and scores beyond their numbers: columns and rows by
            file name.
        samples: References of split units, to be shown.
    """

    explanations: Mapping[tuple[str, str], Sequence[Explanation]]
    scores: Sequence[Score] = ()
    comparisons: Sequence[Comparison] = ()
    agreement: Sequence[Any] = ()
    activity: Sequence[Activity] = ()
    tables: Mapping[str, Table] = field(default_factory=dict)
    samples: Sequence[PartSamples] = ()

    @cached_property
    def leaderboard(self) -> list[LeaderboardRow]:
        """One row a network, layer, method, score and judge."""
        return leaderboard(self.scores)

    @cached_property
    def leaderboard_of_live_units(self) -> list[LeaderboardRow]:
        """The same without dead units."""
        return leaderboard(self.scores, {(layer.target, unit) for layer in self.activity for unit in layer.dead})

    def summary(self) -> dict[str, float]:
        """Means of the leaderboard as `score/<score>/<target>/<layer>/<method>`, shares of dead units as `dead/...`.

        Where several judges scored the same, the judge's name comes last in the key.
        """
        keys = [f"score/{row.score}/{row.target}/{row.layer}/{row.method}" for row in self.leaderboard]
        means = {
            key if keys.count(key) == 1 else f"{key}/{row.judge}": row.mean
            for key, row in zip(keys, self.leaderboard, strict=True)
        }
        return means | {f"dead/{layer.target}/{layer.layer}": layer.share for layer in self.activity}


def write(evaluation: Evaluation, folder: str | Path) -> list[Path]:
    """Writes the tables of a run into its folder and returns their paths; tables without rows are not written."""
    folder = Path(folder)
    paths = []
    for (target, method), found in evaluation.explanations.items():
        for layer in dict.fromkeys(one.unit.layer for one in found):
            name = "_".join((target, layer, method)).replace("/", "-")
            of_layer = [one for one in found if one.unit.layer == layer]
            paths.append(write_explanations(folder / "explanations" / f"{name}.csv", of_layer))
    paths += [write_csv(folder / name.replace("/", "-"), *table) for name, table in evaluation.tables.items()]
    if evaluation.scores:
        paths.append(write_scores(folder / "scores.csv", evaluation.scores))
        paths.append(write_records(folder / "leaderboard.csv", LeaderboardRow, evaluation.leaderboard))
    if evaluation.comparisons:
        paths.append(write_records(folder / "comparisons.csv", Comparison, evaluation.comparisons))
    return paths
