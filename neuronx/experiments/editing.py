"""Freeing a network of a spurious mark: the units whose captions name it are set to 0.

Section 6 of MILAN (Hernandez et al., 2022). A network was trained on pictures of which half bear a mark that gives the
class away. It is tried on pictures whose marks mislead, with more and more of those units at 0, and as many others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from rich.table import Column
from rich.text import Text
from torch import Tensor

from neuronx.data.probe import Probe
from neuronx.errors import UserError
from neuronx.experiments.figures import laid_out, line, random_orders
from neuronx.experiments.given import Given
from neuronx.experiments.zeroing import intervals, outputs_of, right_without
from neuronx.metrics.naming import matching
from neuronx.options import Count, Seed
from neuronx.report.figures import COLOURS
from neuronx.report.inventory import as_text, plain_table
from neuronx.tables.csv import write_csv
from neuronx.types import TrainerFactory, Unit

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from neuronx.data.probe import Probe
    from neuronx.targets.target import Target


@dataclass(frozen=True)
class Edited:
    """What zeroing the units that name the mark does.

    Accuracies are on misleading pictures, but for `usual`.

    Attributes:
        target: Name of the network.
        images: `<data>:<n>` of the misleading pictures.
        units: How many have captions.
        named: The units whose caption names the mark, in the order in which they are zeroed, with their captions.
        steps: (X,) int64 from 0, how many units are at 0.
        accuracy: (X,) float64, units of `named` at 0.
        unread: (X,) float64, units at 0 in the same kind of order among all units, whatever their captions.
        random: (T, X) float64, units drawn from all at 0.
        usual: (X,) float64, on pictures like those that it was trained on, units of `named` at 0.
        gain: (X, 3) float64, accuracy minus the mean of random: mean and 95 % bootstrap interval over pictures.
        gain_unread: (X, 3) float64, the same for accuracy minus `unread`.
    """

    target: str
    images: str
    units: int
    named: tuple[tuple[Unit, str], ...]
    steps: Tensor
    accuracy: Tensor
    unread: Tensor
    random: Tensor
    usual: Tensor
    gain: Tensor
    gain_unread: Tensor


def edit(
    target: "Target",
    usual: "Probe",
    misleading: "Probe",
    trainer: TrainerFactory,
    captions: Mapping[Unit, str],
    query: Sequence[str],
    *,
    trials: Count = 5,
    steps: Count = 10,
    seed: Seed = 0,
) -> Edited:
    """Zeroes the units whose captions name a mark, those first that the network misses least on usual pictures.

    Args:
        target: The network, a classifier.
        usual: Pictures like those that it was trained on, with labels; its val split orders the units.
        misleading: Pictures whose marks belong to other classes; accuracy is that of its test split.
        trainer: Makes trainers.
        captions: Of units of any of its layers.
        query: What a caption that names the mark says; see `neuronx.metrics.naming.names`.
        trials: Number of random orders.
        steps: At how many numbers of units to look, besides none.
        seed: Of the random orders and the intervals.

    Raises:
        UserError: No caption names the mark; otherwise as `right_without`.
    """
    units, texts = list(captions), list(captions.values())
    hits = set(matching(texts, query).nonzero().squeeze(1).tolist())
    if not hits or trials < 1 or steps < 1:
        raise UserError(
            f"Of {len(units)} captions of {target.name}, {len(hits)} name {' | '.join(query)}; editing needs at least "
            f"one, and at least one random order and step (given {trials} and {steps})."
        )
    alone = right_without(target, usual, trainer, [[unit] for unit in units], usual.splits["val"]).double().mean(1)
    order = alone.argsort(descending=True, stable=True).tolist()
    named = [units[place] for place in order if place in hits]
    generator = torch.Generator().manual_seed(seed)
    chance = [[units[i] for i in torch.randperm(len(units), generator=generator).tolist()] for _ in range(trials)]
    counts = torch.linspace(0, len(named), steps + 1).round().long().unique()
    orders = (named, [units[place] for place in order], *chance)
    sets = [one[:count] for one in orders for count in counts.tolist()]
    right = right_without(target, misleading, trainer, sets).double().unflatten(0, (len(orders), len(counts)))
    plain = right_without(target, usual, trainer, sets[: len(counts)]).double()
    return Edited(
        target=target.name,
        images=f"{misleading.name}:{right.shape[-1]}",
        units=len(units),
        named=tuple((unit, captions[unit]) for unit in named),
        steps=counts,
        accuracy=right[0].mean(1),
        unread=right[1].mean(1),
        random=right[2:].mean(2),
        usual=plain.mean(1),
        gain=intervals(right[0] - right[2:].mean(0), seed),
        gain_unread=intervals(right[0] - right[1], seed),
    )


def edit_table(found: Edited) -> str:
    """Accuracy in percent, one row for each number of units at 0; `*` where it is above that of all random orders."""
    title = (
        f"{found.target}: {len(found.named)} of {found.units} units name the mark. Accuracy (%) on {found.images} with "
        "more and more units at 0, first those that it misses least on usual pictures:"
    )
    orders = f"{len(found.random)} random orders"
    right = ("units at 0", "named", "any units", orders, "lowest to highest", "named − random", "95 %", "named − any")
    table = plain_table(*(Column(name, justify="right") for name in (*right, "95 %", "usual pictures, named at 0")))
    low, high = found.random.aminmax(dim=0)
    for x, count in enumerate(found.steps.tolist()):
        gains = [100 * value for value in (*found.gain[x].tolist(), *found.gain_unread[x].tolist())]
        table.add_row(
            str(count),
            f"{100 * found.accuracy[x]:.1f}{'*' if found.accuracy[x] > high[x] else ' '}",
            f"{100 * found.unread[x]:.1f}",
            f"{100 * found.random[:, x].mean():.1f}",
            f"{100 * low[x]:.1f} to {100 * high[x]:.1f}",
            *(f"{gains[0]:+.1f}", rf"\[{gains[1]:+.1f}, {gains[2]:+.1f}]"),
            *(f"{gains[3]:+.1f}", rf"\[{gains[4]:+.1f}, {gains[5]:+.1f}]"),
            f"{100 * found.usual[x]:.1f}",
        )
    notes = "named: their captions name the mark; * above all random orders. Intervals are over pictures."
    return as_text(Text(title), table, Text(notes, style="dim"))


def write_edited(path: str | Path, found: Edited) -> Path:
    """Writes one line for each number of units at 0."""
    gains = [f"named - {other}{part}" for other in ("random", "any units") for part in ("", ", low", ", high")]
    columns = ["target", "images", "units at 0", "named", "any units", "random", "lowest", "highest", *gains, "usual"]
    low, high = found.random.aminmax(dim=0)
    values = torch.stack([found.accuracy, found.unread, found.random.mean(0), low, high], 1)
    values = torch.cat([values, found.gain, found.gain_unread, found.usual.unsqueeze(1)], 1)
    lines = zip(found.steps.tolist(), values.tolist(), strict=True)
    return write_csv(path, columns, [[found.target, found.images, count, *line] for count, line in lines])


def editing_figure(found: Edited) -> "Figure":
    """Accuracy on misleading pictures over the number of units at 0: named, any, random; and on usual pictures."""
    from plotly.graph_objects import Figure

    figure, x = Figure(), found.steps.tolist()
    random_orders(figure, x, found.random)
    line(figure, x, found.unread, "any units, same kind of order", COLOURS[4])
    line(figure, x, found.accuracy, "units whose caption names the mark", COLOURS[0], width=3)
    line(figure, x, found.usual, "the same, on usual pictures", COLOURS[0], dash="dash")
    text = f"{found.target}, marks mislead ({found.images}); {len(found.named)} of {found.units} units name the mark"
    return laid_out(figure, "Without the units that name a spurious mark", text, "units at 0", "accuracy (%)")


@dataclass(frozen=True, kw_only=True)
class Editing:
    """Frees a network of a spurious mark by zeroing the units that name it.

    Attributes:
        query: What a caption that names the mark says.
        misleading: Images whose marks mislead; those of data= are as in training.
        trials: Random orders.
        steps: Numbers of units to look at.
        seed: Of the random orders.
    """

    query: Sequence[str]
    misleading: Probe
    trials: Count = 5
    steps: Count = 10
    seed: Seed = 0

    def run(self, given: Given) -> str:
        """Zeroes them; writes `editing.csv` and draws it."""
        target = given.one_target()
        for pictures in (given.images(target), self.misleading):
            outputs_of(target, pictures)  # other classes are refused before any caption is written
        found = edit(
            target,
            given.images(target),
            self.misleading,
            given.trainer,
            given.captions(target),
            list(self.query),
            trials=self.trials,
            steps=self.steps,
            seed=self.seed,
        )
        given.write(write_edited, "editing.csv", found)
        given.draw(editing_figure(found), "editing.html")
        return edit_table(found)
