"""What a network has learnt to see, found by asking its captions: how many units match a query, here and there.

Section 5 of MILAN (Hernandez et al., 2022), where networks trained on blurred faces had fewer units for faces than
networks of the same architecture trained on the pictures as they are.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Column
from rich.text import Text

from neuronx.errors import UserError
from neuronx.experiments.figures import laid_out
from neuronx.experiments.given import Given
from neuronx.metrics.naming import matching
from neuronx.options import Natural
from neuronx.report.figures import COLOURS
from neuronx.report.inventory import as_text, plain_table
from neuronx.tables.csv import write_csv
from neuronx.types import Cell, Unit

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


Z = 1.959964
"""Of 95 % intervals."""


@dataclass(frozen=True)
class Condition:
    """The units of one network that match.

    Attributes:
        name: Of the network, or of how it was trained.
        units: Number of units with captions.
        matched: Those that match, in order, with their captions.
        low: Lower end of the 95 % interval of their share (Wilson, 1927).
        high: Its upper end.
        difference: Of the share, minus that of the first condition; 0 for the first itself.
        difference_low: Lower end of its 95 % interval (Newcombe, 1998, method 10).
        difference_high: Its upper end.
    """

    name: str
    units: int
    matched: tuple[tuple[Unit, str], ...]
    low: float
    high: float
    difference: float = 0.0
    difference_low: float = 0.0
    difference_high: float = 0.0

    @property
    def share(self) -> float:
        """Of the units that match."""
        return len(self.matched) / self.units


def audit(captions: Mapping[str, Mapping[Unit, str]], query: Sequence[str]) -> list[Condition]:
    """Finds the units whose captions name any of some phrases, in several networks.

    Args:
        captions: Condition -> captions of the units of its network; the others are compared with the first.
        query: Words and phrases, such as face, nose, eye, mouth; see `neuronx.metrics.naming.names`.

    Raises:
        UserError: A condition without captions, or an empty query.
    """
    found: list[Condition] = []
    for name, of_units in captions.items():
        if not of_units:
            raise UserError(f"There are no captions of units of {name} to search.")
        hits = matching(list(of_units.values()), query)
        matched = tuple(sorted(pair for pair, hit in zip(of_units.items(), hits.tolist(), strict=True) if hit))
        one = Condition(name, len(of_units), matched, *wilson(len(matched), len(of_units)))
        found.append(_against(one, found[0]) if found else one)
    return found


def wilson(hits: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share, of n trials."""
    p, z = hits / n, Z * Z / n
    middle, reach = p + z / 2, Z * math.sqrt(p * (1 - p) / n + z / (4 * n))
    return max(0.0, (middle - reach) / (1 + z)), min(1.0, (middle + reach) / (1 + z))


def _against(one: Condition, first: Condition) -> Condition:
    difference = one.share - first.share
    low = math.hypot(one.share - one.low, first.high - first.share)
    high = math.hypot(one.high - one.share, first.share - first.low)
    return Condition(
        one.name, one.units, one.matched, one.low, one.high, difference, difference - low, difference + high
    )


def audit_table(found: Sequence[Condition], query: Sequence[str], examples: Natural = 5) -> str:
    """One row for each condition, and the first units that match with their captions."""
    right = [Column(name, justify="right") for name in ("matched", "of", "share", "95 %", "against first", "95 %")]
    table = plain_table("network", *right)
    for place, one in enumerate(found):
        cells = [f"{one.difference:+.3f}", f"[{one.difference_low:+.3f}, {one.difference_high:+.3f}]"]
        table.add_row(
            escape(one.name),
            str(len(one.matched)),
            str(one.units),
            f"{one.share:.3f}",
            escape(f"[{one.low:.3f}, {one.high:.3f}]"),
            *map(escape, cells if place else ("", "")),
        )
    parts: list[RenderableType] = [Text(f"Units whose caption names {' | '.join(query)}"), table]
    for one in found:
        parts += [Text(f"{one.name}  {unit}  {caption}", style="dim") for unit, caption in one.matched[:examples]]
    return as_text(*parts)


def write_audit(path: str | Path, found: Sequence[Condition]) -> Path:
    """Writes one line for each unit that matches: network, layer, unit, caption."""
    lines: list[list[Cell]] = [
        [one.name, unit.layer, unit.index, caption] for one in found for unit, caption in one.matched
    ]
    return write_csv(path, ["network", "layer", "unit", "description"], lines)


def audit_figure(found: Sequence[Condition], query: Sequence[str]) -> "Figure":
    """The share of units that match in each network, with its interval."""
    from plotly.graph_objects import Bar, Figure

    shares = [100 * one.share for one in found]
    ends = {
        "array": [100 * (one.high - one.share) for one in found],
        "arrayminus": [100 * (one.share - one.low) for one in found],
        "symmetric": False,
    }
    counts = [f"{len(one.matched)} of {one.units}" for one in found]
    bars = Bar(x=[one.name for one in found], y=shares, error_y=ends, text=counts, width=0.4, insidetextanchor="start")
    figure = Figure(bars.update(marker_color=COLOURS[0]))
    title = "Units whose caption names " + (" | ".join(query) if len(query) < 8 else f"one of {len(query)} words")
    return laid_out(figure, title, "95 % intervals (Wilson)", "", "share of units (%)")


@dataclass(frozen=True, kw_only=True)
class Auditing:
    """How many units match a query, in networks that were trained in different conditions.

    Attributes:
        query: Words and phrases that captions are searched for.
        examples: Units of each network to show.
    """

    query: Sequence[str]
    examples: Natural = 5

    def run(self, given: Given) -> str:
        """Searches the captions of all networks; writes `audit.csv` and draws it."""
        found = audit({name: given.captions(target) for name, target in given.targets.items()}, list(self.query))
        given.write(write_audit, "audit.csv", found)
        given.draw(audit_figure(found, self.query), "audit.html")
        return audit_table(found, list(self.query), self.examples)
