"""The baselines of a leaderboard: how well explanations score that say nothing about their unit."""

import random
from collections.abc import Sequence
from dataclasses import replace

from neuronx.types import Explanation, Unit

SHUFFLED, RANDOM, CEILING = "shuffled-", "random-", "ceiling"


def is_method(name: str) -> bool:
    """Whether a row of the leaderboard is a real method, neither a baseline nor the upper bound."""
    return name != CEILING and not name.startswith((SHUFFLED, RANDOM))


def shuffled(explanations: Sequence[Explanation], seed: str) -> list[Explanation]:
    """The same explanations, each given to another unit; in the order of the units.

    The permutation is one cycle through all units, so that none keeps its own.

    Args:
        explanations: Of two or more units of one layer.
        seed: Any text; the same text gives the same permutation.
    """
    n = len(explanations)
    cycle = random.Random(seed).sample(range(n), n)
    giver = dict(zip(cycle, [*cycle[1:], cycle[0]], strict=True))
    return [_moved(explanations[giver[k]], explanation.unit) for k, explanation in enumerate(explanations)]


def randomised(explanation: Explanation, pool: Sequence[str], seed: str) -> Explanation | None:
    """An explanation of the same length and weights with random concepts, all different; None where there is no other.

    Where the draw gives the explanation itself, its own concepts are left out of a second draw.

    Args:
        explanation: What to imitate.
        pool: Concepts to draw from; where it has fewer than the explanation, the last terms are left out.
        seed: Any text; the same text and unit give the same draw, whatever other units there are.
    """
    draw = random.Random(f"{seed}/{explanation.unit}")
    own = {_folded(concept) for concept, _ in explanation.terms}
    for concepts in (pool, [concept for concept in pool if _folded(concept) not in own]):
        count = min(len(concepts), len(explanation.terms))
        weights = [weight for _, weight in explanation.terms]
        terms = tuple(zip(draw.sample(concepts, count), weights, strict=False))
        if not explanation.terms or (terms and not _same(terms, explanation.terms)):
            return _moved(replace(explanation, terms=terms), explanation.unit)
    return None


def _folded(concept: str) -> str:
    return concept.lower().replace("_", " ")


def _same(terms: Sequence[tuple[str, float]], others: Sequence[tuple[str, float]]) -> bool:
    return {(_folded(concept), weight) for concept, weight in terms} == {(_folded(c), weight) for c, weight in others}


def _moved(explanation: Explanation, unit: Unit) -> Explanation:
    """An explanation put to another unit, without the evidence and the notes, which do not belong to it."""
    return replace(explanation, unit=unit, evidence=(), notes=())
