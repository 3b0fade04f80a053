"""A named feature of pictures: what it is called, how it is defined, and how it is computed."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from neuronx.concepts.visual.planes import EPSILON, Planes


@dataclass(frozen=True)
class Feature:
    """A feature of pictures that is computed from pixels.

    Attributes:
        name: In words.
        little: What a picture with little of it is called.
        group: The kind of features that it belongs to.
        definition: How it is computed, in words; pictures are RGB in [0, 1] of 224 pixels.
        value: From the planes of B pictures to (B,) float32, on a scale of its own.
        place: From the planes to (B, s, s), how much of it is where (float32), or whether it is there (bool); None
            where it has no place.
    """

    name: str
    little: str
    group: str
    definition: str
    value: Callable[[Planes], Tensor]
    place: Callable[[Planes], Tensor] | None = None


def root_share(mask: Tensor) -> Tensor:
    """Square root of the share of true values of each picture: (B, ...) bool to (B,) float32."""
    return mask.flatten(1).float().mean(1).sqrt()


def log_mean(plane: Tensor) -> Tensor:
    """Logarithm of the mean over places: (B, ...) to (B,)."""
    return (plane.flatten(1).mean(1) + EPSILON).log()
