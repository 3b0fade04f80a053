"""Signed distance functions of the shapes, after I. Quilez, "2D distance functions".

Each takes coordinates in units of the object's radius, x to the right and y up, and returns the distance to the
outline in the same units, negative inside. Near the outline the distances are exact or nearly so; deep inside a shape
made of several parts, and far outside a corner, they may fall short. Tips are rounded off at EXTENT from the centre.

Only sums, products, comparisons and square roots occur: these are rounded correctly on every machine, whereas sines
and exponentials differ between a CPU's vector and scalar code, and so between batch sizes.
"""

from collections.abc import Callable

import torch
from torch import Tensor

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
    "circle": circle,
    "ring": ring,
    "crescent": crescent,
    "heart": heart,
    "drop": drop,
    "square": square,
    "triangle": triangle,
    "diamond": diamond,
    "hexagon": hexagon,
    "star": star,
    "cross": cross,
    "arrow": arrow,
}
