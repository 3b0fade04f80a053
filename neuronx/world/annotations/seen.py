"""What each pixel of the embedded world's pictures shows: rendered ones by their scenes, generated ones as seen."""

import torch
from torch import Tensor
from torch.nn import functional as F

from neuronx.world.annotations.factors import OF_OBJECTS
from neuronx.world.pictures.render import render_masks
from neuronx.world.pictures.scene import SIDE, Scenes

BAND = 2
"""Pixels within this many of an object's outline are its edge."""


def of_scenes(scenes: Scenes) -> dict[str, Tensor]:
    """Kind -> (B, 64, 64) int8, the value of each pixel of B rendered pictures, -1 for none.

    Background and number belong to all pixels of a picture, an object's factors to its own; an edge is a pixel near an
    outline, by the side of the upper object's centre on which it lies.
    """
    ids = render_masks(scenes).long()
    maps = {}
    for kind in OF_OBJECTS:
        values = F.pad(getattr(scenes, kind), (1, 0), value=-1)
        maps[kind] = values.gather(1, ids.flatten(1)).view_as(ids).to(torch.int8)
    for kind, values in (("background", scenes.background), ("number", scenes.count - 1)):
        maps[kind] = everywhere(values)
    maps["cell"] = cells(len(scenes))
    maps["edge"] = _edges(scenes, ids)
    return maps


def everywhere(values: Tensor) -> Tensor:
    """Maps (B, 64, 64) int8 of one value (B,) for each picture."""
    return values.to(torch.int8)[:, None, None].expand(-1, SIDE, SIDE)


def cells(pictures: int) -> Tensor:
    """(pictures, 64, 64) int8, which of 3 x 3 cells each pixel lies in, in reading order."""
    third = torch.arange(SIDE) * 3 // SIDE
    return (third[:, None] * 3 + third).to(torch.int8).expand(pictures, -1, -1)


def _edges(scenes: Scenes, ids: Tensor) -> Tensor:
    highest, lowest = _highest_around(ids), -_highest_around(-ids)
    slot = highest.long() - 1
    line = torch.arange(SIDE) + 0.5

    def centre(values: Tensor) -> Tensor:
        return values.gather(1, slot.clamp(min=0).flatten(1)).view_as(slot)

    across, down = line - centre(scenes.x), line[:, None] - centre(scenes.y)
    vertical = down.abs() >= across.abs()
    side = torch.where(vertical, (down > 0).long(), 2 + (across > 0).long())
    return torch.where((highest > lowest) & (slot >= 0), side, -1).to(torch.int8)


def _highest_around(ids: Tensor) -> Tensor:
    return F.max_pool2d(ids.float()[:, None], 2 * BAND + 1, 1, BAND)[:, 0]
