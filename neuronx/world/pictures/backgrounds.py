"""What colours look like, and the grounds: for each kind one large procedural sheet, made once.

A picture shows a window of the sheet in its own light. As everywhere in this world, only correctly rounded operations
are used, so that the sheets are the same everywhere.
"""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from neuronx.targets.latents import uniforms
from neuronx.world.pictures.names import BACKGROUNDS, COLOURS
from neuronx.world.pictures.scene import SHEET, SIDE, Scenes

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
