"""What a unit does to the network's loss: cross entropy of every image with one unit held at a value, for all units."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from lightning import LightningModule
from torch import Tensor

from neuronx.errors import UserError
from neuronx.recording.record import record
from neuronx.scoring.ablation.head import class_labels, few_images, find_linear_head
from neuronx.scoring.ablation.replacing import Losses, losses
from neuronx.scoring.rows import RowBatches
from neuronx.types import TrainerFactory

CHUNK = 2**22
"""Numbers in the logits that are changed at a time."""

if TYPE_CHECKING:
    from neuronx.data.probe import Probe
    from neuronx.targets.target import Target


@dataclass(frozen=True)
class Effects:
    """Losses of N images, intact and with each of K units replaced. Cross entropies are natural logarithms.

    Attributes:
        layer: Where the units are.
        units: (K,) int64, their indices.
        rows: (N,) int64, the images.
        intact: (N,) float32, cross entropy of the intact network.
        right: (N,) bool, whether its largest logit is the label's.
        loss: (K, N) float32, cross entropy with unit k replaced.
        still_right: (K, N) bool.
        path: `linear`, by the rank-one update of the logits; `tail`, by running what comes after the layer; or
            `network`, by running all of it.
    """

    layer: str
    units: Tensor
    rows: Tensor
    intact: Tensor
    right: Tensor
    loss: Tensor
    still_right: Tensor
    path: str


def effects(
    target: "Target",
    probe: "Probe",
    trainer: TrainerFactory,
    layer: str,
    rows: Tensor | None = None,
    values: Tensor | float = 0.0,
    *,
    units: Sequence[int] | None = None,
    temperature: float = 1.0,
    labels: str = "true",
    batch_size: int | None = None,
) -> Effects:
    """Sets one unit after the other to a value, in every place of its map or every token, and measures the losses.

    Everything else keeps its true value. The result is the same on any number of processes, and on each of them.

    Args:
        target: The network; its outputs are logits (B, classes).
        probe: The images, with labels that count the network's classes.
        trainer: Makes the trainer whose `predict` runs the pass.
        layer: Any layer, asked for or not.
        rows: (N,) the images; all by default.
        values: One number, or (K,) one for each unit.
        units: Their indices; by default those asked for of the layer, or all of them.
        temperature: Logits are divided by it.
        labels: `true`, or `predicted` for the network's own most likely class, where pictures have no labels.
        batch_size: Images at a time; the probe's own by default.

    Raises:
        UserError: An unknown layer, a network without class head, labels that are missing or of other classes.
    """
    layer = target.canonical(layer)
    rows = torch.arange(len(probe)) if rows is None else rows
    images = few_images(target, probe)
    (row,) = target.layer_table(images[:1], [layer])
    width, pool = row.units, "none" if len(row.shape) == 1 else "avg"
    head = find_linear_head(target, layer, pool, images)
    wanted = {"": "none"} if head is None else {"": "none", layer: pool}
    recorded = record(target, probe, trainer, layers=wanted, batch_size=batch_size)
    logits = recorded[""].values
    y = class_labels(target, probe, logits, labels)
    which = torch.tensor(target.units_of(layer, width) if units is None else list(units), dtype=torch.int64)
    if len(which) and not 0 <= int(which.min()) <= int(which.max()) < width:
        raise UserError(f"Layer `{layer}` of {target.name} has units 0 to {width - 1}, not {int(which.max())}.")
    amounts = torch.as_tensor(values, dtype=torch.float32).expand(len(which))
    if head is not None:
        z = recorded[layer].values
        found = _RankOne(logits[rows], z[rows][:, which], head.weight.T[which], y[rows], amounts, temperature)
        trainer().test(found, verbose=False)
        return Effects(layer, which, rows, found.intact, found.right, found.loss, found.still_right, "linear")
    task = Losses(
        target,
        probe,
        layer,
        pool,
        rows,
        y,
        which,
        amounts[None],
        combine="set",
        temperature=temperature,
        answers=True,
        batch_size=batch_size,
    )
    done = losses(trainer, task)
    path = "tail" if done.partial else "network"
    return Effects(layer, which, rows, done.intact, done.right, done.loss[0], done.still_right[0], path)


class _RankOne(LightningModule):
    """Changes logits by the change of a unit times its weights, unit by unit: a share of them in each process."""

    def __init__(
        self, logits: Tensor, z: Tensor, weight: Tensor, labels: Tensor, amounts: Tensor, temperature: float
    ) -> None:
        super().__init__()
        self.logits, self.z, self.weight, self.labels = logits.clone(), z, weight, labels
        self.amounts, self.temperature = amounts, temperature
        self.loss = torch.zeros(len(weight), len(logits))
        self.still_right = torch.zeros(len(weight), len(logits), dtype=torch.bool)
        self.intact, self.right = self._judge(self.logits, labels)

    def test_dataloader(self) -> RowBatches:
        return RowBatches(torch.arange(len(self.weight)), 1, self)

    def test_step(self, units: Tensor) -> None:
        for k in units.tolist():
            for part in torch.arange(len(self.logits)).split(max(1, CHUNK // self.logits.shape[1])):
                logits = self.logits[part].to(self.device)
                by = (self.amounts[k] - self.z[part, k]).to(self.device)
                changed = torch.addcmul(logits, by[:, None], self.weight[k].to(self.device))
                self.loss[k, part], self.still_right[k, part] = self._judge(changed, self.labels[part])

    def on_test_epoch_end(self) -> None:
        if self.trainer.world_size > 1:
            reduce = self.trainer.strategy.reduce
            self.loss = reduce(self.loss.to(self.device), reduce_op="sum").cpu()
            self.still_right = reduce(self.still_right.float().to(self.device), reduce_op="sum").cpu().bool()

    def _judge(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        y = labels.to(logits.device)
        scaled = logits / self.temperature
        loss = scaled.logsumexp(1) - scaled.gather(1, y[:, None])[:, 0]
        return loss.cpu(), (logits.argmax(1) == y).cpu()
