"""Features 78 to 114: dots, corners, colour contours and spots, smooth areas, stripes, grids, symmetry."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from neuronx.concepts.visual.feature import Feature, log_mean, root_share
from neuronx.concepts.visual.planes import COLOURS, DIRECTIONS, Planes, blurred

SMOOTH = 0.02
"""Lightness that deviates less than this around a pixel is smooth."""

BEST = 3
"""Windows whose stripes count."""


def _corners(planes: Planes, sigma: float) -> Tensor:
    """Square root of Harris's measure with k = .05, where it is positive: (B, S, S)."""
    light = blurred(planes.light[0], sigma)
    dy, dx = torch.gradient(light, dim=(2, 3))
    products = blurred(torch.cat([dx * dx, dy * dy, dx * dy], 1), sigma)
    xx, yy, xy = products.unbind(1)
    return F.relu(xx * yy - xy.square() - 0.05 * (xx + yy).square()).sqrt()


def _contours(planes: Planes, number: int, scale: str) -> Tensor:
    """Slope of a pair of opponent colours after a blur of 1: (B, s, s)."""
    opponent = planes.opponents[:, number : number + 1]
    opponent = blurred(F.avg_pool2d(opponent, 4) if scale == "coarse" else opponent, 1)
    dy, dx = torch.gradient(opponent, dim=(2, 3))
    return (dx.abs() + dy.abs())[:, 0]


def _spots(planes: Planes, number: int, sign: int, scale: str) -> Tensor:
    """Square of how far (of 10) a colour exceeds its surroundings, blurred by 3: (B, s, s)."""
    opponent = sign * planes.opponents[:, number : number + 1]
    opponent = F.avg_pool2d(opponent, 4) if scale == "coarse" else opponent
    return F.relu(10 * (opponent - blurred(opponent, 3))).square()[:, 0]


def _smooth(planes: Planes) -> Tensor:
    return planes.local_std < SMOOTH


def _blue(planes: Planes) -> Tensor:
    return (planes.colours == COLOURS.index("blue")) | (planes.colours == COLOURS.index("cyan"))


def _vivid(planes: Planes) -> Tensor:
    return (planes.hsv[1] > 0.45) & (planes.hsv[2] > 0.35)


def _border(planes: Planes) -> Tensor:
    side = planes.rgb.shape[-1]
    place = torch.arange(side, device=planes.rgb.device) * 8 // side
    inner = (place > 0) & (place < 7)
    return ~(inner[:, None] & inner)


def _best_windows(values: Tensor) -> Tensor:
    return values.topk(min(BEST, values.shape[1]), 1).values.mean(1)


def _grid(planes: Planes) -> Tensor:
    """Windows that repeat themselves in all four directions, which stripes do not in their own: (B,)."""
    return _best_windows(planes.repeats.amin(2))


def _symmetry(planes: Planes) -> Tensor:
    """Correlation of lightness (28, 28) with its mirror image: (B,)."""
    small = F.adaptive_avg_pool2d(planes.light[0], 28).flatten(1)
    mirrored = F.adaptive_avg_pool2d(planes.light[0].flip(3), 28).flatten(1)
    small, mirrored = (x - x.mean(1, keepdim=True) for x in (small, mirrored))
    return (small * mirrored).sum(1) / (small.norm(dim=1) * mirrored.norm(dim=1)).clamp(min=1e-6)


def _sharp(planes: Planes) -> Tensor:
    return log_mean(planes.energy[0].mean(1)) - log_mean(planes.energy[2].mean(1))


SURFACE_FEATURES = (
    *(
        Feature(
            f"{scale} {kind} dots",
            f"few {scale} {kind} dots",
            "dots and corners",
            f"logarithm of the mean root of the Hessian's determinant where lightness is {shape}, {scale} scale",
            partial(lambda planes, scale, n: log_mean(planes.dots[scale][n]), scale=scale, n=number),
            partial(lambda planes, scale, n: planes.dots[scale][n], scale=scale, n=number),
        )
        for scale in ("fine", "coarse")
        for number, (kind, shape) in enumerate((("bright", "a peak"), ("dark", "a pit")))
    ),
    *(
        Feature(
            f"{scale} corners",
            f"few {scale} corners",
            "dots and corners",
            f"logarithm of the mean root of Harris's measure, sigma {sigma}",
            partial(lambda planes, sigma: log_mean(_corners(planes, sigma)), sigma=sigma),
            partial(lambda planes, sigma: _corners(planes, sigma), sigma=sigma),
        )
        for scale, sigma in (("fine", 1.2), ("coarse", 2.0))
    ),
    *(
        Feature(
            f"{scale} {colours} contours",
            f"few {scale} {colours} contours",
            "colour contours and spots",
            f"logarithm of the mean slope of {colours} after a blur of 1, {scale} scale",
            partial(
                lambda planes, n, coarse: log_mean(_contours(planes, n, coarse)), n=number, coarse=scale == "coarse"
            ),
            partial(lambda planes, n, coarse: _contours(planes, n, coarse), n=number, coarse=scale == "coarse"),
        )
        for scale in ("fine", "coarse")
        for number, colours in enumerate(("red-green", "yellow-blue"))
    ),
    *(
        Feature(
            f"{scale} {colour} spots on other colours",
            f"few {scale} {colour} spots",
            "colour contours and spots",
            f"logarithm of the mean square by which {colour} exceeds its surroundings, {scale} scale",
            partial(
                lambda planes, n, sign, scale: log_mean(_spots(planes, n, sign, scale)), n=n, sign=sign, scale=scale
            ),
            partial(_spots, number=n, sign=sign, scale=scale),
        )
        for scale in ("fine", "coarse")
        for colour, n, sign in (("red", 0, 1), ("green", 0, -1), ("yellow", 1, 1), ("blue", 1, -1))
    ),
    Feature("sharp", "blurred", "global look", "logarithm of fine energy less that of coarse energy", _sharp),
    Feature(
        "a smooth background",
        "no smooth background",
        "smoothness",
        "square root of the share of pixels around which lightness deviates by less than .02",
        lambda planes: root_share(_smooth(planes)),
        _smooth,
    ),
    Feature(
        "a smooth border",
        "no smooth border",
        "smoothness",
        "the same of the outer eighth on each side",
        lambda planes: root_share(_smooth(planes)[:, _border(planes)]),
    ),
    Feature(
        "smooth at the top",
        "not smooth at the top",
        "smoothness",
        "the same of the upper third",
        lambda planes: root_share(_smooth(planes)[:, : planes.rgb.shape[-1] // 3]),
    ),
    Feature(
        "smooth at the bottom",
        "not smooth at the bottom",
        "smoothness",
        "the same of the lower third",
        lambda planes: root_share(_smooth(planes)[:, -(planes.rgb.shape[-1] // 3) :]),
    ),
    *(
        Feature(
            f"smooth {kind} areas",
            f"few smooth {kind} areas",
            "smoothness",
            f"square root of the share of smooth pixels that are {meaning}",
            partial(lambda planes, mask: root_share(_smooth(planes) & mask(planes)), mask=mask),
            partial(lambda planes, mask: _smooth(planes) & mask(planes), mask=mask),
        )
        for kind, meaning, mask in (
            ("pale", "lighter than .65 around them", lambda planes: planes.local_mean > 0.65),
            ("dark", "darker than .25 around them", lambda planes: planes.local_mean < 0.25),
            ("vivid", "of saturation above .45 and value above .35", _vivid),
            ("blue", "blue or cyan", _blue),
        )
    ),
    Feature(
        "edges nearly everywhere",
        "edges in few places",
        "texture",
        "share of pixels around which lightness deviates by more than .06",
        lambda planes: (planes.local_std > 0.06).float().mean((1, 2)),
        lambda planes: planes.local_std > 0.06,
    ),
    Feature(
        "dense strong edges",
        "no dense strong edges",
        "texture",
        "square root of the share of pixels around which lightness deviates by more than .15",
        lambda planes: root_share(planes.local_std > 0.15),
        lambda planes: planes.local_std > 0.15,
    ),
    *(
        Feature(
            f"{direction} stripes",
            f"no {direction} stripes",
            "stripes and grids",
            f"share of the power of windows of 48 pixels in the highest peak of {direction} stripes, best 3 windows",
            partial(lambda planes, d: _best_windows(planes.windows[0][..., d]), d=d),
        )
        for d, direction in enumerate(DIRECTIONS)
    ),
    Feature(
        "a grid or mesh",
        "no grid or mesh",
        "stripes and grids",
        "rise of the autocorrelation of 48 pixels' windows within 22, weakest of four directions, best 3 windows",
        _grid,
    ),
    Feature(
        "stripes over much of the picture",
        "no stripes over the picture",
        "stripes and grids",
        "share of the power of windows in the highest peak of stripes of any direction, mean over all windows",
        lambda planes: planes.windows[1].mean(1),
    ),
    Feature(
        "left-right symmetry",
        "no left-right symmetry",
        "symmetry",
        "correlation of lightness on 28 x 28 cells with its mirror image",
        _symmetry,
    ),
    Feature(
        "only light and dark",
        "many tones between light and dark",
        "global look",
        "share of pixels darker than .2 or lighter than .8",
        lambda planes: ((planes.light[0] < 0.2) | (planes.light[0] > 0.8)).float().mean((1, 2, 3)),
    ),
)
