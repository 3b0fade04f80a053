"""What the embedded world's pictures have in common, factor by factor, and the words that people have for it."""

import re
from dataclasses import dataclass
from functools import cache

from neuronx.world.pictures.names import (
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
