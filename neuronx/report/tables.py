"""The leaderboard as people read it: in a terminal of 80 columns or more, in colour or in a plain text file."""

import math
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from rich.bar import Bar
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from neuronx.report.activity import DEAD_BELOW, Activity
from neuronx.report.evaluation import Evaluation
from neuronx.report.leaderboard import LeaderboardRow
from neuronx.report.purity import PURITY, purity_summary
from neuronx.scoring.baselines import SHUFFLED
from neuronx.types import UNKNOWN, Comparison

BAR = 16
"""Characters of the longest bar."""


def show(evaluation: Evaluation, folder: str | Path | None = None, console: Console | None = None) -> None:
    """Prints what a run found, and where its files are."""
    console = console or Console()
    if not console.encoding.startswith("utf") and hasattr(console.file, "reconfigure"):
        console.file.reconfigure(errors="replace")  # rather a `?` than a crash after the work is done
    console.print(
        render(
            evaluation.leaderboard, evaluation.comparisons, evaluation.activity, evaluation.leaderboard_of_live_units
        )
    )
    if PURITY in evaluation.tables:
        console.print(purity_summary(evaluation.tables))
    for sentence in evaluation.agreement:
        console.print(escape(str(sentence)))
    if folder is not None:
        # Not wrapped, so that the path can be copied.
        console.print(f"Files: {escape(str(folder))}", soft_wrap=True, highlight=False)


def render(
    rows: Sequence[LeaderboardRow],
    comparisons: Sequence[Comparison] = (),
    activity: Sequence[Activity] = (),
    live: Sequence[LeaderboardRow] = (),
) -> Group:
    """Lays out one table a network, layer, score and judge: its rows, comparisons, images and judge, dead units.

    Args:
        rows: The leaderboard; rows of one table stand together.
        comparisons: Of methods, with intervals.
        activity: Which units are dead.
        live: The leaderboard without dead units.
    """
    parts: list[RenderableType] = []
    judges: dict[str, str] = {}
    for row in rows:
        judges.setdefault(row.score, row.judge)  # where there are several, methods are compared by the first
    for board, group in groupby(rows, key=lambda row: row.board):
        of_board = list(group)
        first = of_board[0]
        pool = f" ({first.pool})" if first.pool not in ("", UNKNOWN) else ""
        title = Text.assemble((first.target, "bold"), " · ", (first.layer or "output", "bold"), pool)
        parts += [Text(), title, Text(_source(first), "dim"), Text(), _table(of_board)]
        of = first.target, first.layer, first.score
        compared = [one for one in comparisons if (one.target, one.layer, one.score) == of]
        if compared and first.judge == judges[first.score]:
            parts += [Text(), _comparisons(compared)]
        for one in activity:
            if (one.target, one.layer) == (first.target, first.layer):
                line = _dead_line(one, of_board, [row for row in live if row.board == board])
                parts += [Text(), Text(line, "dim")]
    return Group(*parts)


def _source(row: LeaderboardRow) -> str:
    if row.images == UNKNOWN:
        return f"stored scores, column `{row.judge}`; judge and images not recorded"
    return f"{row.score} on {row.images}, judge {row.judge}"


def _table(rows: Sequence[LeaderboardRow]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("method", no_wrap=True, overflow="ellipsis", max_width=32)
    table.add_column("mean ± sem", justify="right", no_wrap=True)
    table.add_column("", width=BAR)
    table.add_column("units", justify="right", no_wrap=True)
    labels = {"inactive": "n_inactive", "broken": "n_broken", "unjudged": "n_unjudged", "no effect": "n_no_effect"}
    counts = [(label, field) for label, field in labels.items() if any(getattr(row, field) for row in rows)]
    for label, _ in counts:
        table.add_column(label, justify="right", no_wrap=True)
    longest = max((row.mean for row in rows if not math.isnan(row.mean)), default=0.0)
    for row in rows:
        style = "dim" if row.is_floor else "italic" if row.is_ceiling else "bold"
        bar = Bar(longest, 0, row.mean, width=BAR) if row.mean > 0 else ""
        numbers = [str(row.n_units), *(str(getattr(row, field) or "") for _, field in counts)]
        table.add_row(escape(row.method), plus_minus(row.mean, row.sem), bar, *numbers, style=style)
    return table


def _comparisons(comparisons: Sequence[Comparison]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("on the same units", no_wrap=True, overflow="ellipsis", max_width=30)
    for name in ("difference", "interval", "units"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for one in comparisons:
        clear = one.low > 0 or one.high < 0
        interval = f"[{one.low:+.4f}, {one.high:+.4f}]"
        other = "shuffled" if one.b == SHUFFLED + one.a else one.b
        cells = [f"{one.a} − {other}", f"{one.diff:+.4f}", interval, str(one.n_units), "" if clear else "unclear"]
        table.add_row(*(escape(cell) for cell in cells), style="" if clear else "dim")
    return table


def _dead_line(activity: Activity, rows: Sequence[LeaderboardRow], live: Sequence[LeaderboardRow]) -> str:
    count = f"{len(activity.dead)} of {activity.n_units} units ({activity.share:.1%})"
    line = f"dead (never above {DEAD_BELOW:g}): {count}"
    if not activity.dead:
        return line
    without = {row.method: row.mean for row in live}
    named = [row for row in rows if not (row.is_floor or row.is_ceiling) and row.method in without]
    return f"{line}; without them " + ", ".join(
        f"{row.method} {without[row.method]:.4f} (with {row.mean:.4f})" for row in named
    )


def plus_minus(mean: float, sem: float) -> str:
    """A mean and its standard error, such as `0.3772 ± 0.0017`; a dash when there is none."""
    if math.isnan(mean):
        return "—"
    return f"{mean:.4f}" if math.isnan(sem) else f"{mean:.4f} ± {sem:.4f}"
