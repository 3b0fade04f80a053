"""Features 31 to 77: texture and edges, lines of four directions, bright and dark lines, crossings."""

from functools import partial

from torch import Tensor

from neuronx.concepts.visual.feature import Feature, log_mean
from neuronx.concepts.visual.planes import DIRECTIONS, EPSILON, SCALES, Planes


def _energy(planes: Planes, scale: int) -> Tensor:
    """(B, s, s) energy, mean over directions."""
    return planes.energy[scale].mean(1)


def _clear(planes: Planes, scale: int) -> Tensor:
    energy = planes.energy[scale]
    return (energy.amax(1) - energy.mean(1)).mean((1, 2)) / (energy.mean((1, 2, 3)) + EPSILON)


def _relative(planes: Planes, scale: int) -> Tensor:
    """(B, 4) energy of each direction over the mean of all."""
    means = planes.mean_energy[scale]
    return means / (means.mean(1, keepdim=True) + EPSILON)


def _few_strong(planes: Planes, scale: int) -> Tensor:
    energy = _energy(planes, scale).flatten(1)
    return energy.std(1) / (energy.mean(1) + EPSILON)


LINE_FEATURES = (
    *(
        Feature(
            f"{scale} texture and edges",
            f"little {scale} texture",
            "texture",
            f"logarithm of the mean energy of all directions, {scale} scale",
            partial(lambda planes, s: log_mean(_energy(planes, s)), s=s),
            partial(lambda planes, s: _energy(planes, s), s=s),
        )
        for s, scale in enumerate(SCALES)
    ),
    *(
        Feature(
            f"{scale} {direction} lines",
            f"few {scale} {direction} lines",
            "lines",
            f"logarithm of the mean energy of {direction} lines, {scale} scale",
            partial(lambda planes, s, d: log_mean(planes.energy[s][:, d]), s=s, d=d),
            partial(lambda planes, s, d: planes.energy[s][:, d], s=s, d=d),
        )
        for s, scale in enumerate(SCALES)
        for d, direction in enumerate(DIRECTIONS)
    ),
    *(
        Feature(
            f"mostly {direction} lines, {scale}",
            f"lines other than {direction}, {scale}",
            "relative direction",
            f"energy of {direction} lines over the mean of four directions, {scale} scale",
            partial(
                lambda planes, s, d: planes.mean_energy[s][:, d] / (planes.mean_energy[s].mean(1) + EPSILON), s=s, d=d
            ),
        )
        for s, scale in enumerate(SCALES)
        for d, direction in enumerate(DIRECTIONS)
    ),
    *(
        Feature(
            f"fine {kind} {direction} lines on {ground}",
            f"few fine {kind} {direction} lines",
            "bright and dark lines",
            f"logarithm of the mean of relu({'' if number == 0 else '-'}line - |edge|)^2 across {direction} lines",
            partial(lambda planes, n, d: log_mean(planes.lines[n][:, d] * 100), n=number, d=d),
            partial(lambda planes, n, d: planes.lines[n][:, d].sqrt(), n=number, d=d),
        )
        for number, (kind, ground) in enumerate((("bright", "dark"), ("dark", "bright")))
        for d, direction in enumerate(DIRECTIONS)
    ),
    *(
        Feature(
            f"{scale} clear lines rather than texture",
            f"{scale} texture rather than clear lines",
            "texture",
            f"how far the strongest direction exceeds the mean, place by place, over the mean, {scale} scale",
            partial(lambda planes, s: _clear(planes, s), s=s),
        )
        for s, scale in enumerate(SCALES)
    ),
    *(
        Feature(
            f"{scale} lines of one direction",
            f"{scale} lines of all directions",
            "relative direction",
            f"energy of the strongest direction over the mean, {scale} scale",
            partial(lambda planes, s: _relative(planes, s).amax(1), s=s),
        )
        for s, scale in enumerate(SCALES)
    ),
    *(
        Feature(
            f"{scale} crossing lines",
            f"few {scale} crossing lines",
            "texture",
            f"logarithm of the mean of the weakest direction's energy, place by place, {scale} scale",
            partial(lambda planes, s: log_mean(planes.energy[s].amin(1)), s=s),
            partial(lambda planes, s: planes.energy[s].amin(1), s=s),
        )
        for s, scale in enumerate(SCALES)
    ),
    *(
        Feature(
            f"few strong {scale} edges on plain ground",
            f"{scale} edges everywhere alike",
            "texture",
            f"standard deviation of energy over places over its mean, {scale} scale",
            partial(lambda planes, s: _few_strong(planes, s), s=s),
        )
        for s, scale in enumerate(SCALES)
    ),
)
