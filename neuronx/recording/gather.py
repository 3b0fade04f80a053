"""The maps of units on their exemplars: the network runs once more, over the exemplars' images only."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from lightning import Trainer
from torch import Tensor

from neuronx.data.probe import Probe
from neuronx.recording.maps import on_grid
from neuronx.recording.walk import walk
from neuronx.targets.target import Target
from neuronx.types import TrainerFactory

if TYPE_CHECKING:
    from neuronx.recording.exemplars import Exemplars


def gather(
    found: "Mapping[str, Exemplars]", units: Mapping[str, Tensor], target: Target, probe: Probe, trainer: TrainerFactory
) -> tuple[dict[str, Tensor], Trainer | None]:
    """The maps of some units on their exemplars, of all layers in one pass.

    They are kept as small as the layer makes them, 4 h w bytes each: for 15 exemplars 6 MB of 2,048 units on a grid of
    7 x 7, 48 MB of 64 units on 112 x 112.

    Args:
        found: Layer -> its exemplars.
        units: Layer -> (U,) indices of the units that are wanted.
        target: The network.
        probe: The images.
        trainer: Makes the trainer that runs the pass; every process of it gets all maps.

    Returns:
        Layer -> maps (U, k, h, w) float32, without the layers that have no positions; and the trainer, None if there
        was nothing to run.
    """
    pairs = {
        layer: _Pairs(one.rows[units[layer]], _own(one, units[layer]), one.grid)
        for layer, one in found.items()
        if one.grid is not None
    }
    if not pairs:
        return {}, None

    def visit(rows: Tensor, outputs: Mapping[str, Tensor]) -> None:
        for layer, mine in pairs.items():
            mine.take(rows, on_grid(outputs[layer], target.prefix_tokens or 0))

    rows = torch.cat([mine.rows for mine in pairs.values()]).unique()
    runner = walk(target, probe, trainer, list(pairs), visit, rows)
    if runner.world_size == 1:
        return {layer: mine.maps for layer, mine in pairs.items()}, runner
    # Each exemplar's map was made by one process and is zero on all others.
    return {layer: _sum(mine.maps, runner) for layer, mine in pairs.items()}, runner


@dataclass(init=False)
class _Pairs:
    """The exemplars of a layer's units, (unit, rank) pairs sorted by image, and their maps as they come.

    Attributes:
        rows: (P,) of the images, sorted.
        maps: (U, k, h, w) float32.
    """

    rows: Tensor
    maps: Tensor

    def __init__(self, rows: Tensor, units: Tensor, grid: tuple[int, int]) -> None:
        self.rows, self.order = rows.reshape(-1).sort()
        self.units = units.repeat_interleave(rows.shape[1])[self.order]
        self.maps = torch.zeros(*rows.shape, *grid)

    def take(self, rows: Tensor, grids: Tensor) -> None:
        """Keeps what is wanted of the maps (B, K, h, w) of images `rows` (B,), which are sorted."""
        first, last = torch.searchsorted(self.rows, torch.stack([rows[0], rows[-1] + 1])).tolist()
        if first < last:
            image = torch.searchsorted(rows, self.rows[first:last]).to(grids.device)
            unit = self.units[first:last].to(grids.device)
            self.maps.flatten(0, 1)[self.order[first:last]] = grids[image, unit].float().cpu()


def _own(exemplars: "Exemplars", units: Tensor) -> Tensor:
    """The units of the layer whose maps are looked at: a part of a unit has its unit's."""
    return torch.tensor([exemplars.units[unit].index for unit in units.tolist()], dtype=torch.int64)


def _sum(maps: Tensor, runner: Trainer) -> Tensor:
    return runner.strategy.reduce(maps.to(runner.strategy.root_device), reduce_op="sum").cpu()
