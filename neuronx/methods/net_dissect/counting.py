"""How many cells of each region of some pictures each unit fires on.

All that follows is sums of these counts: with a concept's mask, with any formula's, of a unit's own area. Two things
make them cheap. Bilinear upsampling never goes beyond a map's maximum, so that most pairs of a picture and a unit need
none; and one `bincount` over the cells that are left counts them for all units and regions at once.
"""

import numpy as np
import torch
from torch import Tensor

from neuronx.data.segmentation import Regions
from neuronx.recording.maps import upsampled

CELLS_AT_ONCE = 2**23
"""Cells that are upsampled at a time: 32 MiB of float32."""


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
    counts = torch.zeros(len(regions.picture) * maps.shape[1], dtype=torch.int64, device=maps.device)
    step = max(1, CELLS_AT_ONCE // (size[0] * size[1]))
    for some in torch.arange(len(unit), device=maps.device).split(step):
        fires = upsampled(maps[picture[some], unit[some]], size) > thresholds[unit[some], None, None]
        counts += _binned(fires, picture[some], unit[some], regions, maps.shape[1])
    return counts.view(-1, maps.shape[1])


def count_masks(masks: Tensor, regions: Regions) -> Tensor:
    """Counts the set cells of masks (B, K, H, W) bool on the concept grid: (R, K) int64."""
    units = masks.shape[1]
    pair = torch.arange(masks.shape[0] * units, device=masks.device)
    picture = pair.div(units, rounding_mode="floor")
    return _binned(masks.flatten(0, 1), picture, pair - picture * units, regions, units).view(-1, units)


def _binned(fires: Tensor, picture: Tensor, unit: Tensor, regions: Regions, units: int) -> Tensor:
    """Counts (R * K,) of the set cells of masks (P, H, W), each of one picture and one unit."""
    cells = fires.shape[1] * fires.shape[2]
    place = _set_cells(fires)
    pair = place.div(cells, rounding_mode="floor")
    # Where a pair's cells start in the region maps, less where they start in `fires`.
    shift = (picture - torch.arange(len(picture), device=fires.device)) * cells
    region = regions.maps.flatten()[place + shift[pair]]
    return torch.bincount(region * units + unit[pair], minlength=len(regions.picture) * units)


def _set_cells(fires: Tensor) -> Tensor:
    """Flat positions (n,) int64 of what is set; on the CPU by numpy, which finds few among many 6 times faster."""
    if fires.device.type != "cpu":
        return fires.flatten().nonzero().flatten()
    return torch.from_numpy(np.flatnonzero(fires.numpy()))
