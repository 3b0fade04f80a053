"""What the embedded world's pictures may have in common, and which of it the exemplars of a unit share where it fires.

The share of a value is that of the masked pixels which have it, among those which have any value of its kind: of the
objects' pixels under the masks, how many are red. The base rate is the same with masks that cover everything, and lift
is share over base rate. Each exemplar counts once, however large its mask.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from neuronx.world.pictures.scene import (
    BACKGROUNDS,
    COLOUR_FAMILIES,
    COLOURS,
    NUMBERS,
    SHAPE_FAMILIES,
    SHAPES,
    SIZES,
    TEXTURES,
)

SIDES = ("top", "bottom", "left", "right")
KINDS: dict[str, int] = {
    "colour": len(COLOURS),
    "shape": len(SHAPES),
    "texture": len(TEXTURES),
    "size": len(SIZES),
    "background": len(BACKGROUNDS),
    "number": len(NUMBERS),
    "cell": 9,
    "edge": len(SIDES),
}
"""Kind -> number of its values. Cells are 3 x 3 in reading order, edges the sides of objects."""
OF_OBJECTS = ("colour", "shape", "texture", "size")
"""Kinds that only pixels of objects have."""

_WORDS = {
    "grey": ("grey", "gray"),
    "circle": ("circle", "disc"),
    "ring": ("ring", "hoop"),
    "crescent": ("crescent", "moon"),
    "drop": ("drop", "teardrop"),
    "cross": ("cross", "plus sign"),
    "striped": ("striped", "stripe"),
    "dotted": ("dotted", "spotted", "dot"),
    "checkered": ("checkered", "check"),
    "plain": ("plain", "solid"),
    "small": ("small", "tiny", "little"),
    "medium": ("medium", "medium-sized"),
    "large": ("large", "big"),
    "sky": ("sky", "cloud"),
    "grass": ("grass", "lawn"),
    "sand": ("sand", "beach"),
    "brick": ("brick",),
    "water": ("water", "wave"),
    "night": ("night", "darkness"),
    "wood": ("wood", "plank", "wooden"),
    "one": ("one", "single", "lone"),
    "two": ("two", "pair"),
    "three": ("three", "trio"),
    "round": ("round", "rounded", "curved"),
    "polygon": ("straight-edged", "angular"),
    "pointed": ("pointed", "spiky"),
    "warm": ("warm", "warm-coloured"),
    "cool": ("cool", "cool-coloured"),
    "neutral": ("neutral", "dull"),
    "top": ("at the top", "upper part"),
    "bottom": ("at the bottom", "lower part"),
    "left": ("on the left", "left-hand part"),
    "right": ("on the right", "right-hand part"),
    "centre": ("in the centre", "middle"),
    **{f"{side} edge": (f"{side} edge", f"{side} border") for side in SIDES},
}


@dataclass(frozen=True)
class Factor:
    """Something that regions may share.

    Attributes:
        name: "red", "warm", "circle", "top edge".
        kind: Of `KINDS`.
        members: Which of the kind's values it covers: one, or those of a family.
    """

    name: str
    kind: str
    members: tuple[int, ...]


def _all() -> tuple[Factor, ...]:
    values = {"colour": COLOURS, "shape": SHAPES, "texture": TEXTURES, "size": SIZES, "background": BACKGROUNDS}
    values |= {"number": NUMBERS, "edge": tuple(f"{side} edge" for side in SIDES)}
    singles = [Factor(name, kind, (i,)) for kind, names in values.items() for i, name in enumerate(names)]
    families = [
        Factor(name, kind, tuple(values[kind].index(one) for one in members))
        for kind, groups in (("colour", COLOUR_FAMILIES), ("shape", SHAPE_FAMILIES))
        for name, members in groups.items()
    ]
    cells = {"top": (0, 1, 2), "bottom": (6, 7, 8), "left": (0, 3, 6), "right": (2, 5, 8), "centre": (4,)}
    return (*singles, *families, *(Factor(name, "cell", members) for name, members in cells.items()))


FACTORS = {factor.name: factor for factor in _all()}
"""All factors by name."""


def words(name: str) -> tuple[str, ...]:
    """How people put a factor, the usual word first; shapes in the singular."""
    return _WORDS.get(name, (name,))


def named(name: str, text: str) -> bool:
    """Whether a description names a factor, in any of its words and in singular or plural."""
    return _pattern(name).search(text.lower()) is not None


@cache
def _pattern(name: str) -> re.Pattern[str]:
    said = "|".join(re.escape(word) for word in sorted(words(name), key=len, reverse=True))
    return re.compile(rf"(?<![\w-])(?:{said})(?:s|es|y)?(?![\w-])")


LIFT = 1.8
"""The least lift of a factor that is named."""
SHARE = 0.4
"""Of how much of the exemplars a factor must be true that is named."""
SURPRISE = 3.5
"""By how many standard errors the share of as many random pictures as exemplars must be exceeded."""
COVER = {"edge": 0.6}
"""Of the masked pixels, how many must have a value of the kind; `COVERED` for kinds that are not here."""
COVERED = 0.15
FEWEST = 5
"""Exemplars with anything under their masks that a unit needs, to have anything in common."""


@dataclass(frozen=True)
class Sharing:
    """What is under the masks of U units.

    Attributes:
        shares: Kind -> (U, values + 1) float64, of the masked pixels how many have each value, the last for none.
        weights: Kind -> (U,) float64, how many exemplars the kind's shares rest on.
        breadth: Kind -> (U,) float64, in what share of the exemplars `COVERED` of the masked pixels have any value.
        objects: (U, colours + 1, shapes + 1, textures + 1, sizes + 1) float64, the same for the four together.
        exemplars: (U,) int64, how many exemplars have anything under their masks.
    """

    shares: dict[str, Tensor]
    weights: dict[str, Tensor]
    breadth: dict[str, Tensor]
    objects: Tensor
    exemplars: Tensor

    def cover(self, unit: int, kind: str) -> float:
        """The share of the masked pixels that have any value of a kind."""
        return float(1 - self.shares[kind][unit, -1]) if self.exemplars[unit] else 0.0

    def share(self, unit: int, factor: Factor) -> float:
        """The factor's share of the masked pixels that have any value of its kind."""
        mine = self.shares[factor.kind][unit]
        return float(mine[list(factor.members)].sum() / mine[:-1].sum().clamp(min=1e-12))

    def together(self, unit: int, factors: list[Factor]) -> float:
        """The share of the objects' masked pixels that fit several factors of objects at once."""
        chosen = {factor.kind: list(factor.members) for factor in factors}
        part = self.objects[unit]
        for axis, kind in enumerate(OF_OBJECTS):
            if kind in chosen:
                part = part.index_select(axis, torch.tensor(chosen[kind]))
        return float(part.sum() / max(self.cover(unit, "colour"), 1e-12))


@dataclass(frozen=True)
class Shared:
    """A factor that a unit's exemplars share.

    Attributes:
        factor: Which.
        share: Of the masked pixels that have any value of its kind, in [0, 1].
        lift: Share over base rate.
        breadth: In how many of the exemplars there are such pixels, in [0, 1].
    """

    factor: Factor
    share: float
    lift: float
    breadth: float

    @property
    def typical(self) -> float:
        """How much of the exemplars it is true of, in [0, 1]."""
        return self.share * self.breadth

    @property
    def gain(self) -> float:
        """How much the factor tells of the regions: its term in the divergence from the base rates, in nats."""
        return self.typical * math.log(self.lift)


def sharing(masks: Tensor, images: Tensor, seen: Mapping[str, Tensor]) -> Sharing:
    """Counts what is under the masks of U units with k exemplars each.

    Args:
        masks: (U, k, H, W) bool or uint8.
        images: (U, k) int64, which of the N pictures the exemplars are.
        seen: Kind -> (N, H, W) integer, the value of each pixel, -1 for none; see `neuronx.world.annotations.pixels`.
    """
    pair, y, x = masks.flatten(0, 1).nonzero(as_tuple=True)
    pictures = images.flatten()[pair]
    pixels = torch.bincount(pair, minlength=images.numel()).double()
    there = (pixels > 0).view_as(images)
    count = there.sum(1).clamp(min=1)
    # Each exemplar's pixels together weigh one, and the exemplars of a unit too.
    weight = 1 / (pixels.clamp(min=1) * count.repeat_interleave(images.shape[1]))
    shares, weights, breadth, code = {}, {}, {}, torch.zeros_like(pair)
    for kind, values in KINDS.items():
        value = seen[kind][pictures, y, x].long()
        value = torch.where(value < 0, values, value)
        each = torch.bincount(pair * (values + 1) + value, weight[pair], minlength=images.numel() * (values + 1))
        each = each.view(*images.shape, values + 1)
        shares[kind] = each.sum(1)
        covers = each[..., :-1].sum(2)
        breadth[kind] = (covers * count[:, None] >= COVERED).sum(1) / count
        weights[kind] = covers.sum(1) ** 2 / (covers**2).sum(1).clamp(min=1e-12)
        if kind in OF_OBJECTS:
            code = code * (values + 1) + value
    sides = [KINDS[kind] + 1 for kind in OF_OBJECTS]
    unit = pair // images.shape[1]
    objects = torch.bincount(unit * math.prod(sides) + code, weight[pair], minlength=len(images) * math.prod(sides))
    return Sharing(shares, weights, breadth, objects.view(len(images), *sides), there.sum(1))


def base_rates(seen: Mapping[str, Tensor]) -> Sharing:
    """The same of whole pictures (N, H, W), as if they were all exemplars of a single unit."""
    images = torch.arange(len(seen["colour"]))[None]
    everything = torch.ones(1, *seen["colour"].shape, dtype=torch.bool)
    return sharing(everything, images, seen)


def shared(of: Sharing, unit: int, base: Sharing) -> list[Shared]:
    """The factors that a unit's exemplars share, those that tell most first, at most one of each kind.

    Args:
        of: What is under the masks.
        unit: Which unit of those.
        base: The base rates.
    """
    if of.exemplars[unit] < FEWEST:
        return []
    best: dict[str, Shared] = {}
    for factor in FACTORS.values():
        rate, share = base.share(0, factor), of.share(unit, factor)
        breadth = float(of.breadth[factor.kind][unit])
        if not 0 < rate < 1 or share < LIFT * rate or share * breadth < SHARE:
            continue
        error = math.sqrt(rate * (1 - rate) / float(of.weights[factor.kind][unit]))
        covered = of.cover(unit, factor.kind) >= COVER.get(factor.kind, COVERED)
        found = Shared(factor, share, share / rate, breadth)
        if covered and share - rate >= SURPRISE * error and found.gain > _gain(best.get(factor.kind)):
            best[factor.kind] = found
    return sorted(best.values(), key=lambda one: (-one.gain, one.factor.name))


def _gain(one: Shared | None) -> float:
    return one.gain if one else 0.0
