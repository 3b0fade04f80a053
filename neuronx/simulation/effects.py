"""What a unit does to the network's loss: cross entropy of every image with one unit held at a value, for all units."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from neuronx.types import TrainerFactory

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
    raise NotImplementedError
