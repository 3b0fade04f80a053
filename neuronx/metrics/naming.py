"""Whether captions name something: single words and phrases, and how much more often one kind of caption does."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from neuronx.errors import UserError
from neuronx.metrics.correlation import interval


@lru_cache(maxsize=4096)
def _pattern(phrase: str) -> re.Pattern[str]:
    words = [re.escape(word).replace(r"\*", r"\w*") for word in phrase.lower().split()]
    if not words:
        raise UserError("A phrase to look for in captions is blank; write words, such as `face` or `strip*`.")
    # The last word may stand in the plural, unless it says itself how it ends.
    plural = "" if phrase.rstrip().endswith("*") else "(?:e?s)?"
    return re.compile(r"(?<!\w)" + r"\s+".join(words) + plural + r"(?!\w)")


def names(caption: str, phrases: Sequence[str]) -> bool:
    """Whether a caption has any of the phrases, as whole words in this order, whatever their case.

    `eye` finds eye and eyes; `strip*` finds stripe, striped and strips; a blank phrase is an error.
    """
    return any(_pattern(phrase).search(caption.lower()) is not None for phrase in phrases)


def matching(captions: Sequence[str], phrases: Sequence[str]) -> Tensor:
    """Which captions name any of the phrases: (U,) bool.

    Raises:
        UserError: No phrases, or a blank one.
    """
    if not phrases:
        raise UserError("There is nothing to look for in the captions: give one or more words.")
    return torch.tensor([names(caption, phrases) for caption in captions], dtype=torch.bool)


@dataclass(frozen=True)
class Naming:
    """How often captions name what they should.

    Attributes:
        share: Of the units whose caption does.
        low: Lower end of the 95 % bootstrap interval over units.
        high: Its upper end.
        lead: By how much the first kind of caption is better on the same units; 0 for itself.
        lead_low: Lower end of its interval.
        lead_high: Upper end.
        n: Number of units.
    """

    share: float
    low: float
    high: float
    lead: float
    lead_low: float
    lead_high: float
    n: int


def naming(
    captions: Mapping[str, Sequence[str]], wanted: Sequence[Sequence[str]], *, seed: int = 0
) -> dict[str, Naming]:
    """Compares kinds of captions by whether they name each unit's own phrases.

    Args:
        captions: Name -> the captions of U units; the others are compared with the first.
        wanted: For each unit the phrases of which one should be named, such as its leading true factor and its
            synonyms; units without any do not count.
        seed: Of the intervals.

    Raises:
        UserError: Other numbers of captions than units, or no unit that has phrases.
    """
    counted = [u for u, phrases in enumerate(wanted) if phrases]
    if not counted or any(len(texts) != len(wanted) for texts in captions.values()):
        numbers = ", ".join(f"{len(texts)} {name}" for name, texts in captions.items())
        raise UserError(f"{len(counted)} of {len(wanted)} units have something to be named, and there are {numbers}.")
    hits = {
        name: torch.tensor([float(names(texts[u], wanted[u])) for u in counted]).numpy()
        for name, texts in captions.items()
    }
    first = next(iter(hits.values()))
    found = {}
    for name, hit in hits.items():
        share, low, high = (min(max(end, 0.0), 1.0) for end in interval(hit, seed=seed))
        lead, lead_low, lead_high = interval(first - hit, seed=seed)
        found[name] = Naming(share, low, high, lead, lead_low, lead_high, len(counted))
    return found
