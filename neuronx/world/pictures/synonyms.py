"""What people call things that the world calls otherwise: `hoops` are rings, `a lawn` is grass."""

from collections.abc import Collection

MEANING = {
    "gray": "grey",
    "disc": "circle",
    "hoop": "ring",
    "moon": "crescent",
    "teardrop": "drop",
    "plus": "cross",
    "stripe": "striped",
    "spotted": "dotted",
    "dot": "dotted",
    "check": "checkered",
    "solid": "plain",
    "tiny": "small",
    "little": "small",
    "big": "large",
    "cloud": "sky",
    "lawn": "grass",
    "beach": "sand",
    "sandy": "sand",
    "wave": "water",
    "darkness": "night",
    "plank": "wood",
    "wooden": "wood",
    "single": "one",
    "lone": "one",
    "pair": "two",
    "trio": "three",
    "rounded": "round",
    "curved": "round",
    "straight": "polygon",
    "angular": "polygon",
    "spiky": "pointed",
    "dull": "neutral",
    "upper": "top",
    "lower": "bottom",
    "middle": "centre",
    "thing": "object",
}
"""Everyday word -> the world's, both in the singular."""


def reading(word: str, known: Collection[str]) -> str | None:
    """The known word that stands for a word: itself, its singular, or what either means; None if there is none.

    Args:
        word: In lower case.
        known: The words that somebody knows.
    """
    for form in dict.fromkeys((word, word.removesuffix("s"), word.removesuffix("es"))):
        for meant in (form, MEANING.get(form)):
            if meant in known:
                return meant
    return None
