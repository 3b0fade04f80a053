"""How well a captioner describes units of networks, tasks and data that it was not trained on.

Tables 2 and 3 of MILAN (Hernandez et al., 2022), with a constant caption and a nearest neighbour beside every figure.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Column
from rich.text import Text
from torch import Tensor

from neuronx.experiments.splits import Split
from neuronx.metrics.bert_score import BertScore
from neuronx.metrics.bootstrap import mean_and_sem
from neuronx.metrics.captions import CaptionScores, References, score_captions
from neuronx.metrics.constants import constant_captions, nearest_units
from neuronx.report.caption_scores import SCORES, numbers
from neuronx.report.inventory import as_text, plain_table
from neuronx.tables.csv import write_csv

if TYPE_CHECKING:
    from neuronx.milannotations.dataset import Milannotations

Captions = Mapping[str, Sequence[str]]
"""Way of writing (`pmi`, `likelihood`) -> one caption for each of the units asked for."""
Describe = Callable[[Sequence[int]], Captions]
"""From positions of units to their captions."""
Fit = Callable[[Sequence[int], int], Describe]
"""From positions of units to train on, and a seed, to what then describes units."""

NEAREST, CONSTANT = "nearest training unit", "constant"


@dataclass(frozen=True)
class Outcome:
    """How one kind of caption did on one split in one trial.

    Attributes:
        split: What was trained and tested on.
        method: `pmi`, `likelihood`, another method, or a baseline.
        trial: Seed of the training; baselines are the same in all trials.
        scores: Against what people said of the tested units.
        captions: Those of the tested units.
        example: Of a constant caption the caption, else "".
    """

    split: Split
    method: str
    trial: int
    scores: CaptionScores
    captions: tuple[str, ...] = ()
    example: str = ""

    @property
    def label(self) -> str:
        """How it is called in tables: the method, or the constant."""
        return f'always "{self.example}"' if self.method == CONSTANT else self.method


def generalisation(
    units: "Milannotations",
    splits: Sequence[Split],
    fit: Fit,
    *,
    trials: int = 1,
    features: Callable[[Sequence[int]], Tensor] | None = None,
    bert: BertScore | None = None,
) -> list[Outcome]:
    """Trains a captioner for every split and trial and scores what it says of the tested units.

    Args:
        units: All units, with what people said of them.
        splits: See `neuronx.experiments.splits`.
        fit: Trains a captioner.
        trials: How many seeds.
        features: From positions to (U, D) or (U, k, D), for the nearest neighbour.
        bert: To score by BERTScore too.

    Returns:
        In the order of splits: the captioner's ways of writing, each with its trials, then the baselines.
    """
    found = []
    for split in splits:
        said = [units.annotations[i] for i in split.testing]
        tried = [
            Outcome(split, method, trial, score_captions(captions, said, bert), tuple(captions))
            for trial in range(trials)
            for method, captions in fit(split.training, trial)(split.testing).items()
        ]
        ways = list(dict.fromkeys(one.method for one in tried))
        found += sorted(tried, key=lambda one: ways.index(one.method))
        found += baselines(units, split, features, bert)
    return found


def baselines(
    units: "Milannotations",
    split: Split,
    features: Callable[[Sequence[int]], Tensor] | None = None,
    bert: BertScore | None = None,
) -> list[Outcome]:
    """What any captions of a split must beat: the nearest training unit's, where features are given, and constants."""
    said: References = [units.annotations[i] for i in split.testing]
    known = [units.annotations[i] for i in split.training]
    rows = []
    if features is not None:
        nearest = nearest_units(features(split.testing), features(split.training)).tolist()
        rows.append((NEAREST, [known[i][0] for i in nearest], ""))
    for text in constant_captions((one for given in known for one in given), known).values():
        rows.append((CONSTANT, [text] * len(said), text))
    return [
        Outcome(split, name, 0, score_captions(texts, said, bert), tuple(texts), text) for name, texts, text in rows
    ]


def outcome_table(outcomes: Sequence[Outcome]) -> str:
    """One row for each kind of caption on each split: mean ± standard error over trials, times 100."""
    shown = [0, 3, 6] + ([7] if any(one.scores.bert == one.scores.bert for one in outcomes) else [])
    tables: list[RenderableType] = []
    for experiment, group in groupby(outcomes, key=lambda one: one.split.experiment):
        right = [Column(name, justify="right") for name in (*(SCORES[i] for i in shown), "units", "trained on")]
        table = plain_table("trained → tested", "captions", *right)
        last = ""
        for (name, label), several in groupby(group, key=lambda one: (one.split.name, one.label)):
            trials = list(several)
            values = [mean_and_sem([numbers(one.scores)[i] for one in trials]) for i in shown]
            cells = [f"{100 * mean:.1f}" + ("" if sem != sem else f" ± {100 * sem:.1f}") for mean, sem in values]
            split = trials[0].split
            table.add_row(
                escape(name) if name != last else "",
                escape(label),
                *cells,
                str(trials[0].scores.n),
                str(len(split.training)),
                style="dim" if trials[0].method in (NEAREST, CONSTANT) else "",
            )
            last = name
        tables += [Text(experiment), table, Text()]
    return as_text(*tables)


def write_outcomes(path: str | Path, outcomes: Sequence[Outcome]) -> Path:
    """Writes one line for each outcome: experiment, split, captions, trial, units and a column for each score."""
    columns = ["experiment", "split", "captions", "trial", "units", "trained on", *SCORES]
    return write_csv(
        path,
        columns,
        [
            [
                *(one.split.experiment, one.split.name, one.label, one.trial),
                *(one.scores.n, len(one.split.training)),
                *numbers(one.scores),
            ]
            for one in outcomes
        ],
    )
