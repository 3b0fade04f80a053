"""What a layer puts out, as one number for each unit and image, or laid out on a grid. Pure functions.

Pooling: `x` is (B, K), tokens (B, T, K) or maps (B, K, H, W), floating point; the result is (B, K), a new tensor.
Grids: maps of a convolution are one already; a transformer's patch tokens are one, row by row, without the class token
and its like; a fully connected layer has none. A unit fires where its upsampled map exceeds its threshold.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from neuronx.errors import UserError
from neuronx.targets.encoder import Dictionary


def avg(x: Tensor) -> Tensor:
    """The mean over the map, or over all tokens, a class token included; (B, K) unchanged."""
    return x.clone() if x.ndim == 2 else x.mean(_places(x))


def maximum(x: Tensor) -> Tensor:
    """The largest value in the map or among all tokens; (B, K) unchanged."""
    return x.clone() if x.ndim == 2 else x.amax(_places(x))


def first(x: Tensor) -> Tensor:
    """The first token, which is the class token where there is one. Raises UserError unless x has tokens."""
    return _tokens(x, "first")[:, 0].clone()


def patch(x: Tensor, prefix: int = 1) -> Tensor:
    """The mean of a transformer's patch tokens, without the `prefix` tokens before them.

    Raises:
        UserError: x has no tokens, or none after the prefix.
    """
    if _tokens(x, "patch").shape[1] <= prefix:
        raise UserError(f"pool=patch needs tokens after the first {prefix}, but there are {x.shape[1]} in all")
    return x[:, prefix:].mean(1)


def none(x: Tensor) -> Tensor:
    """The output as it is. Raises UserError unless it is one number for each unit."""
    if x.ndim == 4 and x.shape[2:].numel() == 1:
        return x.flatten(1).clone()
    if x.ndim != 2:
        fitting = "avg or max" if x.ndim == 4 else "avg, max, first or patch"
        raise UserError(f"pool=none needs one number for each unit, but its output is {_shape(x)}; use {fitting}")
    return x.clone()


def positions(x: Tensor) -> Tensor:
    """Nothing is pooled: the units at one position after the other, (B, P K)."""
    return (x.movedim(1, -1) if x.ndim == 4 else x).flatten(1).clone()


POOLINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "avg": avg,
    "max": maximum,
    "first": first,
    "patch": patch,
    "none": none,
    "positions": positions,
    "patches": positions,
}
"""By name; `patch` and `patches`, the positions after them, take the number of prefix tokens too."""


def pooled(x: Tensor, how: str, prefix: int = 1) -> Tensor:
    """One pooling by name; (B, K) float32. Lower precisions are widened before anything is summed."""
    x = x.float()
    if how == "patches":
        patch(x[:1], prefix)  # raises where there are no patches
        x = x[:, prefix:]
    return patch(x, prefix) if how == "patch" else POOLINGS[how](x)


def pooled_latents(x: Tensor, how: str, dictionary: Dictionary, prefix: int = 1) -> Tensor:
    """The same of a dictionary's latents (B, M) of an output: only the positions that count are encoded, in slices."""
    if how in ("first", "none") or x.ndim == 2:
        return pooled(dictionary(POOLINGS[how](x)), "none")
    if how == "patch":
        patch(x[:1], prefix)  # raises where there are no patches
        x, how = x[:, prefix:], "avg"
    return dictionary.pooled(x, how)


def _places(x: Tensor) -> tuple[int, ...]:
    return (2, 3) if x.ndim == 4 else (1,)


def _tokens(x: Tensor, how: str) -> Tensor:
    if x.ndim != 3:
        fitting = "none" if x.ndim == 2 else "avg or max"
        raise UserError(
            f"pool={how} needs tokens (images, tokens, units), but its output is {_shape(x)}; use {fitting}"
        )
    return x


def _shape(x: Tensor) -> str:
    return f"(images, {', '.join(map(str, x.shape[1:]))})"


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


@dataclass(frozen=True)
class FieldCentres:
    """Where the positions of maps (h, w) look: position (y, x) at the point `start + step * (y, x)` of the picture.

    Attributes:
        start: Of position (0, 0): down and across, in shares of the picture's sides.
        step: From one position to the next.
    """

    start: tuple[float, float]
    step: tuple[float, float]


def upsampled(maps: Tensor, size: tuple[int, int], centres: FieldCentres | None = None) -> Tensor:
    """Maps (..., h, w) brought to (..., H, W): bilinear between the positions' centres, never beyond their range.

    Where a side shrinks, the filter widens, as Pillow's does. Sizes begin at 2: torch's filter is wrong for one column.

    Args:
        maps: Of pictures.
        size: (H, W).
        centres: Where the positions look; beyond the outermost ones their values go on. By default in the middle of
            equal cells (half-pixel).
    """
    flat = maps.reshape(-1, 1, *maps.shape[-2:])
    shrinks, large = _shrinks(maps, size), flat
    if centres is not None:
        # Shrinking comes afterwards, from a whole multiple of the size.
        times = [-(-side // wanted) for side, wanted in zip(maps.shape[-2:], size, strict=True)]
        large = _laid(flat, (size[0] * times[0], size[1] * times[1]), centres)
    if large.shape[-2:] != size:
        large = F.interpolate(large, size, mode="bilinear", align_corners=False, antialias=shrinks)
    elif large is flat:
        large = flat.clone()
    # Weights that add up to one plus a rounding error would lift a map above a threshold that it only reaches.
    large.clamp_(flat.amin((2, 3), keepdim=True), flat.amax((2, 3), keepdim=True))
    return large.reshape(*maps.shape[:-2], *size)


def _laid(maps: Tensor, size: tuple[int, int], centres: FieldCentres) -> Tensor:
    """Maps (P, 1, h, w) sampled at the middle of each pixel: (P, 1, H, W)."""
    at = []
    for start, step, side, pixels in zip(centres.start, centres.step, maps.shape[-2:], size, strict=True):
        middle = (torch.arange(pixels, dtype=torch.float64, device=maps.device) + 0.5) / pixels
        at.append(2 * ((middle - start) / step + 0.5) / side - 1)
    points = torch.stack(torch.meshgrid(at[1], at[0], indexing="xy"), -1).to(maps.dtype)
    # As channels of one image, for which the places are looked up once.
    return F.grid_sample(maps.transpose(0, 1), points[None], padding_mode="border", align_corners=False).transpose(0, 1)


def masks(maps: Tensor, thresholds: Tensor, size: tuple[int, int], centres: FieldCentres | None = None) -> Tensor:
    """Where units fire: (B, K, H, W) bool, upsampled maps (B, K, h, w) strictly above thresholds (K,)."""
    return upsampled(maps, size, centres) > thresholds.to(maps)[:, None, None]


def active(maps: Tensor, thresholds: Tensor) -> Tensor:
    """The pairs (n, 2) int64 of image and unit whose map (B, K, h, w) exceeds the unit's threshold (K,) somewhere.

    Sorted. Upsampling never exceeds the maximum, so that the masks of all other pairs are empty; `masks` of those
    listed needs only their maps: `upsampled(maps[pairs[:, 0], pairs[:, 1]], size)`.
    """
    return (maps.amax((2, 3)) > thresholds.to(maps)).nonzero()


def _shrinks(maps: Tensor, size: tuple[int, int]) -> bool:
    return bool((torch.tensor(maps.shape[-2:]) > torch.tensor(size)).any())
