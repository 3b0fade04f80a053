"""The marks of the textures: where on an object the second colour shows."""

from collections.abc import Callable

from torch import Tensor

_DIAGONAL = 0.707107


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


MARKS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "striped": striped,
    "dotted": dotted,
    "checkered": checkered,
}
"""Each takes x and y in pixels from the object's centre and the period (M, 1, 1) in pixels, and returns how much of
the mark covers the pixel, in [0, 1]. Plain objects have none."""
