"""What a run found: its leaderboard, dead units, files, the record of how it was made, and what is printed.

Only `run.json` and `config.yaml`, the record, hold times and machines.
"""

import io
import json
import math
import platform
import shlex
import sys
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.bar import Bar
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table as RichTable
from rich.text import Text

from neuronx import __version__
from neuronx.errors import UserError, brief
from neuronx.metrics.correlation import FEW, mean_and_sem
from neuronx.metrics.sanity import verdict
from neuronx.progress import where_to_look
from neuronx.report.panel import panel_table, panels_of, sanity_mark
from neuronx.report.purity import PURITY, purity_summary
from neuronx.scoring.accuracy import Accuracy
from neuronx.scoring.rows import CEILING, SHUFFLED, is_method
from neuronx.store.cache import write_atomic
from neuronx.tables.csv import write_csv, write_records, write_scores
from neuronx.tables.explanations import write_explanations
from neuronx.types import UNKNOWN, Activations, Comparison, Explanation, PartSamples, Plain, Score, Table, Unit

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
        n_untested: How many have an explanation whose concepts the test images do not test: none shows them, or all do.
        sanity: Whether the metric passes the sanity checks: passes, fails missing, ...; "" if it was not checked.
        n_rare: How many are latents that fire on too few test images.
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
    n_untested: int = 0
    sanity: str = ""
    n_rare: int = 0

    @property
    def board(self) -> tuple[str, ...]:
        """What the rows of one table have in common."""
        return self.target, self.layer, self.pool, self.score, self.judge, self.images

    @property
    def units(self) -> str:
        """Over how many units the mean is: `12`, or `12 of 16` where others have no score; fewer than ten are few."""
        others = self.n_inactive + self.n_unjudged + self.n_no_effect + self.n_broken + self.n_untested + self.n_rare
        text = f"{self.n_units} of {self.n_units + others}" if others else str(self.n_units)
        return f"{text} (few)" if 0 < self.n_units < FEW else text

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
        n_untested=count["untested"],
        sanity=verdict(first.score),
        n_rare=count["rare"],
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


PACKAGES = (
    "torch",
    "torchvision",
    "lightning",
    "torchmetrics",
    "numpy",
    "open_clip_torch",
    "timm",
    "transformers",
    "hydra-core",
    "glm-saga",
)

BAR = 16
"""Characters of the longest bar."""


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
        accuracies: Of the networks on the test pictures, where these are labelled with their classes.
    """

    explanations: Mapping[tuple[str, str], Sequence[Explanation]]
    scores: Sequence[Score] = ()
    comparisons: Sequence[Comparison] = ()
    agreement: Sequence[Any] = ()
    activity: Sequence[Activity] = ()
    tables: Mapping[str, Table] = field(default_factory=dict)
    samples: Sequence[PartSamples] = ()
    accuracies: Sequence[Accuracy] = ()

    @cached_property
    def leaderboard(self) -> list[LeaderboardRow]:
        """One row a network, layer, method, score and judge."""
        return leaderboard(self.scores)

    @cached_property
    def leaderboard_of_live_units(self) -> list[LeaderboardRow]:
        """The same without dead units."""
        return leaderboard(self.scores, {(layer.target, unit) for layer in self.activity for unit in layer.dead})

    def summary(self) -> dict[str, float]:
        """Means of the leaderboard as `score/<score>/<target>/<layer>/<method>`, `dead/...`, `accuracy/<target>`.

        Where several judges scored the same, the judge's name comes last in the key.
        """
        keys = [f"score/{row.score}/{row.target}/{row.layer}/{row.method}" for row in self.leaderboard]
        means = {
            key if keys.count(key) == 1 else f"{key}/{row.judge}": row.mean
            for key, row in zip(keys, self.leaderboard, strict=True)
        }
        means |= {f"accuracy/{found.target}": found.value for found in self.accuracies}
        return means | {f"dead/{layer.target}/{layer.layer}": layer.share for layer in self.activity}


def write(evaluation: Evaluation, folder: str | Path) -> list[Path]:
    """Writes the tables of a run into its folder and returns their paths; tables without rows are not written."""
    folder = Path(folder)
    paths = []
    for (target, method), explanations in evaluation.explanations.items():
        for layer in dict.fromkeys(explanation.unit.layer for explanation in explanations):
            name = "_".join((target, layer, method)).replace("/", "-")
            of_layer = [explanation for explanation in explanations if explanation.unit.layer == layer]
            paths.append(write_explanations(folder / "explanations" / f"{name}.csv", of_layer))
    paths += [write_csv(folder / name.replace("/", "-"), *table) for name, table in evaluation.tables.items()]
    if evaluation.scores:
        paths.append(write_scores(folder / "scores.csv", evaluation.scores))
        paths.append(write_records(folder / "leaderboard.csv", LeaderboardRow, evaluation.leaderboard))
    if evaluation.comparisons:
        paths.append(write_records(folder / "comparisons.csv", Comparison, evaluation.comparisons))
    return paths


def versions() -> dict[str, str]:
    """The versions of neuronx, Python and the packages that results depend on, as far as they are installed."""
    found = {"neuronx": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def now() -> str:
    """The time, to the second, in UTC."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def write_record(folder: str | Path, config: str | None = None, **facts: Plain) -> Path:
    """Writes `run.json`, and `config.yaml` where a configuration is given; returns the path of the former.

    Args:
        folder: The run's folder.
        config: The composed configuration as YAML.
        facts: What else to record, such as `seed=0`, `fingerprints={"data": ...}`, `started=...`, `finished=...`.
    """
    folder = Path(folder)
    if config is not None:
        write_atomic(folder / "config.yaml", config.encode())
    record: Mapping[str, Plain] = {
        "command": shlex.join(sys.argv),
        "versions": versions(),
        "machine": platform.platform(),
        **facts,
    }
    return write_atomic(folder / "run.json", (json.dumps(record, indent=1) + "\n").encode())


def show(evaluation: Evaluation, folder: str | Path | None = None, console: Console | None = None) -> None:
    """Prints what a run found, and where its files are."""
    console = console or Console()
    if not console.encoding.startswith("utf") and isinstance(console.file, io.TextIOWrapper):
        console.file.reconfigure(errors="replace")  # rather a `?` than a crash after the work is done
    console.print(_boards(evaluation))
    if PURITY in evaluation.tables:
        console.print(purity_summary(evaluation.tables))
    for sentence in (*evaluation.accuracies, *evaluation.agreement):
        console.print(escape(str(sentence)))
    if folder is not None:
        # Not wrapped, so that the path can be copied.
        console.print(escape(where_to_look(folder)), soft_wrap=True, highlight=False)


def _boards(evaluation: Evaluation) -> Group:
    """One table a network, layer, score and judge: its rows, comparisons, images and judge, dead units."""
    parts: list[RenderableType] = []
    judges: dict[str, str] = {}
    for row in evaluation.leaderboard:
        judges.setdefault(row.score, row.judge)  # where there are several, methods are compared by the first
    whole, panels = panels_of(evaluation.leaderboard)
    for board, group in groupby(whole, key=lambda row: row.board):
        rows = list(group)
        target, layer, score, judge = rows[0].target, rows[0].layer, rows[0].score, rows[0].judge
        pool = f" ({rows[0].pool})" if rows[0].pool not in ("", UNKNOWN) else ""
        title = Text.assemble((target, "bold"), " · ", (layer or "output", "bold"), pool)
        parts += [Text(), title, Text(_source(rows[0]), "dim"), Text(), _table(rows)]
        compared = [
            one for one in evaluation.comparisons if (one.target, one.layer, one.score) == (target, layer, score)
        ]
        if compared and judge == judges[score]:
            parts += [Text(), _comparisons(compared)]
        for activity in evaluation.activity:
            if (activity.target, activity.layer) == (target, layer):
                live = [row for row in evaluation.leaderboard_of_live_units if row.board == board]
                parts += [Text(), Text(_dead_line(activity, rows, live), "dim")]
    for panel in panels:
        parts += [Text(), *panel_table(panel)]
    return Group(*parts)


def _source(row: LeaderboardRow) -> str:
    if row.images == UNKNOWN:
        return f"stored scores, column `{row.judge}`; judge and images not recorded"
    return f"{row.score} on {row.images}, judge {row.judge}{sanity_mark(row.sanity)}"


def _table(rows: Sequence[LeaderboardRow]) -> RichTable:
    table = RichTable(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("method", no_wrap=True, overflow="ellipsis", max_width=32)
    table.add_column("mean ± sem", justify="right", no_wrap=True)
    table.add_column("", width=BAR)
    table.add_column("units", justify="right", no_wrap=True)
    labels = {
        "inactive": "n_inactive",
        "rare": "n_rare",
        "broken": "n_broken",
        "unjudged": "n_unjudged",
        "untested": "n_untested",
        "no effect": "n_no_effect",
    }
    counts = [(label, field) for label, field in labels.items() if any(getattr(row, field) for row in rows)]
    for label, _ in counts:
        table.add_column(label, justify="right", no_wrap=True)
    longest = max((row.mean for row in rows if not math.isnan(row.mean)), default=0.0)
    for row in rows:
        style = "dim" if row.is_floor else "italic" if row.is_ceiling else "bold"
        bar = Bar(longest, 0, row.mean, width=BAR) if row.mean > 0 else ""
        numbers = [row.units, *(str(getattr(row, field) or "") for _, field in counts)]
        table.add_row(escape(row.method), plus_minus(row.mean, row.sem), bar, *numbers, style=style)
    return table


def _comparisons(comparisons: Sequence[Comparison]) -> RichTable:
    table = RichTable(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("on the same units", no_wrap=True, overflow="ellipsis", max_width=30)
    for name in ("difference", "interval", "units"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for pair in comparisons:
        clear = pair.low > 0 or pair.high < 0
        interval = "—" if math.isnan(pair.low) else f"[{pair.low:+.4f}, {pair.high:+.4f}]"
        other = "shuffled" if pair.b == SHUFFLED + pair.a else pair.b
        few = " (few)" if pair.n_units < FEW else ""
        units = f"{pair.n_units}{few}"
        cells = [f"{pair.a} − {other}", f"{pair.diff:+.4f}", interval, units, "" if clear else "unclear"]
        table.add_row(*(escape(cell) for cell in cells), style="" if clear else "dim")
    return table


def _dead_line(activity: Activity, rows: Sequence[LeaderboardRow], live: Sequence[LeaderboardRow]) -> str:
    count = f"{len(activity.dead)} of {activity.n_units} units ({activity.share:.1%})"
    line = f"dead (never above {DEAD_BELOW:g}): {count}"
    if not activity.dead:
        return line
    if len(activity.dead) == activity.n_units:
        return f"{line}; there are no others"
    without = {row.method: row.mean for row in live if not math.isnan(row.mean)}
    named = [row for row in rows if not (row.is_floor or row.is_ceiling) and row.method in without]
    means = [f"{row.method} {without[row.method]:.4f} (with {row.mean:.4f})" for row in named]
    return f"{line}; without them " + (", ".join(means) or "no unit has a score")


def plus_minus(mean: float, sem: float) -> str:
    """A mean and its standard error, such as `0.3772 ± 0.0017`; a dash when there is none."""
    if math.isnan(mean):
        return "—"
    return f"{mean:.4f}" if math.isnan(sem) else f"{mean:.4f} ± {sem:.4f}"
