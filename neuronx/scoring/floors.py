"""The floors of a leaderboard: what explanations reach that know nothing about their unit."""

import random
from collections.abc import Sequence
from dataclasses import replace

from neuronx.types import Explanation

SHUFFLED, RANDOM, CEILING = "shuffled-", "random-", "ceiling"


def is_method(name: str) -> bool:
    """Whether a row of the leaderboard is a real method, neither floor nor ceiling."""
    return name != CEILING and not name.startswith((SHUFFLED, RANDOM))


def shuffled(explanations: Sequence[Explanation], seed: str) -> list[Explanation]:
    """The same explanations, each given to another unit; in the order of the units.

    The permutation is one cycle through all units, so that none keeps its own. With fewer than two units there is no
    such permutation, and the list is empty.

    Args:
        explanations: Of units of one layer, those that can be scored.
        seed: Any text; the same text gives the same permutation.
    """
    n = len(explanations)
    if n < 2:
        return []
    cycle = random.Random(seed).sample(range(n), n)
    giver = dict(zip(cycle, [*cycle[1:], cycle[0]], strict=True))
    return [_given(explanations[giver[k]], one) for k, one in enumerate(explanations)]


def randomised(explanation: Explanation, pool: Sequence[str], seed: str) -> Explanation:
    """An explanation of the same length and weights with random concepts, all different.

    Args:
        explanation: What to imitate.
        pool: Concepts to draw from; where it has fewer than the explanation, the last terms are left out.
        seed: Any text; the same text and unit give the same draw, whatever other units there are.
    """
    draw = random.Random(f"{seed}/{explanation.unit}")
    concepts = draw.sample(pool, min(len(pool), len(explanation.terms)))
    weights = [weight for _, weight in explanation.terms[: len(concepts)]]
    return _given(replace(explanation, terms=tuple(zip(concepts, weights, strict=True))), explanation)


def _given(explanation: Explanation, owner: Explanation) -> Explanation:
    """An explanation put to another's unit, without the evidence and the notes, which do not belong to it."""
    return replace(explanation, unit=owner.unit, evidence=(), notes=())
