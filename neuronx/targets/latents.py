"""What an image generator's inputs are: drawn row by row from a seed, the same on every machine; and its pictures.

Random numbers belong to an index, not to a moment: image i draws the same ones in any batch. The finaliser of
splitmix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014) scrambles (seed, index,
column) in wrapping int64 arithmetic, which is exact everywhere.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from neuronx.errors import UserError
from neuronx.targets.calling import Inputs

_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_FIRST = 0xBF58476D1CE4E5B9 - (1 << 64)
_SECOND = 0x94D049BB133111EB - (1 << 64)


@dataclass(frozen=True)
class Latents:
    """How a generator's inputs are drawn, and how its outputs become pictures. Its `repr` is its identity in keys.

    The latent vectors are standard normal. With `classes` the generator is called as `module(z, y)`, with several
    shapes as `module(z1, z2, ...)`; y comes last.

    Attributes:
        shapes: Of each latent tensor, without the batch: ((128,),), or ((128, 1, 1),), or ((64,), (64,)).
        classes: Number of classes, drawn evenly; 0 for a generator that takes none.
        one_hot: Classes are given as (B, classes) float32 instead of (B,) int64.
        truncation: Values beyond plus and minus this are drawn again (the truncation trick of Brock et al., "Large
            scale GAN training for high fidelity natural image synthesis", 2019); None for none.
        scale: Factor on the latent vectors; BigGAN's published samplers cut at 2 and scale by their "truncation".
        output_range: What the generator puts out for black and for white.
        domain: The kind of pictures, "shapes" or "natural", for the judges.
        class_names: By index.
        hierarchy: Superclass -> the classes in it.
    """

    shapes: tuple[tuple[int, ...], ...]
    classes: int = 0
    one_hot: bool = False
    truncation: float | None = None
    scale: float = 1.0
    output_range: tuple[float, float] = (-1.0, 1.0)
    domain: str = "natural"
    class_names: tuple[str, ...] = field(default=(), repr=False)
    hierarchy: Mapping[str, Sequence[int]] = field(default_factory=dict, repr=False, hash=False)

    def __post_init__(self) -> None:
        names = tuple(self.class_names) or tuple(f"class {i}" for i in range(self.classes))
        object.__setattr__(self, "class_names", names)
        object.__setattr__(self, "output_range", tuple(float(end) for end in self.output_range))
        if not self.shapes or any(side < 1 for shape in self.shapes for side in shape):
            raise UserError(f"A latent vector needs a length of at least 1, not {self.shapes}.")
        if self.classes < 0 or len(names) != self.classes:
            raise UserError(f"A generator of {self.classes} classes needs as many class names, not {len(names)}.")
        if self.truncation is not None and not self.truncation > 0:
            raise UserError(f"truncation={self.truncation}: write a number above 0, or null for none.")
        if len(self.output_range) != 2 or not self.output_range[0] < self.output_range[1]:
            raise UserError(f"output_range={list(self.output_range)}: write [black, white], as [-1, 1].")

    def __call__(self, picture: Any) -> Tensor:
        """Stands where a classifier has its transform; pictures cannot become latents."""
        raise UserError("A generator's inputs are latents, not pictures: study it on a probe of its own outputs.")

    @property
    def count(self) -> int:
        """How many inputs the generator takes."""
        return len(self.shapes) + bool(self.classes)

    def draw(self, rows: Tensor, seed: int) -> Inputs:
        """The inputs of some rows; row i depends on (seed, i) and on nothing else.

        Args:
            rows: (B,) int64.
            seed: Of the stream, at least 0.

        Returns:
            (B, *shape) float32, or a tuple of these for all shapes and the classes.
        """
        sizes = [math.prod(shape) for shape in self.shapes]
        # Column 0 belongs to the class, so that the vectors are the same with and without one.
        uniform = uniforms(seed, rows, 1 + sum(sizes))[:, 1:].double() + 2.0**-25
        share = 1.0 if self.truncation is None else math.erf(self.truncation / math.sqrt(2))
        # In double precision, where libraries that differ in the last bit still agree in float32.
        normal = torch.erfinv((2 * uniform - 1) * share) * (math.sqrt(2) * self.scale)
        parts = normal.float().split(sizes, 1)
        vectors = tuple(part.reshape(-1, *shape) for part, shape in zip(parts, self.shapes, strict=True))
        if self.classes:
            labels = self.labels(rows, seed)
            given = nn.functional.one_hot(labels, self.classes).float() if self.one_hot else labels
            return *vectors, given
        return vectors if len(vectors) > 1 else vectors[0]

    def labels(self, rows: Tensor, seed: int) -> Tensor:
        """The classes (B,) int64 of some rows. Only where there are classes."""
        return pick(uniforms(seed, rows, 1)[:, 0], self.classes)

    def pictures(self, outputs: Any) -> Tensor:
        """The pictures in what the generator put out: uint8 (B, 3, H, W).

        Raises:
            UserError: Outputs that are no pictures of one or three channels.
        """
        while isinstance(outputs, Sequence) and outputs:
            outputs = outputs[0]
        if not isinstance(outputs, Tensor) or outputs.ndim != 4 or outputs.shape[1] not in (1, 3):
            what = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
            raise UserError(f"A generator must put out pictures (B, 3, H, W); this one puts out {what}.")
        low, high = self.output_range
        scaled = (outputs.float() - low) * (255 / (high - low))
        return scaled.add_(0.5).clamp_(0, 255).to(torch.uint8).expand(-1, 3, -1, -1).contiguous()


def _shifted(x: Tensor, bits: int) -> Tensor:
    # torch shifts int64 arithmetically; the mask drops the copies of the sign.
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def mix(x: Tensor) -> Tensor:
    """Scrambles int64 words, one to one: every bit of the result depends on every bit of `x`."""
    x = x + _GOLDEN
    x = (x ^ _shifted(x, 30)) * _FIRST
    x = (x ^ _shifted(x, 27)) * _SECOND
    return x ^ _shifted(x, 31)


def uniforms(seed: int, indices: Tensor, columns: int) -> Tensor:
    """Draws `columns` uniform numbers for each index.

    Args:
        seed: Of the stream, in [0, 2^63); streams of different seeds are independent.
        indices: (B,) int64.
        columns: Numbers per index; column j is the same whatever their number.

    Returns:
        (B, columns) float32 in [0, 1), multiples of 2^-24.
    """
    start = mix(mix(torch.full_like(indices, seed)) ^ indices)
    counters = torch.arange(columns, device=indices.device) * _GOLDEN
    words = mix(start[:, None] + counters)
    return _shifted(words, 40).to(torch.float32) * 2.0**-24


def pick(uniform: Tensor, n: int) -> Tensor:
    """Turns uniform numbers into equally likely int64 choices in [0, n)."""
    # The product may round up to n itself when `uniform` is next to 1.
    return (uniform * n).to(torch.int64).clamp(max=n - 1)
