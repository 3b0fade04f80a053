"""Features 1 to 30: colours, light and dark, frames."""

from functools import partial

import torch
from torch import Tensor

from neuronx.concepts.visual.feature import Feature, root_share
from neuronx.concepts.visual.planes import COLOURS, Planes


def _many_colours(planes: Planes) -> Tensor:
    shares = planes.shares
    return -(shares * shares.clamp(min=1e-12).log()).sum(1)


def _vivid(planes: Planes) -> Tensor:
    _, saturation, value = planes.hsv
    return (saturation > 0.6) & (value > 0.4)


def _ring(planes: Planes, cells: int = 1, of: int = 8) -> Tensor:
    """(S, S) bool, the outer cells of a grid."""
    side = planes.rgb.shape[-1]
    place = torch.arange(side, device=planes.rgb.device) * of // side
    inner = (place >= cells) & (place < of - cells)
    return ~(inner[:, None] & inner)


def _colourfulness(planes: Planes) -> Tensor:
    """Hasler and Suesstrunk (2003), on red less green and yellow less blue."""
    opponents = planes.opponents.flatten(2)
    return opponents.std(2).norm(dim=1) + 0.3 * opponents.mean(2).norm(dim=1)


def _frame(planes: Planes, width: int = 8) -> Tensor:
    """(B, n) lightness of the outer pixels."""
    light = planes.light[0][:, 0]
    side = light.shape[-1]
    place = torch.arange(side, device=light.device)
    inner = (place >= width) & (place < side - width)
    return light[:, ~(inner[:, None] & inner)]


def _top_less_bottom(planes: Planes) -> Tensor:
    light = planes.light[0][:, 0]
    third = max(1, light.shape[1] // 3)
    return light[:, :third].mean((1, 2)) - light[:, -third:].mean((1, 2))


def _warm(planes: Planes) -> Tensor:
    red_green, yellow_blue = planes.opponents.mean((2, 3)).unbind(1)
    return yellow_blue + 0.5 * red_green


COLOUR_FEATURES = (
    *(
        Feature(
            name,
            f"little {name}",
            "colours",
            f"square root of the share of {name} pixels",
            partial(lambda planes, place: planes.shares[:, place].sqrt(), place=place),
            partial(lambda planes, place: planes.colours == place, place=place),
        )
        for place, name in enumerate(COLOURS)
    ),
    Feature("many colours", "few colours", "global look", "entropy of the shares of thirteen colours", _many_colours),
    Feature(
        "vivid colours",
        "few vivid colours",
        "global look",
        "square root of the share of pixels of saturation above .6 and value above .4",
        lambda planes: root_share(_vivid(planes)),
        lambda planes: _vivid(planes),
    ),
    Feature(
        "vivid colours in the centre",
        "no vivid colours in the centre",
        "global look",
        "the same of the inner quarter",
        lambda planes: root_share(_vivid(planes)[:, ~_ring(planes, 2)]),
    ),
    Feature(
        "vivid colours at the border",
        "no vivid colours at the border",
        "global look",
        "the same of the outer eighth on each side",
        lambda planes: root_share(_vivid(planes)[:, _ring(planes)]),
    ),
    Feature("colourful", "not colourful", "global look", "colourfulness of Hasler and Suesstrunk", _colourfulness),
    Feature("warm colours", "cold colours", "global look", "yellow less blue, and half of red less green", _warm),
    Feature(
        "reddish",
        "greenish",
        "global look",
        "mean of red less green",
        lambda planes: planes.opponents[:, 0].mean((1, 2)),
    ),
    Feature(
        "pale or grey colours",
        "saturated colours",
        "global look",
        "minus the mean saturation",
        lambda planes: -planes.hsv[1].mean((1, 2)),
    ),
    Feature("bright", "not bright", "global look", "mean lightness", lambda planes: planes.light[0].mean((1, 2, 3))),
    Feature(
        "strong contrast",
        "weak contrast",
        "global look",
        "standard deviation of lightness",
        lambda planes: planes.light[0].flatten(1).std(1),
    ),
    Feature(
        "pale areas",
        "few pale areas",
        "global look",
        "square root of the share of pixels lighter than .7 of saturation below .3",
        lambda planes: root_share((planes.light[0][:, 0] > 0.7) & (planes.hsv[1] < 0.3)),
        lambda planes: (planes.light[0][:, 0] > 0.7) & (planes.hsv[1] < 0.3),
    ),
    Feature(
        "dark areas",
        "few dark areas",
        "global look",
        "square root of the share of pixels darker than .25",
        lambda planes: root_share(planes.light[0][:, 0] < 0.25),
        lambda planes: planes.light[0][:, 0] < 0.25,
    ),
    Feature(
        "glaring highlights",
        "no glaring highlights",
        "global look",
        "square root of the share of pixels lighter than .95",
        lambda planes: root_share(planes.light[0][:, 0] > 0.95),
        lambda planes: planes.light[0][:, 0] > 0.95,
    ),
    Feature(
        "brighter at the top than at the bottom",
        "brighter at the bottom than at the top",
        "global look",
        "lightness of the upper third less that of the lower",
        _top_less_bottom,
    ),
    Feature(
        "a plain frame",
        "a border full of detail",
        "frames",
        "minus the standard deviation of lightness of the outer 8 pixels",
        lambda planes: -_frame(planes).std(1),
    ),
    Feature(
        "a white frame",
        "no white frame",
        "frames",
        "square root of the share of the outer 8 pixels lighter than .93",
        lambda planes: root_share(_frame(planes) > 0.93),
    ),
    Feature(
        "a black frame",
        "no black frame",
        "frames",
        "square root of the share of the outer 8 pixels darker than .1",
        lambda planes: root_share(_frame(planes) < 0.1),
    ),
)
