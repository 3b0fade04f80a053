"""From scenes to pictures and maps of objects.

Every operation works pixel by pixel and is rounded correctly (no sines, exponentials, sums or fused products), so a
pixel is the same, bit for bit, in any batch and on any machine. Only what a picture needs is computed: objects are
painted into a window just large enough, each distance function and texture runs on the objects that have it.
"""

import math
from collections.abc import Callable, Iterator
from functools import cache

import torch
from torch import Tensor

from neuronx.world.pictures.backgrounds import BODY, MARK, RIM, windows
from neuronx.world.pictures.names import SHAPES, SIZES, TEXTURES
from neuronx.world.pictures.scene import OBJECTS, SIDE, TURNS, Scenes

EXTENT = 1.06

_COS30, _COS36, _SIN36 = 0.866025, 0.809017, 0.587785
_DIAGONAL = 0.707107


def _length(x: Tensor, y: Tensor) -> Tensor:
    return (x * x + y * y).sqrt_()


def _within(distance: Tensor, x: Tensor, y: Tensor) -> Tensor:
    # Half planes reach far beyond a sharp tip; the circle around the shape cuts them off.
    return torch.maximum(distance, _length(x, y) - EXTENT)


def circle(x: Tensor, y: Tensor) -> Tensor:
    """A disc."""
    return _length(x, y) - 0.9


def ring(x: Tensor, y: Tensor) -> Tensor:
    """A disc with a hole of half its radius."""
    return (_length(x, y) - 0.735).abs_() - 0.245


def crescent(x: Tensor, y: Tensor) -> Tensor:
    """A disc without a smaller one towards the upper right."""
    return torch.maximum(_length(x, y) - 0.98, 0.68 - _length(x - 0.42, y - 0.26))


def heart(x: Tensor, y: Tensor) -> Tensor:
    """A square on its tip with a half disc on each upper side."""
    side, y = x.abs(), y + 0.12
    square = (side + y.abs()) * _DIAGONAL - 0.57
    disc = _length(side - 0.403, y - 0.403) - 0.57
    return torch.minimum(square, disc)


def drop(x: Tensor, y: Tensor) -> Tensor:
    """A disc and its two tangents that meet above it."""
    side, y = x.abs(), y + 0.34
    # The tangents leave the disc (radius .64) where the normal (.866, .5) points, and meet at twice its radius.
    cone = torch.maximum(side * _COS30 + y * 0.5 - 0.64, 0.32 - y)
    return _within(torch.minimum(_length(x, y) - 0.64, cone), x, y - 0.34)


def square(x: Tensor, y: Tensor) -> Tensor:
    """A square on its side."""
    return torch.maximum(x.abs(), y.abs()) - 0.75


def triangle(x: Tensor, y: Tensor) -> Tensor:
    """An equilateral triangle, tip up."""
    y = y + 0.16
    return _within(torch.maximum(x.abs() * _COS30 + y * 0.5, -y) - 0.56, x, y - 0.16)


def diamond(x: Tensor, y: Tensor) -> Tensor:
    """A rhombus, higher than wide."""
    return _within(x.abs() * 0.83205 + y.abs() * 0.5547 - 0.58, x, y)


def hexagon(x: Tensor, y: Tensor) -> Tensor:
    """A regular hexagon, flat above and below."""
    x, y = x.abs(), y.abs()
    return torch.maximum(x * _COS30 + y * 0.5, y) - 0.83


def star(x: Tensor, y: Tensor) -> Tensor:
    """A star of five points, one of them up."""
    far = _length(x, y) - EXTENT
    x = x.abs()
    # Two mirrors fold the five points onto the upper one.
    for nx, ny in ((_COS36, -_SIN36), (-_COS36, -_SIN36)):
        excess = (x * nx + y * ny).clamp_(min=0) * 2.0
        x, y = x - excess * nx, y - excess * ny
    # The edge from the tip (0, 1.05) to the notch at radius .5, 36 degrees on.
    return torch.maximum(x.abs() * 0.910107 + y * 0.414372 - 0.435091, far)


def cross(x: Tensor, y: Tensor) -> Tensor:
    """A plus sign."""
    x, y = x.abs(), y.abs()
    return torch.maximum(torch.minimum(x, y) - 0.31, torch.maximum(x, y) - 0.96)


def arrow(x: Tensor, y: Tensor) -> Tensor:
    """An arrow to the right: a triangle and a shaft."""
    side = y.abs()
    head = torch.maximum(side * 0.768221 + x * 0.640184 - 0.640184, -x - 0.02)
    shaft = torch.maximum(side - 0.3, torch.maximum(-x - 0.98, x - 0.3))
    return _within(torch.minimum(head, shaft), x, y)


OUTLINES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    outline.__name__: outline
    for outline in (circle, ring, crescent, heart, drop, square, triangle, diamond, hexagon, star, cross, arrow)
}


def striped(x: Tensor, y: Tensor, period: Tensor) -> Tensor:
    """Diagonal stripes, two fifths of them marks."""
    return (0.2 * period + 0.5 - _from_middle((x + y) * (_DIAGONAL / period)) * period).clamp_(0, 1)


def dotted(x: Tensor, y: Tensor, period: Tensor) -> Tensor:
    """Dots on a square grid that stands on its tip."""
    scale = _DIAGONAL / period
    across, along = _from_middle((x + y) * scale), _from_middle((x - y) * scale)
    distance = (across * across + along * along).sqrt_() * period
    return (0.3 * period + 0.5 - distance).clamp_(0, 1)


def checkered(x: Tensor, y: Tensor, period: Tensor) -> Tensor:
    """A chessboard of cells of .65 periods."""
    size = 1.3 * period
    across = ((_from_middle(x / size) - 0.25) * size).clamp_(-0.5, 0.5)
    along = ((_from_middle(y / size) - 0.25) * size).clamp_(-0.5, 0.5)
    return across * along * 2.0 + 0.5


def _from_middle(x: Tensor) -> Tensor:
    """Distance to the middle of the unit interval that holds `x`: 0 in the middle, .5 at its ends."""
    return (x - x.floor() - 0.5).abs_()


PATTERNS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "striped": striped,
    "dotted": dotted,
    "checkered": checkered,
}
"""Each takes x and y in pixels from the object's centre and the period (M, 1, 1) in pixels, and returns how much of
the mark covers the pixel, in [0, 1]. Plain objects have none."""


RENDERER = "2"
"""Raised whenever any pixel changes; weights trained on the world depend on it."""

TILT = 14.0
"""Largest rotation in degrees, either way."""

_REACH = (36, 44, 54)
"""Side of the window that holds an object of each size with its shadow."""
_DROP = 2
"""How far the shadow falls, in pixels to the right and down."""


def render(scenes: Scenes) -> Tensor:
    """Paints B scenes: (B, 3, 64, 64) uint8, on the device of the scenes."""
    return render_all(scenes)[0]


def render_masks(scenes: Scenes) -> Tensor:
    """Which object each pixel shows: (B, 64, 64) uint8, 0 for the background, else slot + 1.

    Later slots lie on top. A pixel belongs to an object when its centre does. All concept masks follow from this map
    (`neuronx.world.pictures.words.concept_masks`).
    """
    return torch.cat([_masks(part) for part in _parts(scenes)])


def render_all(scenes: Scenes) -> tuple[Tensor, Tensor]:
    """`render` and `render_masks` together, at little more than the cost of one."""
    pictures, maps = zip(*(_paint(part) for part in _parts(scenes)), strict=True)
    return torch.cat(pictures), torch.cat(maps)


def _parts(scenes: Scenes) -> list[Scenes]:
    # A part's planes stay in a CPU's cache; a GPU wants more at once.
    size = 128 if scenes.background.device.type == "cpu" else 2048
    return [scenes[start : start + size] for start in range(0, max(len(scenes), 1), size)]


def _masks(scenes: Scenes) -> Tensor:
    ids = torch.zeros(len(scenes), SIDE, SIDE, dtype=torch.uint8, device=scenes.background.device)
    for rows, slot, reach in _groups(scenes):
        window, _, _, distance = _geometry(scenes, rows, slot, reach, 0)
        _stamp(ids, window, distance <= 0, slot + 1)
    return ids


def _paint(scenes: Scenes) -> tuple[Tensor, Tensor]:
    ids = torch.zeros(len(scenes), SIDE, SIDE, dtype=torch.uint8, device=scenes.background.device)
    canvas = windows(scenes)
    for rows, slot, reach in _groups(scenes):
        (row, top, left), x, y, distance = _geometry(scenes, rows, slot, reach, _DROP)
        marks = _marks(scenes.texture[rows, slot], x, y, scenes.radius[rows, slot])
        body = distance[:, _DROP:, _DROP:]
        colours = _colours(scenes, rows, slot, marks, body)
        cut = canvas.unfold(2, reach, 1).unfold(3, reach, 1)
        ground = cut[row, :, top, left].mul_(_shadow(distance[:, :-_DROP, :-_DROP])[:, None])
        ground += colours.sub_(ground).mul_((0.5 - body).clamp_(0, 1)[:, None])
        cut[row, :, top, left] = ground
        _stamp(ids, (row, top, left), body <= 0, slot + 1)
    return canvas.mul_(255.0).add_(0.5).clamp_(0, 255).to(torch.uint8), ids


def _groups(scenes: Scenes) -> Iterator[tuple[Tensor, int, int]]:
    """What is painted together, lower objects first: rows (M,) in order of shape, the slot, the side of the window."""
    for slot in range(OBJECTS):
        for size in range(len(SIZES)):
            rows = (scenes.size[:, slot] == size).nonzero().squeeze(1)
            if len(rows):
                yield rows[scenes.shape[rows, slot].argsort()], slot, _REACH[size]


def _geometry(
    scenes: Scenes, rows: Tensor, slot: int, reach: int, margin: int
) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor, Tensor, Tensor]:
    """Places the windows of M objects of one size.

    Returns:
        Row, top and left (M,) of the windows; x and y (M, reach, reach) in pixels in the object's own axes; and the
        signed distance to its outline in pixels, on a window that begins `margin` pixels further up and left.
    """
    device = rows.device
    centre_x, centre_y, radius = (getattr(scenes, name)[rows, slot] for name in ("x", "y", "radius"))
    left = (centre_x.floor() - reach // 2).clamp_(0, SIDE - reach)
    top = (centre_y.floor() - reach // 2).clamp_(0, SIDE - reach)
    steps = torch.arange(reach + margin, device=device) + (0.5 - margin)
    across = (left - centre_x)[:, None] + steps
    down = (top - centre_y)[:, None] + steps
    cos, sin = _turns(device)[scenes.turn[rows, slot]].unsqueeze(2).unbind(1)
    x = (across * cos)[:, None, :] + (down * sin)[:, :, None]
    y = (across * sin)[:, None, :] - (down * cos)[:, :, None]
    scale = 1.0 / radius[:, None, None]
    unit_x, unit_y = x * scale, y * scale
    # The rows are in order of shape, so that each shape's objects are a slice.
    counts = scenes.shape[rows, slot].bincount(minlength=len(SHAPES)).tolist()
    parts = zip(SHAPES, unit_x.split(counts), unit_y.split(counts), counts, strict=True)
    distance = torch.cat([OUTLINES[name](here, there) for name, here, there, count in parts if count])
    distance *= radius[:, None, None]
    window = rows, top.to(torch.int64), left.to(torch.int64)
    return window, x[:, margin:, margin:], y[:, margin:, margin:], distance


def _marks(texture: Tensor, x: Tensor, y: Tensor, radius: Tensor) -> Tensor:
    """(M, S, S) how much of the texture's second colour each pixel of the objects shows."""
    period = (4.8 + 0.19 * radius)[:, None, None]
    marks = torch.zeros_like(x, memory_format=torch.contiguous_format)
    for index, name in enumerate(TEXTURES):
        mine = (texture == index).nonzero().squeeze(1)
        if name in PATTERNS and len(mine):
            marks[mine] = PATTERNS[name](x[mine], y[mine], period[mine])
    return marks


def _shadow(distance: Tensor) -> Tensor:
    """What a soft shadow leaves of the ground's light; 1 from 2.5 pixels outside of the outline on."""
    depth = (2.5 - distance).mul_(0.2).clamp_(0, 1)
    return 1.0 - (depth * depth).mul_(0.42)


def _colours(scenes: Scenes, rows: Tensor, slot: int, marks: Tensor, distance: Tensor) -> Tensor:
    """(M, 3, S, S) the objects themselves: body and marks, then the rim."""
    index, tint = scenes.colour[rows, slot], scenes.tint[rows, slot]
    body, mark, rim = ((part[index] * tint)[:, :, None, None] for part in _palette(rows.device))
    colours = marks[:, None] * (mark - body)
    colours += body
    return colours.add_((rim - colours).mul_((distance + 1.7).clamp_(0, 1)[:, None]))


def _stamp(ids: Tensor, window: tuple[Tensor, Tensor, Tensor], inside: Tensor, number: int) -> None:
    """Writes `number` into the maps (B, SIDE, SIDE) where an object is."""
    cut = ids.unfold(1, inside.shape[1], 1).unfold(2, inside.shape[2], 1)
    cut[window] = cut[window].masked_fill_(inside, number)


@cache
def _turns(device: torch.device) -> Tensor:
    """(TURNS, 2) cosine and sine; rounded, since the last bit of a sine differs between machines."""
    angles = [math.radians(TILT * (2 * step / (TURNS - 1) - 1)) for step in range(TURNS)]
    return torch.tensor([(round(math.cos(a), 6), round(math.sin(a), 6)) for a in angles], device=device)


@cache
def _palette(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """(12, 3) each: colours of bodies, marks and rims."""
    body, mark, rim = (torch.tensor(part, device=device) for part in (BODY, MARK, RIM))
    return body, mark, rim
