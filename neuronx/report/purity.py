"""The table of `sim=purity` as people read it, from its files `purity.csv` and `alignment.csv`."""

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table as Grid
from rich.text import Text

from neuronx.scoring.clustering.purity_tables import HELD_OUT, RANDOM
from neuronx.types import Table

PURITY, ALIGNMENT = "purity.csv", "alignment.csv"


def purity_summary(tables: Mapping[str, Table]) -> Group:
    """A table a network, layer and space; nothing where `sim=purity` did not run.

    Rows are methods, by number of clusters: mean distances inside and between clusters, the gap between the two, by how
    much it is above that of random labels with its 95 % interval, and the same on references that were held out.
    """
    parts: list[RenderableType] = []
    aligned = _records(tables, ALIGNMENT)
    for place, group in groupby(_records(tables, PURITY), key=_place):
        rows = list(group)
        target, layer, space, crop = place
        title = Text.assemble((target, "bold"), " · ", (layer or "output", "bold"))
        what = f"distances of references, crop {crop}, space {space}"
        parts += [Text(), title, Text(f"{what}, {rows[0]['units']} units", "dim"), Text(), _grid(rows)]
        own = [row for row in aligned if _place(row) == place]
        if own:
            numbers = ", ".join(f"{row['vectors']} {row['pooled']:.2f} ({row['within']:.2f})" for row in own)
            parts += [Text(), Text(f"distances correlate, pooled (within units): {numbers}", "dim")]
    return Group(*parts)


def _grid(rows: Sequence[Mapping[str, Any]]) -> Grid:
    # Narrow gaps, so that negative ends of intervals fit into 80 columns.
    grid = Grid(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    for name in ("k", "method", "intra", "inter", "gap", "over random", "held out"):
        grid.add_column(name, justify="left" if name == "method" else "right", no_wrap=True)
    held = {(row["k"], row["method"]): row for row in rows if row["references"] == HELD_OUT}
    last = None
    for row in (row for row in rows if row["references"] != HELD_OUT):
        other = held.get((row["k"], row["method"]))
        numbers = [f"{row['intra']:.3f}", f"{row['inter']:.3f}", f"{row['gap']:+.3f}"]
        differences = [_difference(row), _difference(other)]
        if row["method"] == RANDOM and other is not None:
            differences[1] = f"{other['gap']:+.3f}"
        style = "bold" if row["method"] == "pure" else "dim" if row["method"] == RANDOM else ""
        grid.add_row("" if row["k"] == last else str(row["k"]), row["method"], *numbers, *differences, style=style)
        last = row["k"]
    return grid


def _difference(row: Mapping[str, Any] | None) -> str:
    if row is None or row["over_random"] is None:
        return ""
    low, high = row["over_random_low"], row["over_random_high"]
    return f"{row['over_random']:+.3f} " + ("—" if math.isnan(low) else f"[{low:.2f}, {high:.2f}]")


def _records(tables: Mapping[str, Table], name: str) -> list[dict[str, Any]]:
    columns, rows = tables.get(name, ((), ()))
    return [dict(zip(columns, row, strict=True)) for row in rows]


def _place(row: Mapping[str, Any]) -> tuple[str, str, str, str]:
    return row["target"], row["layer"], row["space"], row["crop"]
