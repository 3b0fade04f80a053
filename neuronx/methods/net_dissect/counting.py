"""How many cells of each region of some pictures each unit fires on.

All that follows is sums of these counts: with a concept's mask, with any formula's, of a unit's own area. Two things
make them cheap. Bilinear upsampling never goes beyond a map's maximum, so that most pairs of a picture and a unit need
none; and one `bincount` over the cells that are left counts them for all units and regions at once.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from neuronx.data.segmentation import Regions
from neuronx.recording.maps import upsampled

CELLS_AT_ONCE = {"cpu": 2**19}
"""Cells that are upsampled and cut at a time: as many as a processor's cache holds, and elsewhere 2^25."""
FIRING_AT_ONCE = 2**22
"""Cells where units fire that are counted at a time: 16 MiB."""


def count(maps: Tensor, thresholds: Tensor, regions: Regions) -> Tensor:
    """Counts the cells where upsampled maps are strictly above their unit's threshold.

    Args:
        maps: (B, K, h, w) float, of B pictures.
        thresholds: (K,).
        regions: Of the same pictures, on the concept grid; on the same device.

    Returns:
        (R, K) int64.
    """
    size = regions.maps.shape[-2], regions.maps.shape[-1]
    thresholds = thresholds.to(maps)
    picture, unit = (maps.amax((2, 3)) > thresholds).nonzero(as_tuple=True)

    def fires(some: slice) -> Tensor:
        return upsampled(maps[picture[some], unit[some]], size) > thresholds[unit[some], None, None]

    return _counted(fires, picture, unit, regions, maps.shape[1])


def count_masks(masks: Tensor, regions: Regions) -> Tensor:
    """Counts the set cells of masks (B, K, H, W) bool on the concept grid: (R, K) int64."""
    units = masks.shape[1]
    # torch reads and copies bytes several times faster than truth values.
    flat = masks.flatten(0, 1).contiguous().view(torch.uint8)
    pair = flat.flatten(1).amax(1).nonzero().flatten()
    picture = pair.div(units, rounding_mode="floor")

    def fires(some: slice) -> Tensor:
        return flat.index_select(0, pair[some]).view(torch.bool)

    return _counted(fires, picture, pair - picture * units, regions, units)


def _counted(fires: Callable[[slice], Tensor], picture: Tensor, unit: Tensor, regions: Regions, units: int) -> Tensor:
    """Counts (R, K) of the set cells of P masks, each of one picture and one unit (P,); `fires` makes some of them."""
    cells, shape = regions.maps[0].numel(), (len(regions.picture), units)
    counts = regions.picture.new_zeros(shape[0] * shape[1])
    # Half the memory that has to go through the processor; there are never 2^31 pairs of a region and a unit.
    numbers, unit = (regions.maps.flatten() * units).int(), unit.int()
    step = max(1, CELLS_AT_ONCE.get(numbers.device.type, 2**25) // cells)
    # Where a mask's cells start in the region maps, less where they start among those made at once.
    shift = (picture - torch.arange(len(picture), device=picture.device) % step) * cells
    bins: list[Tensor] = []
    for first in range(0, len(picture), step):
        some = slice(first, first + step)
        bins.append(_bins(fires(some), shift[some], unit[some], numbers, cells))
        if first + step >= len(picture) or sum(map(len, bins)) > FIRING_AT_ONCE:
            counts += torch.bincount(torch.cat(bins), minlength=len(counts))
            bins.clear()
    return counts.view(shape)


def _bins(fires: Tensor, shift: Tensor, unit: Tensor, numbers: Tensor, cells: int) -> Tensor:
    """The number (n,) int32 of the region and unit of each set cell; on the CPU by numpy, 3 times as fast as torch."""
    if fires.device.type != "cpu":
        where = fires.flatten().nonzero().flatten()
        which = where.div(cells, rounding_mode="floor")
        return numbers[where + shift[which]] + unit[which]
    place = np.flatnonzero(fires.numpy())
    # In order of the masks, so that a few bisections say how many belong to each.
    many = np.diff(np.searchsorted(place, np.arange(len(unit) + 1) * cells))
    place += np.repeat(shift.numpy(), many)
    found = numbers.numpy()[place]
    found += np.repeat(unit.numpy(), many)
    return torch.from_numpy(found)
