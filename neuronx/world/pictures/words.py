"""The language of the world: which phrases there are, and in which pictures each is true.

A phrase is made of words for an object (colour, shape, texture, size, place, families of colours and shapes) and for
the whole scene (background, number of objects), with little words between them, as "striped red circle on grass". It
is true of a picture when one and the same object fits all its object words, and the scene fits the others. Parts
joined by "and" or a comma must each be true. A phrase with any other word, or with no word that says anything, is
true nowhere.
"""

import re
from collections.abc import Sequence
from functools import cache, lru_cache

import torch
from torch import Tensor

from neuronx.concepts.words import Words
from neuronx.world.pictures.scene import (
    BACKGROUNDS,
    CLASS_NAMES,
    COLOUR_FAMILIES,
    COLOURS,
    DISTRACTORS,
    FAMILIES,
    HIERARCHY,
    NUMBERS,
    OBJECTS,
    PLACES,
    SHAPE_FAMILIES,
    SHAPES,
    SIZES,
    TEXTURES,
    Scenes,
)

__all__ = [
    "BACKGROUNDS", "CLASS_NAMES", "COLOURS", "CONCEPTS", "DISTRACTORS", "FAMILIES", "HIERARCHY", "NUMBERS", "PLACES",
    "SHAPES", "SIZES", "TEXTURES", "TRUTH", "concept_masks", "labels", "presence", "shown", "word_list",
]  # fmt: skip

_PLACE = {place: f"on the {place}" for place in ("left", "right")} | {
    "top": "at the top",
    "bottom": "at the bottom",
    "centre": "in the centre",
}
_WHERE = {"sky": "in the sky", "water": "on water", "night": "at night", "brick": "on brick"}


def _phrases() -> tuple[str, ...]:
    """All phrases that pictures can fit: single words, families, pairs and triples; 1,097 distinct ones."""
    where = [_WHERE.get(background, f"on {background}") for background in BACKGROUNDS]
    numbers = [f"{number} object" + "s" * (number != "one") for number in NUMBERS]
    marked = TEXTURES[1:]
    grid = [(i, j, c, s) for i, c in enumerate(COLOURS) for j, s in enumerate(SHAPES)]
    return tuple(
        dict.fromkeys(
            [*SHAPES, *COLOURS, *TEXTURES, *SIZES, *PLACES, *BACKGROUNDS, *numbers, *FAMILIES]
            + list(CLASS_NAMES)
            + [f"{t} {s}" for t in TEXTURES for s in SHAPES]
            + [f"{t} {c}" for t in TEXTURES for c in COLOURS]
            + [f"{z} {s}" for z in SIZES for s in SHAPES]
            + [f"{z} {c}" for z in SIZES for c in COLOURS]
            + [f"{c} polygon" for c in COLOURS]
            + [f"{w} {s}" for w in COLOUR_FAMILIES for s in SHAPES]
            + [f"{s} {w}" for s in SHAPES for w in where]
            + [f"{c} {w}" for c in COLOURS for w in where]
            + [f"{s} {p}" for s in SHAPES for p in _PLACE.values()]
            # Of the many triples every colour and shape meets once, with the third word taking turns.
            + [f"large {c} {s}" for _, _, c, s in grid]
            + [f"{marked[(i + j) % len(marked)]} {c} {s}" for i, j, c, s in grid]
            + [f"{c} {s} {where[(i + 3 * j) % len(where)]}" for i, j, c, s in grid]
        )
    )


CONCEPTS: tuple[str, ...] = _phrases() + DISTRACTORS
"""The default concept list of the world: what pictures can show, then what none does."""

TRUTH: tuple[str, ...] = (*SHAPES, *COLOURS, *TEXTURES, *SIZES, *PLACES, *BACKGROUNDS, *FAMILIES, *CLASS_NAMES)
"""The concepts whose truth a probe states for every picture: single words, families and classes."""


def word_list() -> Words:
    """`CONCEPTS` as a word list."""
    return Words(CONCEPTS, "shapes")


_OBJECT_WORDS = (*SHAPES, *COLOURS, *TEXTURES, *SIZES, *PLACES, *SHAPE_FAMILIES, *COLOUR_FAMILIES)
_BITS = {word: 1 << bit for bit, word in enumerate((*_OBJECT_WORDS, *BACKGROUNDS, *NUMBERS))}
_ABOUT_OBJECTS = sum(_BITS[word] for word in _OBJECT_WORDS)
_ABOUT_BACKGROUND = sum(_BITS[word] for word in BACKGROUNDS)
_NEVER = 1 << 62
_LITTLE = {"a", "an", "the", "on", "in", "at", "of", "with", "against", "background", "wall"}
_LITTLE |= {"colour", "shape", "object", "objects"}


@lru_cache(1 << 16)
def _parse(phrase: str) -> tuple[int, ...]:
    """What each part of a phrase asks for, as bits of words; `_NEVER` for what cannot be true."""
    needs = []
    for part in re.split(r",|\band\b", phrase.lower().replace("_", " ")):
        bits = 0
        for word in part.split():
            # An unknown word asks for a bit that nothing has.
            bits |= _BITS.get(word, 0 if word in _LITTLE else _NEVER)
        needs.append(bits or _NEVER)
    return tuple(needs)


def labels(scenes: Scenes) -> Tensor:
    """(B,) int64 index into CLASS_NAMES: colour and shape of the main object."""
    return scenes.colour[:, 0] * len(SHAPES) + scenes.shape[:, 0]


def presence(scenes: Scenes, phrases: Sequence[str]) -> Tensor:
    """Which phrases are true of which pictures: (B, C) bool."""
    have = _have(scenes)
    true = torch.ones(len(scenes), len(phrases), dtype=torch.bool, device=have.device)
    for need in _needs(phrases, have.device):
        fits = torch.zeros_like(true)
        for slot in range(OBJECTS):
            fits |= (have[:, slot, None] & need) == need
        true &= fits
    return true


def shown(scenes: Scenes, phrases: Sequence[str]) -> Tensor:
    """Which phrases the ground and the objects of pictures show.

    A phrase with words for an object is shown by every object that fits; one of a background alone by the ground; a
    number or an unknown word by nothing. Parts joined by "and" are shown by what shows either.

    Args:
        scenes: B scenes.
        phrases: C phrases.

    Returns:
        (B, 4, C) bool: the ground, then the object in each slot; none shows a phrase that is not true.
    """
    have = _have(scenes)
    by = torch.zeros(len(scenes), 1 + OBJECTS, len(phrases), dtype=torch.bool, device=have.device)
    for need in _needs(phrases, have.device):
        fits = (have[:, :, None] & need) == need
        about = (need & _ABOUT_OBJECTS) != 0
        by[:, 1:] |= fits & about
        by[:, 0] |= fits[:, 0] & ~about & ((need & _ABOUT_BACKGROUND) != 0)
    return by & presence(scenes, phrases)[:, None]


def concept_masks(scenes: Scenes, ids: Tensor, phrases: Sequence[str]) -> Tensor:
    """Where pictures show phrases: the pixels of the ground or the objects that show them.

    Args:
        scenes: B scenes.
        ids: (B, H, W) uint8 map of objects, from `render_masks`.
        phrases: C phrases.

    Returns:
        (B, C, H, W) bool; empty wherever the phrase is not true of the picture.
    """
    bits = torch.ones_like(ids) << ids
    # Bit k of `by` says whether the phrase covers the pixels whose id is k.
    by = torch.zeros(len(scenes), len(phrases), dtype=torch.uint8, device=ids.device)
    for number, each in enumerate(shown(scenes, phrases).unbind(1)):
        by |= each.to(torch.uint8) << number
    return (by[:, :, None, None] & bits[:, None]) != 0


def _needs(phrases: Sequence[str], device: torch.device) -> list[Tensor]:
    """What the first, second, ... parts of C phrases ask for: (C,) int64 each."""
    needs = [_parse(phrase) for phrase in phrases]
    # A phrase with fewer parts repeats its last, which changes nothing.
    return [
        torch.tensor([parts[min(part, len(parts) - 1)] for parts in needs], device=device)
        for part in range(max(map(len, needs), default=0))
    ]


def _have(scenes: Scenes) -> Tensor:
    """(B, 3) int64: the bits of all words that fit each object, its scene's among them; 0 where there is none."""
    tables = _tables(scenes.shape.device)
    bits = tables["background"][scenes.background] | tables["number"][scenes.count - 1]
    bits = bits[:, None]
    for name in ("shape", "colour", "texture", "size", "place"):
        bits = bits | tables[name][getattr(scenes, name)]
    return torch.where(scenes.shape >= 0, bits, 0)


@cache
def _tables(device: torch.device) -> dict[str, Tensor]:
    """For each factor the bits of the words that fit each of its values, families among them."""
    places = ("top left", "top", "top right", "left", "centre", "right", "bottom left", "bottom", "bottom right")
    families = SHAPE_FAMILIES | COLOUR_FAMILIES
    values = {"shape": SHAPES, "colour": COLOURS, "texture": TEXTURES, "size": SIZES, "place": places}
    values |= {"background": BACKGROUNDS, "number": NUMBERS}

    def bits(value: str) -> int:
        above = [family for family, members in families.items() if value in members]
        return sum(_BITS[word] for word in (*value.split(), *above))

    return {name: torch.tensor([bits(value) for value in each], device=device) for name, each in values.items()}


_WORDINGS = {
    "sky": ("in the sky", "against the sky"),
    "grass": ("on grass", "on the grass"),
    "sand": ("on sand", "on the sand"),
    "brick": ("on a brick wall", "against a brick wall"),
    "water": ("on water", "on the water"),
    "night": ("at night", "in the night"),
    "wood": ("on wood", "on a wood background"),
    "paper": ("on paper", "on a paper background"),
}
_CELLS = (
    ("at the top left", "at the top", "at the top right"),
    ("on the left", "in the centre", "on the right"),
    ("at the bottom left", "at the bottom", "at the bottom right"),
)


def captions(scenes: Scenes) -> list[str]:
    """Writes one sentence for each scene, such as "a large striped red circle and a small blue star on grass".

    Colour and shape of every object and the background are always named, a texture unless it is plain, sizes,
    places and the word "plain" in some sentences only. Every caption is a phrase that `presence` finds true.
    """
    names = ("shape", "colour", "texture", "size", "place")
    factors = zip(*(getattr(scenes, name).tolist() for name in names), strict=True)
    rest = zip(scenes.background.tolist(), scenes.voice.tolist(), strict=True)
    return [_sentence(objects, *scene) for objects, scene in zip(factors, rest, strict=True)]


def _sentence(objects: tuple[list[int], ...], background: int, voice: float) -> str:
    # The bits of the voice decide, one question each.
    said = int(voice * 64)
    sizes, places, plain, wording, before = (bool(said >> bit & 1) for bit in range(5))
    parts = []
    for shape, colour, texture, size, place in zip(*objects, strict=True):
        if shape < 0:
            continue
        words = [SIZES[size]] if sizes else []
        words += [TEXTURES[texture]] if texture > 0 or plain else []
        words += [COLOURS[colour], SHAPES[shape]]
        words += [_CELLS[place // 3][place % 3]] if places and not before else []
        parts.append(("an " if words[0][0] in "aeiou" else "a ") + " ".join(words))
    what = ", ".join(parts[:-1]) + (" and " if len(parts) > 1 else "") + parts[-1]
    where = _WORDINGS[BACKGROUNDS[background]][wording]
    return f"{where}, {what}" if before else f"{what} {where}"
