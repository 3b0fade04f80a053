"""Which units a network needs, by what their captions are like: accuracy while more and more of them are zero.

Section 4 of MILAN (Hernandez et al., 2022): if accuracy falls faster than with units in random order, units with that
property of their captions matter more.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from rich.markup import escape
from rich.table import Column
from rich.text import Text
from torch import Tensor

from neuronx.errors import UserError
from neuronx.experiments.properties import Embed, property_of
from neuronx.experiments.zeroing import intervals, right_without
from neuronx.report.inventory import as_text, plain_table
from neuronx.tables.csv import write_csv
from neuronx.types import Cell, TrainerFactory, Unit

if TYPE_CHECKING:
    from neuronx.data.probe import Probe
    from neuronx.targets.target import Target

SHARES = (0.02, 0.04, 0.06, 0.08, 0.1, 0.12, 0.14, 0.16, 0.18)
"""Of the units that are zero, as published."""
WIDTH = 20
"""Of a property's name at the head of a table."""


@dataclass(frozen=True)
class Order:
    """Accuracy while the units with the most of a property are zero.

    Attributes:
        name: The property.
        accuracy: (X,) float64 at each share.
        difference: (X, 3) float64, accuracy minus that of random orders: mean and 95 % bootstrap interval over images.
    """

    name: str
    accuracy: Tensor
    difference: Tensor


@dataclass(frozen=True)
class FeatureImportance:
    """How accuracy falls, order by order.

    Attributes:
        target: Name of the network.
        images: `<data>:<n>`.
        units: How many have captions.
        intact: Accuracy of the network as it is.
        shares: (X,) shares of the units that are zero.
        random: (T, X) float64, accuracy with the units in T random orders.
        orders: One for each property.
    """

    target: str
    images: str
    units: int
    intact: float
    shares: tuple[float, ...]
    random: Tensor
    orders: tuple[Order, ...]


def feature_importance(
    target: "Target",
    probe: "Probe",
    trainer: TrainerFactory,
    captions: Mapping[Unit, str],
    properties: Sequence[str] = ("length",),
    *,
    shares: Sequence[float] = SHARES,
    trials: int = 5,
    increasing: bool = False,
    embed: Embed | None = None,
    rows: Tensor | None = None,
    seed: int = 0,
) -> FeatureImportance:
    """Zeroes units in the order of properties of their captions, and in random orders.

    Args:
        target: The network, a classifier.
        probe: The images, with its labels.
        trainer: Makes trainers.
        captions: Of units of any of its layers.
        properties: See `property_of`; units with most of it are zeroed first, equal ones in an order of their own.
        shares: Of the units that are zero at a time, in (0, 1].
        trials: Number of random orders.
        increasing: Whether units with least of a property go first instead.
        embed: A text space, for `like:TEXT`.
        rows: The images; those of the test split by default.
        seed: Of the random orders.

    Raises:
        UserError: As `right_without` and `property_of`; no captions, no trials or shares out of range.
    """
    units, texts = list(captions), list(captions.values())
    if not units or trials < 1 or not shares or not all(0 < share <= 1 for share in shares):
        raise UserError(
            f"Feature importance needs captions (found {len(units)}), random orders (asked for {trials}) and shares of "
            f"units between 0 and 1 (given {', '.join(f'{share:g}' for share in shares) or 'none'})."
        )
    rows = probe.splits["test"] if rows is None else rows
    generator = torch.Generator().manual_seed(seed)
    chance = torch.stack([torch.randperm(len(units), generator=generator) for _ in range(trials)])
    orders = []
    for name in properties:
        values = property_of(texts, name, embed) * (1 if increasing else -1)
        shuffled = torch.randperm(len(units), generator=generator)
        orders.append(shuffled[values[shuffled].argsort(stable=True)])
    counts = [max(1, round(share * len(units))) for share in shares]
    sets: list[list[Unit]] = [[]]
    sets += [[units[i] for i in order[:count].tolist()] for order in (*chance, *orders) for count in counts]
    right = right_without(target, probe, trainer, sets, rows).double()
    curves = right[1:].unflatten(0, (-1, len(counts)))  # (T + O, X, N)
    expected = curves[:trials].mean(0)
    return FeatureImportance(
        target=target.name,
        images=f"{probe.name}:{len(rows)}",
        units=len(units),
        intact=float(right[0].mean()),
        shares=tuple(shares),
        random=curves[:trials].mean(2),
        orders=tuple(
            Order(name, curve.mean(1), intervals(curve - expected, seed))
            for name, curve in zip(properties, curves[trials:], strict=True)
        ),
    )


def feature_importance_table(found: FeatureImportance) -> str:
    """Accuracy in percent, one row a share of units; `*` where it is outside those of all random orders."""
    title = (
        f"{found.target}: accuracy (%) on {found.images} while a share of its {found.units} units is at 0; with none "
        f"{100 * found.intact:.1f}"
    )
    names = [shortened(one.name) for one in found.orders]
    right = ["at 0", "units", f"{len(found.random)} random orders", "lowest to highest"]
    right += [escape(text) for name in names for text in (name, "− random", "95 %")]
    table = plain_table(*(Column(text, justify="right") for text in right))
    mean, (low, high) = found.random.mean(0), found.random.aminmax(dim=0)
    for x, share in enumerate(found.shares):
        cells = [f"{100 * share:g} %", str(max(1, round(share * found.units))), f"{100 * mean[x]:.1f}"]
        cells.append(f"{100 * low[x]:.1f} to {100 * high[x]:.1f}")
        for order in found.orders:
            outside = not low[x] <= order.accuracy[x] <= high[x]
            difference, *ends = (100 * order.difference[x]).tolist()
            cells += [f"{100 * order.accuracy[x]:.1f}{'*' if outside else ' '}", f"{difference:+.1f}"]
            cells.append(escape(f"[{ends[0]:+.1f}, {ends[1]:+.1f}]"))
        table.add_row(*cells)
    notes = ["* outside all random orders; intervals are over pictures"]
    notes += [f"{short} is {one.name}" for short, one in zip(names, found.orders, strict=True) if short != one.name]
    return as_text(Text(title), table, Text("; ".join(notes), style="dim"))


def shortened(name: str) -> str:
    """A property's name, cut where it is too long for a table's head."""
    return name if len(name) <= WIDTH else f"{name[: WIDTH - 1]}…"


def write_feature_importance(path: str | Path, found: FeatureImportance) -> Path:
    """Writes one line for each order and share: accuracy, and its difference from random orders with the interval."""
    columns = ["target", "images", "order", "share", "units", "accuracy", "difference", "low", "high"]
    lines: list[list[Cell]] = []
    for x, share in enumerate(found.shares):
        same: list[Cell] = [share, max(1, round(share * found.units))]
        chance = [[f"random {t}", *same, value] for t, value in enumerate(found.random[:, x].tolist(), start=1)]
        lines += [[found.target, found.images, *line, None, None, None] for line in chance]
        for one in found.orders:
            values = [float(one.accuracy[x]), *one.difference[x].tolist()]
            lines.append([found.target, found.images, one.name, *same, *values])
    return write_csv(path, columns, lines)
