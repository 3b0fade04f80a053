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

from neuronx.targets.latents import uniforms
from neuronx.world.pictures.scene import (
    BACKGROUNDS,
    COLOURS,
    OBJECTS,
    SHAPES,
    SHEET,
    SIDE,
    SIZES,
    TEXTURES,
    TURNS,
    Scenes,
)

# Body, marks of the texture, and rim of an object, as hexadecimal sRGB.
_PALETTE = {
    "red": ("e0303a", "ffc4bf", "8a1820"),
    "orange": ("f98a1c", "ffe6c4", "a6500a"),
    "yellow": ("fbdc2c", "a87f00", "a87f00"),
    "pink": ("ff80bd", "ffe4f2", "b23a7c"),
    "green": ("2fa84f", "c9f2cf", "145c2c"),
    "cyan": ("20c6d2", "d6fbff", "0b737e"),
    "blue": ("2a5be0", "c3d6ff", "132e7c"),
    "purple": ("8b3fd1", "e6cffc", "491a78"),
    "brown": ("7d4b26", "e6cba6", "422410"),
    "black": ("1e1e24", "9a9aa6", "60606c"),
    "white": ("fcfcfa", "b4c2d6", "7f8892"),
    "grey": ("a3a8ae", "5f656d", "4c5157"),
}


def rgb(code: str) -> tuple[float, float, float]:
    """Turns `rrggbb` into red, green and blue in [0, 1]."""
    red, green, blue = bytes.fromhex(code)
    return red / 255, green / 255, blue / 255


BODY, MARK, RIM = ([rgb(_PALETTE[colour][part]) for colour in COLOURS] for part in range(3))
"""One (red, green, blue) for each of COLOURS."""


@cache
def sheets(device: torch.device) -> Tensor:
    """(K, 3, SHEET, SHEET) float32 in [0, 1]: one sheet for each of BACKGROUNDS."""
    return torch.stack([_SHEETS[name]() for name in BACKGROUNDS]).to(device)


def windows(scenes: Scenes) -> Tensor:
    """The backgrounds of B scenes, (B, 3, SIDE, SIDE) float32."""
    cut = sheets(scenes.background.device).unfold(2, SIDE, 1).unfold(3, SIDE, 1)
    picture = cut[scenes.background, :, scenes.window[:, 0], scenes.window[:, 1]]
    return picture.mul_(scenes.light[:, None, None, None])


def _noise(seed: int, rows: int, columns: int) -> Tensor:
    """(SHEET, SHEET) smooth noise in [0, 1] that takes random values at rows x columns points."""
    grid = uniforms(seed, torch.arange(rows + 1), columns + 1)

    def stretch(values: Tensor, cells: int) -> Tensor:
        at = torch.arange(SHEET) * (cells / SHEET)
        low = at.to(torch.int64)
        t = at - low
        t = (t * t * (3.0 - 2.0 * t))[:, None]
        return values[low] + (values[low + 1] - values[low]) * t

    return stretch(stretch(grid, rows).T.contiguous(), columns).T.contiguous()


def _axes() -> tuple[Tensor, Tensor]:
    """The pixel rows (SHEET, 1) and columns (1, SHEET)."""
    line = torch.arange(SHEET, dtype=torch.float32)
    return line[:, None], line[None]


def _between(start: str, end: str, share: Tensor) -> Tensor:
    """Mixes two colours by `share` (SHEET, SHEET), limited to [0, 1]."""
    a, b = torch.tensor(rgb(start))[:, None, None], torch.tensor(rgb(end))[:, None, None]
    return a + (b - a) * share.clamp(0, 1).expand(SHEET, SHEET)


def _over(picture: Tensor, colour: str, share: Tensor) -> Tensor:
    """Paints a colour over a picture where `share` is 1."""
    return picture + (torch.tensor(rgb(colour))[:, None, None] - picture) * share.clamp(0, 1)


def _wave(t: Tensor) -> Tensor:
    """A smooth wave of period 1 in [0, 1], from parabolas."""
    t = (t - t.floor()) * 2.0 - 1.0
    return 4.0 * t.abs() * (1.0 - t.abs()) * torch.sign(t) * 0.5 + 0.5


def _sky() -> Tensor:
    down, _ = _axes()
    clouds = 0.6 * _noise(11, 7, 5) + 0.3 * _noise(12, 14, 10) + 0.1 * _noise(13, 32, 24)
    return _over(_between("6db3ea", "c4e3f7", down / SHEET), "ffffff", (clouds - 0.5) * 4.0)


def _grass() -> Tensor:
    blades = 0.55 * _noise(21, 20, 64) + 0.45 * _noise(22, 32, 100)
    return _over(_between("3f7a34", "9ac763", blades * 1.5 - 0.25), "2f6a30", 0.5 * _noise(23, 5, 5))


def _sand() -> Tensor:
    down, _ = _axes()
    ripples = _wave((down + 9.0 * _noise(31, 6, 4)) / 11.0)
    return _between("cdb27c", "f0dfb2", 0.55 * ripples + 0.45 * _noise(32, 120, 120))


def _brick() -> Tensor:
    down, right = _axes()
    row = (down / 10.0).floor()
    across = (right + (row % 2) * 11.0) / 22.0
    tone = uniforms(41, row.to(torch.int64).flatten() % 64, 16)[
        torch.arange(SHEET)[:, None], across.floor().to(torch.int64)
    ]
    picture = _between("8f4b3b", "c07a62", tone * 0.8 + 0.2 * _noise(42, 90, 90))
    joint = torch.minimum((down - row * 10.0).expand(SHEET, SHEET), (across - across.floor()) * 22.0)
    return _over(picture, "d9cdc0", 1.7 - joint)


def _water() -> Tensor:
    down, _ = _axes()
    swell = 12.0 * _noise(51, 10, 5) + 5.0 * _noise(52, 20, 12)
    crest = _wave((down + swell) / 9.0)
    return _over(_between("236a94", "4f9fc4", crest), "d4eef6", (crest * _noise(53, 24, 10) - 0.55) * 4.0)


def _night() -> Tensor:
    down, right = _axes()
    picture = _between("0d1230", "2b2f63", down / SHEET + 0.3 * _noise(61, 5, 5))
    spots = uniforms(62, torch.arange(110), 3)
    y, x, size = (spots[:, i, None, None] for i in range(3))
    y, x = y * SHEET, x * SHEET
    distance = ((down - y) * (down - y) + (right - x) * (right - x)).sqrt()
    return _over(picture, "f4f1d8", (0.4 + size * 1.1 - distance).amax(0))


def _wood() -> Tensor:
    down, _ = _axes()
    plank = (down / 18.0).floor()
    tone = uniforms(71, plank.to(torch.int64).flatten(), 1)
    grain = 0.5 * _noise(72, 50, 4) + 0.3 * _noise(73, 110, 9) + 0.35 * tone
    picture = _between("8f5f38", "d6aa74", grain)
    return _over(picture, "5b391f", 0.75 * (1.6 - (down - plank * 18.0)))


def _paper() -> Tensor:
    down, _ = _axes()
    line = (down / 9.0 - (down / 9.0).floor()) * 9.0
    return _over(_between("efe9da", "faf7ee", _noise(81, 70, 70)), "9fb8d6", (1.4 - line) * 0.8)


_SHEETS: dict[str, Callable[[], Tensor]] = dict(
    sky=_sky, grass=_grass, sand=_sand, brick=_brick, water=_water, night=_night, wood=_wood, paper=_paper
)


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
"""Version of the renderer; increase it when any pixel changes, since weights trained on the world depend on it."""

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
