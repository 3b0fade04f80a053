"""Accuracy of a classifier while sets of units are zero, all sets in one pass over the images."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from neuronx.concepts.class_labels import class_labels
from neuronx.errors import UserError
from neuronx.metrics.correlation import interval
from neuronx.recording.forward_pass import predict
from neuronx.scoring.ablation.losses import total_of
from neuronx.targets.calling import run
from neuronx.targets.replay import Tail, class_logits
from neuronx.types import TrainerFactory, Unit

if TYPE_CHECKING:
    from neuronx.data.probe import Probe
    from neuronx.targets.target import Target

COPIES_BYTES = 64 * 2**20
"""Of a layer's output, for all copies of a batch that run together."""


def right_without(
    target: "Target",
    probe: "Probe",
    trainer: TrainerFactory,
    sets: Sequence[Sequence[Unit]],
    rows: Tensor | None = None,
) -> Tensor:
    """Which images a network gets right while each of some sets of units puts out 0 everywhere: (S, N) bool.

    An empty set leaves the network as it is. For sets whose units are of one layer only what follows it is run again.

    Args:
        target: The network, a classifier.
        probe: The images, with labels that count its classes.
        trainer: Makes trainers.
        sets: Of units, of any layers.
        rows: The images; those of the test split by default.

    Raises:
        UserError: No labels or labels of other classes, or a unit that the network does not have.
    """
    labels = outputs_of(target, probe)
    rows = probe.splits["test"] if rows is None else rows
    right = torch.zeros(len(sets), len(rows), dtype=torch.bool)
    for places in _alike(target, sets):
        some = [sets[place] for place in places]
        task = _Zeroing(target, probe, labels, rows, _masks(target, some), len(some))
        runner = trainer()
        predict(task, runner, f"{target.name} with units at zero")
        right[places] = total_of(task.right, runner)  # each image was seen by one process
    return right


def outputs_of(target: "Target", probe: "Probe") -> Tensor:
    """Which of a classifier's outputs the label of each image is: (N,) int64; UserError as `class_labels`."""
    return class_labels(target, probe, target.layer_table(layers=[""])[0].units)


def _alike(target: "Target", sets: Sequence[Sequence[Unit]]) -> list[list[int]]:
    """Places of sets that run together: those of one layer by layer, and those of several; empty ones anywhere."""
    found: dict[str, list[int]] = {}
    for place, units in enumerate(sets):
        layers = {target.canonical(unit.layer) for unit in units}
        if layers:
            found.setdefault(layers.pop() if len(layers) == 1 else "", []).append(place)
    empty = [place for place, units in enumerate(sets) if not units]
    first, *others = list(found.values()) or [[]]
    return [first + empty, *others]


def _masks(target: "Target", sets: Sequence[Sequence[Unit]]) -> dict[str, Tensor]:
    """Layer -> (S, K) float32, 0 for the units that are zero in a set and 1 for others."""
    layers = list(dict.fromkeys(target.canonical(unit.layer) for units in sets for unit in units))
    sizes = {row.name: row.units for row in target.layer_table(layers=layers)} if layers else {}
    masks = {layer: torch.ones(len(sets), sizes[layer]) for layer in layers}
    for place, units in enumerate(sets):
        for unit in units:
            layer = target.canonical(unit.layer)
            if not 0 <= unit.index < sizes[layer]:
                raise UserError(
                    f"Layer `{layer}` of {target.name} has units 0 to {sizes[layer] - 1}, not {unit.index}."
                )
            masks[layer][place, unit.index] = 0
    return masks


def intervals(differences: Tensor, seed: int = 0) -> Tensor:
    """Means of differences (X, N) between pictures and their 95 % bootstrap intervals over them: (X, 3) float64."""
    return torch.tensor([interval(one.numpy(), seed=seed) for one in differences], dtype=torch.float64)


class _Zeroing:
    def __init__(
        self, target: "Target", probe: "Probe", labels: Tensor, rows: Tensor, masks: dict[str, Tensor], sets: int
    ) -> None:
        self.network = target.module
        self.target, self.probe, self.labels, self.rows = target, probe, labels, rows
        self.masks, self.sets = masks, sets
        self.tail = Tail(target, next(iter(masks))) if len(masks) == 1 else None
        self.place = torch.full((len(probe),), -1).scatter_(0, rows, torch.arange(len(rows)))
        self.calls: dict[str, int] = {}
        self.right = torch.zeros(sets, len(rows), dtype=torch.bool)

    def batches(self, rank: int, world: int) -> DataLoader:
        """Those of one process."""
        return self.probe.loader(self.target.transform, self.rows, rank=rank, world=world)

    def run(self, batch: tuple[Tensor, Tensor]) -> None:
        """Asks the network about one batch of (images (B, ...), rows (B,)), set by set."""
        images, rows = batch
        place, y = self.place[rows.cpu()], self.labels[rows.cpu()].to(images.device)
        if self.tail is not None:
            self.tail.load(images)
            mask = next(iter(self.masks.values()))
            step = max(1, COPIES_BYTES // max(1, self.tail.output.nbytes))
            for start in range(0, self.sets, step):
                part = mask[start : start + step].to(images.device)
                logits = self.tail.run(len(part), _silence(part)).unflatten(0, (len(part), len(y)))
                self.right[start : start + step, place] = (logits.argmax(-1) == y).cpu()
        else:
            self.calls = self.calls or {layer: self.target.call_of(layer, images[:2]) for layer in self.masks}
            for number in range(self.sets):
                with ExitStack() as stack:
                    for layer, mask in self.masks.items():
                        if not mask[number].all():
                            change = _silence(mask[number, None].to(images.device))
                            stack.enter_context(self.target.edit(layer, change, self.calls[layer]))
                    logits = class_logits(self.target, run(self.network, images))
                self.right[number, place] = (logits.argmax(-1) == y).cpu()

    def save(self) -> None:
        """Nothing is kept of an interrupted pass."""


def _silence(mask: Tensor) -> Callable[[Tensor], None]:
    """Sets to 0 what a mask (C, K) has 0 for, in C copies of a batch one after the other."""

    def change(x: Tensor) -> None:
        copies = x.unflatten(0, (len(mask), -1))
        # Not a product: 0 times infinity is no 0.
        copies.masked_fill_(mask[(slice(None), None, slice(None)) + (None,) * (x.ndim - 2)] == 0, 0)

    return change
