"""Whether captions name what units of the embedded world answer to, which is known there."""

from collections.abc import Mapping, Sequence

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Column
from rich.text import Text

from neuronx.experiments.generalisation import Outcome
from neuronx.metrics.naming import Naming, naming
from neuronx.report.inventory import as_text, plain_table


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
