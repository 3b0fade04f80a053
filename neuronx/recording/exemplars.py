"""Exemplars: the images that excite each unit most, where in them, and the threshold above which a unit is on."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from neuronx.data.probe import Probe
from neuronx.errors import UserError
from neuronx.recording.maps import on_grid
from neuronx.recording.walk import walk
from neuronx.targets.target import Target
from neuronx.types import TrainerFactory, Unit


@dataclass(frozen=True)
class Exemplars:
    """What excites the units of one layer most.

    Attributes:
        units: The K units of the whole layer, in column order.
        rows: (K, k) int64, the images of largest peak, strongest first, ties by smaller row.
        peaks: (K, k) float32, the largest activation over all positions of the image.
        places: (K, k) int64, where the peak is: y * w + x in the grid; 0 where there is no grid.
        thresholds: (K,) float32, the activations' `quantile` over all positions of all images looked at, interpolated
            linearly as `torch.quantile` does.
        quantile: Of the thresholds, in (0, 1).
        grid: (h, w) of the layer's maps or patch tokens; None for one number an image, where the whole image counts.
        images: How many images were looked at.
    """

    units: tuple[Unit, ...]
    rows: Tensor
    peaks: Tensor
    places: Tensor
    thresholds: Tensor
    quantile: float
    grid: tuple[int, int] | None
    images: int

    @property
    def layer(self) -> str:
        """The layer that all of the units belong to."""
        return self.units[0].layer


def find_exemplars(
    target: Target,
    probe: Probe,
    trainer: TrainerFactory,
    layers: Iterable[str] | None = None,
    *,
    k: int = 15,
    quantile: float = 0.99,
    rows: Tensor | None = None,
    batch_size: int | None = None,
) -> dict[str, Exemplars]:
    """Finds the exemplars and thresholds of several layers in one pass over the images, or reads them from the store.

    Args:
        target: The network.
        probe: The images.
        trainer: Makes the trainer whose `predict` runs the pass.
        layers: Names; the target's own by default.
        k: Exemplars of each unit.
        quantile: Of the thresholds, in (0, 1): 0.99 in MILAN, 0.995 in Network Dissection.
        rows: The images looked at; train and val by default, since methods see no test images.
        batch_size: Images at a time; the probe's own by default.

    Returns:
        Layer -> exemplars of the whole layer, in the order of `layers`.

    Raises:
        UserError: k or the quantile out of range, an unknown layer, activations that are NaN or infinite, a full disk.
    """
    names = [target.canonical(layer) for layer in (target.layers if layers is None else layers)]
    rows = probe.split("train", "val") if rows is None else rows.unique()
    if not 0 < quantile < 1:
        raise UserError(f"quantile={quantile}: write a number between 0 and 1, such as 0.99.")
    if not 1 <= k <= len(rows):
        raise UserError(f"k={k} exemplars of each unit cannot be found among {len(rows)} images.")
    seen: dict[str, list[Tensor]] = {name: [] for name in names}

    def visit(_: Tensor, found: dict[str, Tensor]) -> None:
        for name in names:
            output = found[name].float().cpu()
            seen[name].append(output if output.ndim == 2 else on_grid(output, target.prefix_tokens or 0))

    walk(target, probe, trainer, names, visit, rows, batch_size=batch_size)  # type: ignore[arg-type]
    result = {}
    for name in names:
        outputs = torch.cat(seen[name])
        grid = None if outputs.ndim == 2 else tuple(outputs.shape[2:])
        flat = outputs.reshape(*outputs.shape[:2], -1)
        peaks, places = flat.max(2)
        order = torch.sort(peaks, dim=0, descending=True, stable=True).indices[:k]
        everything = flat.transpose(0, 1).flatten(1).double().sort(1).values
        rank = quantile * (everything.shape[1] - 1)
        below, above = everything[:, math.floor(rank)], everything[:, math.ceil(rank)]
        result[name] = Exemplars(
            units=tuple(Unit(name, index) for index in range(flat.shape[1])),
            rows=rows[order].T.contiguous(),
            peaks=peaks.gather(0, order).T.contiguous(),
            places=places.gather(0, order).T.contiguous(),
            thresholds=below.lerp(above, rank % 1).float(),
            quantile=quantile,
            grid=grid,  # type: ignore[arg-type]
            images=len(rows),
        )
    return result
