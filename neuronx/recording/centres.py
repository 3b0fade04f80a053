"""Where the positions of a layer's maps look: the centres of their receptive fields, found by the network itself.

Convolutions of odd kernels and even steps, such as a ResNet's, centre position i at `step * i` and not in the middle of
the i-th cell: maps that are laid over pictures cell by cell lie up to half a cell too low and too far right.

The gradient of what a position puts out, summed over units, says how much it looks at each pixel. Its centre of gravity
is taken of a few positions in the middle of pictures continued beyond their edges, where no receptive field is cut off;
the step is by how much maps grow with the pictures. Where fields are so large that the picture's own borders cut off
even those of inner positions, what is left of them lies nearer together: its centres count, weighed by the square of
the gradient. Networks that take pictures of one size only are looked at as they are: attention looks everywhere, so
that only what lies around the gradient's peak counts.
"""

import json
import logging
import math
from contextlib import suppress
from typing import Any

import torch
from lightning import Trainer
from torch import Tensor
from torch.nn import functional as F

from neuronx.data.probe import Probe
from neuronx.recording.maps import FieldCentres, on_grid
from neuronx.recording.record import identity
from neuronx.store.cache import Contents, entry
from neuronx.store.processes import on_first
from neuronx.targets.calling import run, to_device_of
from neuronx.targets.target import Target
from neuronx.types import Plain

IMAGES, FEWEST = 16, 4
"""Looked at; of large ones as few as the latter."""
PIXELS = 2**20
"""That are looked at, of all images together, where there may be fewer images than the most."""
AT_ONCE = 2**18
"""Pixels whose gradient is taken at a time."""
CUT = 0.85
"""Of the regular step; where inner positions look at points that are nearer together, borders cut their fields off."""
EXTRA = 64
"""Pictures grow by a multiple of it, so that the steps of usual networks divide it."""

FILE = "centres.json"

log = logging.getLogger("neuronx")


def centres_of(
    target: Target, probe: Probe, runner: Trainer, layer: str, grid: tuple[int, int] | None
) -> FieldCentres | None:
    """Where the positions of a layer look, measured once and kept in the store.

    Args:
        target: The network.
        probe: The images.
        runner: Whose precision is part of the layer's identity.
        layer: Its name.
        grid: (h, w) of its maps.

    Returns:
        None for the middle of equal cells: where that is what was measured, or where no gradient says better (scripted
        and quantised networks, generators, fixed steps that do not fit), and with `masks=published`.
    """
    if target.masks == "published" or grid is None or grid == (1, 1) or target.latents is not None:
        return None

    def measured() -> Contents:
        key: dict[str, Plain] = {**identity(target, layer, probe, runner), "prefix": target.prefix_tokens}
        place = entry("field_centres", {**key, "grid": list(grid)})
        known = place.open()
        if known is not None:
            return known
        found = measure(target, probe, layer, grid)
        return place.publish({FILE: json.dumps(None if found is None else [found.start, found.step]).encode()})

    start_and_step = json.loads(on_first(measured).files[FILE].read_text())
    return None if start_and_step is None else FieldCentres(*map(tuple, start_and_step))


def measure(target: Target, probe: Probe, layer: str, grid: tuple[int, int]) -> FieldCentres | None:
    """The centres of a layer's positions on a grid (h, w), to half a pixel; None for the middle of equal cells."""
    first = next(iter(probe.loader(target.transform, torch.arange(1), batch_size=1)))[0]
    if not isinstance(first, Tensor) or first.ndim != 4 or not first.is_floating_point():
        return None
    size = (int(first.shape[2]), int(first.shape[3]))
    larger = [EXTRA * math.ceil(side / EXTRA) for side in size]
    pixels = (size[0] + larger[0]) * (size[1] + larger[1])
    images = min(IMAGES, max(FEWEST, PIXELS // pixels), len(probe))
    inputs: Any = next(iter(probe.loader(target.transform, torch.arange(images), batch_size=images)))[0]
    inputs = to_device_of(target.module, inputs)
    found = None
    for extra in (larger, [0, 0]):
        # Whatever a network raises at a size that it does not take, or where it has no gradient.
        with suppress(Exception):
            found = _fitted(target, layer, inputs, grid, extra)
        if found is not None:
            break
    if found is None:
        log.info(
            "%s of %s: no gradient says where its positions look; they are taken for equal cells.", layer, target.name
        )
        return None
    start, step = found
    if all(2 * a == b == side / n for a, b, side, n in zip(start, step, size, grid, strict=True)):
        return None
    (top, left), (down, across) = start, step
    return FieldCentres((top / size[0], left / size[1]), (down / size[0], across / size[1]))


def _fitted(
    target: Target, layer: str, inputs: Tensor, grid: tuple[int, int], extra: list[int]
) -> tuple[list[float], list[float]] | None:
    """Start and step in pixels, down and across, of pictures (B, 3, H, W) that grow by `extra`; None where none fit."""
    for axis, more in enumerate(extra, 2):
        inputs = _continued(inputs, axis, more)
    parts = inputs.split(max(1, AT_ONCE // inputs[0, 0].numel()))
    sums: dict[tuple[int, int], Tensor] = {}
    squares: dict[tuple[int, int], Tensor] = {}
    shape, before = grid, 0
    for part in parts:
        with torch.inference_mode(False), torch.enable_grad():
            pixels = part.clone().requires_grad_()
            maps = _maps(target, layer, pixels)
            shape = (int(maps.shape[2]), int(maps.shape[3]))
            middle = [(shape[0] // 2 - i, shape[1] // 2 - j) for i in (0, 1) for j in (0, 1)]
            # A position for each image, in turn.
            own = [middle[(before + at) % 4] for at in range(len(part))]
            summed = sum(maps[at, :, y, x].float().sum() for at, (y, x) in enumerate(own))
            looks = torch.autograd.grad(summed, pixels)[0].float().abs().sum(1)  # type: ignore[arg-type]
        for at, place in enumerate(own):
            sums[place] = sums.get(place, 0) + looks[at]
            squares[place] = squares.get(place, 0) + looks[at].square()
        before += len(part)
    starts, steps = [], []
    for axis, (more, own_side, now) in enumerate(zip(extra, grid, shape, strict=True)):
        if more and now <= own_side:
            return None
        side = inputs.shape[axis + 2]
        step = more / (now - own_side) if more else side / own_side
        lines = {place: look.sum(1 - axis) for place, look in sums.items()}
        each = [_centre(line, None if more else step) - step * place[axis] for place, line in lines.items()]
        start = sum(each) / len(each)
        if not math.isfinite(start) or max(each) - min(each) > 2 * step or (not more and abs(start - step / 2) > step):
            return None
        start = round(2 * start) / 2
        if more:
            parts = [(squares[place].sum(1 - axis), start + step * place[axis]) for place in lines]
            start, step = _within(parts, start, step, own_side, side - more)
        starts.append(start)
        steps.append(step)
    return starts, steps


def _within(
    fields: list[tuple[Tensor, float]], start: float, step: float, positions: int, side: int
) -> tuple[float, float]:
    """Start and step of what inner positions see within a picture's side; as they were where borders cut little off.

    Args:
        fields: How much is looked at (n,), and around which pixel.
        start: Of whole fields.
        step: Of these.
        positions: On the side of the map.
        side: Of the picture, in pixels.
    """
    low, high = (positions - 1) // 2 - positions // 8, positions // 2 + positions // 8
    if low == high:
        low, high = max(0, low - 1), min(positions - 1, high + 1)
    if low == high:
        return start, step
    seen = []
    for position in (low, high):
        mass = moment = 0.0
        for look, middle in fields:
            pixels = torch.arange(len(look), device=look.device) + 0.5 - middle + start + step * position
            inside = look * ((pixels > 0) & (pixels < side))
            mass, moment = mass + float(inside.sum()), moment + float((inside * pixels).sum())
        seen.append(moment / mass)
    own = (seen[1] - seen[0]) / (high - low)
    return (start, step) if not own < CUT * step else ((seen[0] + seen[1] - own * (low + high)) / 2, own)


def _centre(look: Tensor, reach: float | None) -> float:
    """The centre of gravity of a line (n,), in pixels; with a reach, of what is that near, found from the peak on."""
    pixels = torch.arange(len(look), device=look.device) + 0.5
    if reach is None:
        return float((look * pixels).sum() / look.sum())
    side = int(reach) // 2 * 2 + 1
    smooth = F.avg_pool1d(look[None, None], side, 1, side // 2)[0, 0]
    centre = float(pixels[smooth.argmax()])
    for _ in range(10):
        near = look * ((pixels - centre).abs() <= reach)
        centre = float((near * pixels).sum() / near.sum())
    return centre


def _continued(pictures: Tensor, axis: int, more: int) -> Tensor:
    """Pictures that go on beyond one edge, mirrored as often as it takes."""
    side = pictures.shape[axis]
    place = torch.arange(side + more, device=pictures.device) % max(1, 2 * side - 2)
    return pictures.index_select(axis, place.where(place < side, 2 * side - 2 - place))


def _maps(target: Target, layer: str, inputs: Tensor) -> Tensor:
    """The layer's last output as maps; what comes after it may fail at a size that it does not take."""
    outputs: list[Tensor] = []

    def keep(_: str, output: Tensor) -> Tensor:
        outputs.append(output.clone())
        return output.new_empty(0)

    with suppress(Exception), target.record([layer], keep):
        run(target.module, inputs * 1)  # a copy, since the network may write into what it is given
    return on_grid(outputs[-1], target.prefix_tokens or 0)
