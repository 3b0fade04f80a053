"""How well a captioner describes units of networks, tasks and data that it was not trained on.

Tables 2 and 3 of MILAN (Hernandez et al., 2022), with a constant caption and a nearest neighbour beside every figure.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Column
from rich.text import Text
from torch import Tensor

from neuronx.experiments.figures import INK, laid_out
from neuronx.experiments.splits import Split
from neuronx.metrics.bert_score import BertScore
from neuronx.metrics.captions import CaptionScores, References, score_captions
from neuronx.metrics.constants import constant_captions, nearest_units
from neuronx.metrics.correlation import mean_and_sem
from neuronx.metrics.naming import Naming, naming
from neuronx.report.caption_scores import SCORES, numbers
from neuronx.report.figures import COLOURS, FLOOR
from neuronx.report.inventory import as_text, plain_table
from neuronx.tables.csv import write_csv

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

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


def naming_of(outcomes: Sequence[Outcome], wanted: Sequence[Sequence[str]]) -> dict[str, dict[str, Naming]]:
    """How often captions name the leading factor: split -> kind of caption -> share and lead of the first kind.

    Args:
        outcomes: With their captions; of each kind the first trial counts.
        wanted: Of all units, from `Annotations.truth`; splits whose units have none are left out.
    """
    found: dict[str, dict[str, Naming]] = {}
    of_split: dict[str, dict[str, Outcome]] = {}
    for one in outcomes:
        if one.captions:
            of_split.setdefault(f"{one.split.experiment}: {one.split.name}", {}).setdefault(one.label, one)
    for name, kinds in of_split.items():
        asked = [wanted[i] for i in next(iter(kinds.values())).split.testing]
        if any(asked):
            found[name] = naming({label: one.captions for label, one in kinds.items()}, asked)
    return found


def naming_table(found: Mapping[str, Mapping[str, Naming]]) -> str:
    """One table for each split; shares in percent."""
    parts: list[RenderableType] = []
    for name, kinds in found.items():
        lead = f"{next(iter(kinds))} is better by"
        right = [Column(text, justify="right") for text in ("names it", "95 %", lead, "95 %", "units")]
        table = plain_table("captions", *right)
        for place, (label, one) in enumerate(kinds.items()):
            by = (f"{100 * one.lead:+.1f}", f"[{100 * one.lead_low:+.1f}, {100 * one.lead_high:+.1f}]")
            table.add_row(
                escape(label),
                f"{100 * one.share:.1f}",
                escape(f"[{100 * one.low:.1f}, {100 * one.high:.1f}]"),
                *map(escape, by if place else ("", "")),
                str(one.n),
            )
        parts += [Text(f"{name}: does the caption name the leading true factor? (%)"), table, Text()]
    return as_text(*parts)


def outcomes_figure(outcomes: Sequence[Outcome], named: Mapping[str, Mapping[str, Naming]]) -> "Figure":
    """A row for each split, a dot for each kind of caption: BLEU-1, and where it is known, whether it names the truth.

    Where there is one split only, each kind of caption has a row.

    Args:
        outcomes: Of which the first trial is drawn; of constants the better one.
        named: Split -> kind of caption -> how often it names the leading factor.
    """
    from plotly.subplots import make_subplots

    titles = ["BLEU-1 (x 100)", "names the leading factor (%, 95 % interval)"][: 2 if named else 1]
    figure = make_subplots(1, len(titles), subplot_titles=titles, shared_yaxes=True, horizontal_spacing=0.03)
    kinds: dict[str, dict[str, Outcome]] = {}
    for one in outcomes:
        of_kind = kinds.setdefault("constant" if one.method == CONSTANT else one.method, {})
        split = f"{one.split.experiment}: {one.split.name}"
        if split not in of_kind or (one.method == CONSTANT and one.scores.bleu[0] > of_kind[split].scores.bleu[0]):
            of_kind[split] = one
    real = [kind for kind in kinds if kind not in ("constant", NEAREST)]
    splits = list(dict.fromkeys(split for of_kind in kinds.values() for split in of_kind))
    several = len(splits) > 1
    for kind, of_kind in kinds.items():
        colour = COLOURS[real.index(kind) % len(COLOURS)] if kind in real else INK if kind == NEAREST else FLOOR
        style: dict[str, Any] = {"name": kind, "legendgroup": kind, "mode": "markers"}
        style["marker"] = {"color": colour, "size": 9, "symbol": "circle" if kind in real else "diamond-open"}
        bleu = [100 * one.scores.bleu[0] for one in of_kind.values()]
        figure.add_scatter(x=bleu, y=list(of_kind) if several else [kind], row=1, col=1, showlegend=several, **style)
        known = {split: named[split][one.label] for split, one in of_kind.items() if split in named}
        if known:
            ends = {
                "array": [100 * (one.high - one.share) for one in known.values()],
                "arrayminus": [100 * (one.share - one.low) for one in known.values()],
                "symmetric": False,
                "thickness": 1,
                "width": 3,
            }
            share = [100 * one.share for one in known.values()]
            y = list(known) if several else [kind]
            figure.add_scatter(x=share, y=y, error_x=ends, row=1, col=2, showlegend=False, **style)
    figure.update_yaxes(autorange="reversed", automargin=True)
    figure.update_xaxes(rangemode="tozero")
    subtitle = "trained → tested" if several else splits[0]
    laid_out(figure, "Captions of units that were not trained on", subtitle, None, None)
    return figure.update_layout(height=220 + 34 * (len(splits) if several else len(kinds)), width=1300)
