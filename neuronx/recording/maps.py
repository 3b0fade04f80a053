"""Where a unit fires: a layer's output laid out on its grid, upsampled, and cut at the unit's threshold.

Maps of a convolution are a grid already; a transformer's patch tokens are one, row by row, once the class token and its
like are left out; a fully connected layer has none.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from neuronx.errors import UserError


def on_grid(output: Tensor, prefix: int = 0) -> Tensor:
    """A layer's output as maps (B, K, h, w).

    Args:
        output: Maps (B, K, h, w), or tokens (B, T, K).
        prefix: Number of tokens before the patches.

    Raises:
        UserError: An output without positions, (B, K), or tokens that fill no square.
    """
    if output.ndim == 4:
        return output
    if output.ndim == 2:
        raise UserError("it has no positions, one number for each unit only, so there are no masks")
    patches = output[:, prefix:]
    side = math.isqrt(patches.shape[1])
    if side * side != patches.shape[1] or not side:
        raise UserError(f"its {patches.shape[1]} tokens after the first {prefix} fill no square grid")
    return patches.transpose(1, 2).unflatten(2, (side, side))


def upsampled(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps (..., h, w) brought to (..., H, W): bilinear between cell centres (half-pixel), never beyond their range.

    Where a side shrinks, the filter widens, as Pillow's does. Sizes begin at 2: torch's filter is wrong for one column.
    """
    flat = maps.reshape(-1, 1, *maps.shape[-2:])
    larger = F.interpolate(flat, size, mode="bilinear", align_corners=False, antialias=_shrinks(maps, size))
    # Weights that add up to one plus a rounding error would lift a map above a threshold that it only reaches.
    larger.clamp_(flat.amin((2, 3), keepdim=True), flat.amax((2, 3), keepdim=True))
    return larger.reshape(*maps.shape[:-2], *size)


def masks(maps: Tensor, thresholds: Tensor, size: tuple[int, int]) -> Tensor:
    """Where units fire: (B, K, H, W) bool, upsampled maps (B, K, h, w) strictly above thresholds (K,)."""
    return upsampled(maps, size) > thresholds.to(maps)[:, None, None]


def active(maps: Tensor, thresholds: Tensor) -> Tensor:
    """The pairs (n, 2) int64 of image and unit whose map (B, K, h, w) exceeds the unit's threshold (K,) somewhere.

    Sorted. Upsampling never exceeds the maximum, so that the masks of all other pairs are empty; `masks` of those
    listed needs only their maps: `upsampled(maps[pairs[:, 0], pairs[:, 1]], size)`.
    """
    return (maps.amax((2, 3)) > thresholds.to(maps)).nonzero()


def _shrinks(maps: Tensor, size: tuple[int, int]) -> bool:
    return bool((torch.tensor(maps.shape[-2:]) > torch.tensor(size)).any())
