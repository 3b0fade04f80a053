"""For each feature a made picture that shows it and one that does not: for tests, and for people."""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from neuronx.concepts.visual.planes import COLOURS, DIRECTIONS, SCALES, blurred

SIDE = 224

RGB = {
    "black": (0.05, 0.05, 0.05),
    "white": (0.95, 0.95, 0.95),
    "grey": (0.5, 0.5, 0.5),
    "red": (0.85, 0.1, 0.1),
    "pink": (0.95, 0.35, 0.75),
    "beige": (0.9, 0.8, 0.65),
    "brown": (0.45, 0.28, 0.12),
    "orange": (0.95, 0.55, 0.1),
    "yellow": (0.95, 0.9, 0.15),
    "green": (0.15, 0.7, 0.2),
    "cyan": (0.1, 0.8, 0.85),
    "blue": (0.1, 0.25, 0.85),
    "purple": (0.55, 0.15, 0.8),
}
"""A clear example of each of COLOURS."""


def plain(colour: str = "grey") -> Tensor:
    """(3, S, S) of one colour."""
    return torch.tensor(RGB[colour])[:, None, None].expand(3, SIDE, SIDE).clone()


def patch(colour: str, ground: str = "grey", size: int = 120) -> Tensor:
    """A square of a colour in the middle."""
    return _with(plain(ground), _middle(size), colour)


def grating(direction: str, wavelength: float, contrast: float = 0.3) -> Tensor:
    """A wave of lightness whose lines have a direction."""
    across, _ = _turned(direction)
    return (0.5 + contrast * torch.sin(2 * math.pi * across / wavelength)).expand(3, SIDE, SIDE).clone()


def few_lines(direction: str, light: float, ground: float, width: float = 1.2, apart: int = 40) -> Tensor:
    """Thin lines of a direction, far apart."""
    across, _ = _turned(direction)
    near = ((across.remainder(apart)) - apart / 2).abs() <= width
    return torch.where(near, light, ground).expand(3, SIDE, SIDE).clone()


def dots(light: float, ground: float, radius: float, apart: int, colour: str | None = None) -> Tensor:
    """Round dots on a square lattice, grey or of a colour."""
    y, x = _places()
    near = (((x % apart) - apart / 2).square() + ((y % apart) - apart / 2).square()).sqrt() <= radius
    if colour is not None:
        return _with(torch.full((3, SIDE, SIDE), ground), near, colour)
    return torch.where(near, light, ground).expand(3, SIDE, SIDE).clone()


def checks(side: int, turned: bool = False) -> Tensor:
    """A board of light and dark squares."""
    y, x = _places()
    across, down = (x + y, x - y) if turned else (x, y)
    odd = ((across // side) + (down // side)) % 2
    return (0.2 + 0.6 * odd).expand(3, SIDE, SIDE).clone()


def noise(blur: float = 0, contrast: float = 0.25, seed: int = 0) -> Tensor:
    """Random lightness, blurred, of a given standard deviation."""
    values = torch.randn(1, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
    values = blurred(values, blur) if blur else values
    return (0.5 + contrast * values[0] / values.std()).clamp(0, 1).expand(3, SIDE, SIDE).clone()


def gradient() -> Tensor:
    """Light at the top, dark at the bottom."""
    return torch.linspace(0.9, 0.1, SIDE)[:, None].expand(3, SIDE, SIDE).clone()


def framed(colour: str, inside: Tensor, width: int = 8) -> Tensor:
    """A picture within a frame."""
    return _with(inside, ~_middle(SIDE - 2 * width), colour)


def mosaic(side: int = 28) -> Tensor:
    """Squares of all colours."""
    y, x = _places()
    which = (x // side + 5 * (y // side)).long() % len(COLOURS)
    return torch.tensor([RGB[name] for name in COLOURS]).T[:, which]


def mirrored() -> Tensor:
    """A picture and its mirror image, side by side."""
    half = noise(6)[..., : SIDE // 2]
    return torch.cat([half, half.flip(-1)], -1)


def half(upper: Tensor, lower: Tensor) -> Tensor:
    """The upper half of one picture over the lower half of another."""
    return torch.cat([upper[:, : SIDE // 2], lower[:, SIDE // 2 :]], 1)


def example(name: str) -> tuple[Tensor, Tensor]:
    """The pictures (3, 224, 224) of a feature by its name: one that shows it, one that does not."""
    return _EXAMPLES[name]()


def _places() -> tuple[Tensor, Tensor]:
    y, x = torch.meshgrid(torch.arange(SIDE).float(), torch.arange(SIDE).float(), indexing="ij")
    return y, x


def _middle(size: int) -> Tensor:
    y, x = _places()
    low, high = (SIDE - size) / 2, (SIDE + size) / 2
    return (y >= low) & (y < high) & (x >= low) & (x < high)


def _with(picture: Tensor, mask: Tensor, colour: str) -> Tensor:
    return torch.where(mask, torch.tensor(RGB[colour])[:, None, None], picture)


def _turned(direction: str) -> tuple[Tensor, Tensor]:
    y, x = _places()
    angle = DIRECTIONS.index(direction) * math.pi / 4
    return x * math.sin(angle) + y * math.cos(angle), x * math.cos(angle) - y * math.sin(angle)


WAVELENGTHS = {"fine": 4.5, "medium": 9.0, "coarse": 18.0}
"""In pixels, of the lines of each scale."""

_OPPOSITE = dict(zip(DIRECTIONS, (*DIRECTIONS[2:], *DIRECTIONS[:2]), strict=True))

Pair = Callable[[], tuple[Tensor, Tensor]]

_EXAMPLES: dict[str, Pair] = {
    **{c: partial(lambda c: (patch(c), plain("red" if c == "grey" else "grey")), c) for c in COLOURS},
    "many colours": lambda: (mosaic(), plain("red")),
    "vivid colours": lambda: (patch("red"), patch("beige")),
    "vivid colours in the centre": lambda: (patch("red", size=80), framed("red", plain(), 28)),
    "vivid colours at the border": lambda: (framed("red", plain(), 28), patch("red", size=80)),
    "colourful": lambda: (mosaic(), noise(4)),
    "warm colours": lambda: (plain("orange"), plain("blue")),
    "reddish": lambda: (plain("red"), plain("green")),
    "pale or grey colours": lambda: (plain("grey"), plain("red")),
    "bright": lambda: (plain("white"), plain("black")),
    "strong contrast": lambda: (checks(28), plain()),
    "pale areas": lambda: (patch("white"), plain("brown")),
    "dark areas": lambda: (patch("black"), plain("white")),
    "glaring highlights": lambda: (dots(1.0, 0.4, 8, 60), dots(0.8, 0.4, 8, 60)),
    "brighter at the top than at the bottom": lambda: (gradient(), gradient().flip(1)),
    "a plain frame": lambda: (framed("grey", noise()), noise()),
    "a white frame": lambda: (framed("white", noise()), noise()),
    "a black frame": lambda: (framed("black", noise()), noise()),
    **{
        f"{s} texture and edges": partial(lambda w: (checks(round(w / 2)), gradient()), w)
        for s, w in WAVELENGTHS.items()
    },
    **{
        f"{s} {d} lines": partial(lambda w, d: (grating(d, w), grating(_OPPOSITE[d], w)), w, d)
        for s, w in WAVELENGTHS.items()
        for d in DIRECTIONS
    },
    **{
        f"mostly {d} lines, {s}": partial(lambda w, d: (grating(d, w), grating(_OPPOSITE[d], w)), w, d)
        for s, w in WAVELENGTHS.items()
        for d in DIRECTIONS
    },
    **{
        f"fine bright {d} lines on dark": partial(lambda d: (few_lines(d, 0.9, 0.2), few_lines(d, 0.2, 0.9)), d)
        for d in DIRECTIONS
    },
    **{
        f"fine dark {d} lines on bright": partial(lambda d: (few_lines(d, 0.2, 0.9), few_lines(d, 0.9, 0.2)), d)
        for d in DIRECTIONS
    },
    **{
        f"{s} clear lines rather than texture": partial(lambda w: (grating("vertical", w), noise(w / 6)), w)
        for s, w in WAVELENGTHS.items()
    },
    **{
        f"{s} lines of one direction": partial(lambda w: (grating("rising diagonal", w), noise(w / 6)), w)
        for s, w in WAVELENGTHS.items()
    },
    **{
        f"{s} crossing lines": partial(lambda w: (noise(w / 6), grating("horizontal", w)), w)
        for s, w in WAVELENGTHS.items()
    },
    **{f"few strong {s} edges on plain ground": lambda: (patch("black", "white"), noise()) for s in SCALES},
    **{
        f"{s} {k} dots": partial(lambda s, k: (_dots(s, k), _dots(s, "dark" if k == "bright" else "bright")), s, k)
        for s in ("fine", "coarse")
        for k in ("bright", "dark")
    },
    "fine corners": lambda: (checks(8), grating("vertical", 16)),
    "coarse corners": lambda: (checks(16), grating("vertical", 32)),
    **{f"{s} red-green contours": lambda: (patch("red", "green"), patch("yellow", "blue")) for s in ("fine", "coarse")},
    **{
        f"{s} yellow-blue contours": lambda: (patch("yellow", "blue"), patch("white", "black"))
        for s in ("fine", "coarse")
    },
    **{
        f"{s} {c} spots on other colours": partial(lambda s, c: (_spots(s, c), _spots(s, "white")), s, c)
        for s in ("fine", "coarse")
        for c in ("red", "green", "yellow", "blue")
    },
    "sharp": lambda: (noise(), noise(4)),
    "a smooth background": lambda: (patch("red"), noise()),
    "a smooth border": lambda: (framed("grey", noise(), 28), noise()),
    "smooth at the top": lambda: (half(plain(), noise()), half(noise(), plain())),
    "smooth at the bottom": lambda: (half(noise(), plain()), half(plain(), noise())),
    "smooth pale areas": lambda: (plain("white"), plain("grey")),
    "smooth dark areas": lambda: (plain("black"), plain("grey")),
    "smooth vivid areas": lambda: (plain("red"), plain("grey")),
    "smooth blue areas": lambda: (plain("blue"), plain("red")),
    "edges nearly everywhere": lambda: (noise(), patch("black", "white")),
    "dense strong edges": lambda: (checks(4), noise(4, 0.05)),
    **{f"{d} stripes": partial(lambda d: (grating(d, 6), grating(_OPPOSITE[d], 6)), d) for d in DIRECTIONS},
    "a grid or mesh": lambda: (_mesh(), grating("vertical", 8)),
    "stripes over much of the picture": lambda: (grating("vertical", 6), noise()),
    "left-right symmetry": lambda: (mirrored(), noise(6)),
    "only light and dark": lambda: (checks(28).sub(0.5).mul(1.4).add(0.5), plain("grey")),
}


def _dots(scale: str, kind: str) -> Tensor:
    light, ground = (0.9, 0.3) if kind == "bright" else (0.3, 0.9)
    return dots(light, ground, 1.7, 16) if scale == "fine" else dots(light, ground, 6, 40)


def _spots(scale: str, colour: str) -> Tensor:
    return dots(0, 0.5, 3, 20, colour) if scale == "fine" else dots(0, 0.5, 10, 56, colour)


def _mesh() -> Tensor:
    """Thin lines of two directions."""
    return torch.maximum(few_lines("horizontal", 0.9, 0.2, 1, 8), few_lines("vertical", 0.9, 0.2, 1, 8))
