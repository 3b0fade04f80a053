"""What a run is about, before it runs: the tables of `show=layers`, `show=units`, `show=concepts` and `show=data`."""

import io
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType
from rich.table import Column, Table

from neuronx.errors import unknown
from neuronx.types import dotted

if TYPE_CHECKING:
    from neuronx.data.probe import Probe
    from neuronx.targets.target import Target


def layers(targets: "Mapping[str, Target]", patterns: Sequence[str] = ()) -> str:
    """Every layer of every network: kind, output for one image, number of units, poolings; `*` marks the chosen.

    Args:
        targets: Networks by name.
        patterns: Only layers whose names match one of these, with `*` for any characters and `?` for one.

    Raises:
        UserError: No layer matches.
    """
    tables = []
    for name, target in targets.items():
        table = plain_table("layer", "kind", "output", "units", "poolings", title=name)
        rows = target.layer_table()
        matching = [row for row in rows if not patterns or any(fnmatchcase(row.name, dotted(how)) for how in patterns)]
        if not matching:
            raise unknown(
                f"layer of {name} like", " or ".join(patterns), [row.name for row in rows], "Take show=layers."
            )
        for row in matching:
            chosen = row.name in target.layers
            shown = (f"* {row.name}" if chosen else row.name) or "(the network itself)"
            pools = ", ".join(
                f"[{pool}]" if chosen and pool == target.layers[row.name] else pool for pool in row.poolings
            )
            table.add_row(shown, row.kind, " x ".join(map(str, row.shape)), str(row.units), pools.replace("[", r"\["))
        tables.append(table)
    return as_text(*tables)


def units(targets: "Mapping[str, Target]") -> str:
    """The units that the run would explain: network, layer, pooling, number, indices."""
    table = plain_table("target", "layer", "pool", "units", "which")
    for name, target in targets.items():
        for row in target.layer_table(layers=target.layers):
            asked = target.units_of(row.name, row.units)
            listed = ", ".join(map(str, asked[:20])) + (", ..." if len(asked) > 20 else "")
            which = "all" if target.units is None else listed
            table.add_row(name, row.name, target.layers[row.name], str(len(asked)), which)
    return as_text(table)


def concepts(words: Any, probe: "Probe") -> str:
    """How many words the list has on these pictures, and the first of them."""
    names = words.of(probe)
    first = ", ".join(names[:200])
    return f"{len(names)} concepts ({words.name}): {first}{', ...' if len(names) > 200 else ''}\n"


def data(probe: "Probe") -> str:
    """Size, splits, classes, superclasses and fingerprint of the images."""
    table = plain_table("what", "value", title=probe.name)
    table.add_row("images", str(len(probe)))
    table.add_row("domain", probe.domain)
    for split, rows in probe.splits.items():
        table.add_row(split, f"{len(rows)} images, first {', '.join(probe.image_name(int(row)) for row in rows[:3])}")
    table.add_row(
        "classes", f"{len(probe.class_names)}: {', '.join(probe.class_names[:12])}" if probe.class_names else "-"
    )
    superclasses = list(probe.hierarchy)
    table.add_row("superclasses", f"{len(superclasses)}: {', '.join(superclasses[:12])}" if superclasses else "-")
    table.add_row("known of every image", f"{len(probe.truth[0])} concepts" if probe.truth is not None else "-")
    table.add_row("fingerprint", probe.fingerprint)
    return as_text(table)


def plain_table(*columns: str | Column, title: str | None = None) -> Table:
    """A table without lines, its title on the left."""
    return Table(*columns, title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))


def as_text(*tables: RenderableType) -> str:
    """Tables and lines below each other, 140 characters wide at most."""
    page = io.StringIO()
    console = Console(file=page, width=140)
    for table in tables:
        console.print(table)
    return page.getvalue()
