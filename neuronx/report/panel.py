"""Many metrics of the same explanations at a glance: one table a layer, those that pass the sanity checks first."""

import math
from collections.abc import Sequence
from itertools import groupby
from typing import Protocol, TypeVar

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table as RichTable
from rich.text import Text

from neuronx.metrics.panel import METRICS

CORRELATION = "correlation"


class MeanScore(Protocol):
    """What is shown of a row of the leaderboard."""

    @property
    def target(self) -> str: ...  # noqa: D102
    @property
    def layer(self) -> str: ...  # noqa: D102
    @property
    def pool(self) -> str: ...  # noqa: D102
    @property
    def method(self) -> str: ...  # noqa: D102
    @property
    def score(self) -> str: ...  # noqa: D102
    @property
    def mean(self) -> float: ...  # noqa: D102
    @property
    def judge(self) -> str: ...  # noqa: D102
    @property
    def images(self) -> str: ...  # noqa: D102
    @property
    def sanity(self) -> str: ...  # noqa: D102
    @property
    def is_floor(self) -> bool: ...  # noqa: D102
    @property
    def is_ceiling(self) -> bool: ...  # noqa: D102


Row = TypeVar("Row", bound=MeanScore)


def panels_of(rows: Sequence[Row]) -> tuple[list[Row], list[list[Row]]]:
    """The rows to show score by score, and those of panels: three metrics or more of one layer, correlation among them.

    Correlation is shown in full as well.
    """
    of_layer: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        if row.score in METRICS:
            of_layer.setdefault((row.target, row.layer, row.pool, row.judge, row.images), []).append(row)
    panels = [own for own in of_layer.values() if len({row.score for row in own}) > 2]
    inside = {id(row) for own in panels for row in own if row.score != CORRELATION}
    return [row for row in rows if id(row) not in inside], panels


def sanity_mark(sanity: str) -> str:
    """What a title says of a metric, such as `; fails the sanity check of missing labels`; "" if it was not checked."""
    if not sanity:
        return ""
    if sanity == "passes":
        return "; passes both sanity checks"
    checks = sanity.removeprefix("fails ")
    return f"; fails the sanity check{'s' if ' and ' in checks else ''} of {checks} labels"


SECTIONS = {
    "passes": "pass both checks",
    "fails missing": "fail missing labels",
    "fails extra": "fail extra labels",
    "fails missing and extra": "fail both checks",
}
"""Lines of the table, by what metrics pass."""


def panel_table(rows: Sequence[MeanScore]) -> list[RenderableType]:
    """Means of one layer: a line for each metric, a column for each method, the ceiling and the highest floor."""
    first = rows[0]
    methods = list(dict.fromkeys(row.method for row in rows if not (row.is_floor or row.is_ceiling)))
    bound = list(dict.fromkeys(row.method for row in rows if row.is_ceiling))
    table = RichTable(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("sanity: metric", no_wrap=True)
    for name in [*methods, *bound, "floors"]:
        head = name.replace("_", "_\n").replace("-", "-\n") if len(name) > NARROW else name
        table.add_column(escape(head), justify="right", min_width=NARROW - 1)
    order, sections = list(METRICS), list(SECTIONS)
    ranked = sorted(rows, key=lambda row: (sections.index(row.sanity), order.index(row.score)))
    for sanity, section in groupby(ranked, key=lambda row: row.sanity):
        table.add_row(f"{SECTIONS[sanity]}:", style="italic")
        for score, group in groupby(section, key=lambda row: row.score):
            own = list(group)
            means = {row.method: row.mean for row in own}
            floors = [row.mean for row in own if row.is_floor and not math.isnan(row.mean)]
            cells = [_digits(means.get(name, math.nan)) for name in [*methods, *bound]]
            style = "bold" if sanity == "passes" else ""
            table.add_row(score, *cells, _digits(max(floors, default=math.nan)), style=style)
    pool = f" ({first.pool})" if first.pool else ""
    title = Text.assemble((first.target, "bold"), " · ", (first.layer or "output", "bold"), pool)
    return [title, Text(f"panel on {first.images}, judge {first.judge}; floors: the highest", "dim"), Text(), table]


NARROW = 8
"""Characters of a method's name that are not broken."""


def _digits(mean: float) -> str:
    return "—" if math.isnan(mean) else f"{mean:.3f}"
