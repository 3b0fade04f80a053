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

from neuronx.errors import UserError
from neuronx.experiments.zeroing import right_without
from neuronx.io import write_csv
from neuronx.metrics.bootstrap import interval
from neuronx.metrics.naming import matching
from neuronx.report.inventory import as_text, plain_table
from neuronx.types import TrainerFactory, Unit

if TYPE_CHECKING:
    from neuronx.data.probe import Probe
    from neuronx.targets.target import Target


@dataclass(frozen=True)
class Edited:
    """What zeroing the units that name the mark does.

    Attributes:
        target: Name of the network.
        images: `<data>:<n>` of the misleading pictures.
        units: How many have captions.
        named: The units whose caption names the mark, in the order in which they are zeroed, with their captions.
        plain: Accuracy of the network as it is on pictures like those that it was trained on.
        plain_edited: The same with all of `named` at 0.
        steps: (X,) int64 from 0, how many units are at 0.
        accuracy: (X,) float64 on misleading pictures, units of `named` at 0.
        random: (T, X) float64, units drawn from all at 0.
        gain: (X, 3) float64, accuracy minus the mean of random: mean and 95 % bootstrap interval over pictures.
    """

    target: str
    images: str
    units: int
    named: tuple[tuple[Unit, str], ...]
    plain: float
    plain_edited: float
    steps: Tensor
    accuracy: Tensor
    random: Tensor
    gain: Tensor


def edit(
    target: "Target",
    usual: "Probe",
    misleading: "Probe",
    trainer: TrainerFactory,
    captions: Mapping[Unit, str],
    query: Sequence[str],
    *,
    trials: int = 5,
    steps: int = 10,
    seed: int = 0,
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
    hits = matching(texts, query).nonzero().squeeze(1).tolist()
    if not hits or trials < 1 or steps < 1:
        raise UserError(
            f"Of {len(units)} captions of {target.name}, {len(hits)} name {' | '.join(query)}; editing needs at least "
            f"one, and at least one random order and step (given {trials} and {steps})."
        )
    alone = right_without(target, usual, trainer, [[units[i]] for i in hits], usual.splits["val"]).double().mean(1)
    named = [units[hits[place]] for place in alone.argsort(descending=True, stable=True).tolist()]
    generator = torch.Generator().manual_seed(seed)
    chance = [[units[i] for i in torch.randperm(len(units), generator=generator).tolist()] for _ in range(trials)]
    counts = torch.linspace(0, len(named), steps + 1).round().long().unique()
    sets = [order[:count] for order in (named, *chance) for count in counts.tolist()]
    right = right_without(target, misleading, trainer, sets).double().unflatten(0, (1 + trials, len(counts)))
    plain = right_without(target, usual, trainer, [[], named]).double().mean(1)
    return Edited(
        target=target.name,
        images=f"{misleading.name}:{right.shape[-1]}",
        units=len(units),
        named=tuple((unit, captions[unit]) for unit in named),
        plain=float(plain[0]),
        plain_edited=float(plain[1]),
        steps=counts,
        accuracy=right[0].mean(1),
        random=right[1:].mean(2),
        gain=torch.tensor(
            [interval(one.numpy(), seed=seed) for one in right[0] - right[1:].mean(0)], dtype=torch.float64
        ),
    )


def edit_table(found: Edited) -> str:
    """Accuracy in percent on misleading pictures, one row for each number of units at 0."""
    title = (
        f"{found.target}: {len(found.named)} of {found.units} units name the mark; accuracy (%) on {found.images} with "
        f"them at 0 (on usual pictures {100 * found.plain:.1f}, with all of them at 0 {100 * found.plain_edited:.1f})"
    )
    names = ("units at 0", "named", "random ± std", "gain", "95 %")
    table = plain_table(*(Column(name, justify="right") for name in names))
    mean, std = found.random.mean(0), found.random.std(0, correction=0)
    for x, count in enumerate(found.steps.tolist()):
        gain, low, high = (100 * found.gain[x]).tolist()
        table.add_row(
            str(count),
            f"{100 * found.accuracy[x]:.1f}",
            f"{100 * mean[x]:.1f} ± {100 * std[x]:.1f}",
            f"{gain:+.1f}",
            rf"\[{low:+.1f}, {high:+.1f}]",
        )
    return as_text(Text(title), table)


def write_edited(path: str | Path, found: Edited) -> Path:
    """Writes one line for each number of units at 0."""
    columns = ["target", "images", "units at 0", "named", "random", "gain", "low", "high"]
    return write_csv(
        path,
        columns,
        [
            [
                *(found.target, found.images, count),
                *(float(found.accuracy[x]), float(found.random[:, x].mean())),
                *found.gain[x].tolist(),
            ]
            for x, count in enumerate(found.steps.tolist())
        ],
    )
