"""Explanations without meaning, which any score must beat: those of other units, and random concepts."""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from neuronx.concepts.formula import parse, quoted, spoken
from neuronx.types import Explanation, Unit

if TYPE_CHECKING:
    from neuronx.data.probe import Probe


def shuffled(explanations: Sequence[Explanation], seed: str) -> list[Explanation]:
    """The same explanations, each given to another unit; in the order of the units.

    The permutation is one cycle through all units, in which units change places where one would get an explanation of
    the same concepts as its own. Where more than half have the same concepts, some units are left out.

    Args:
        explanations: Of units of one layer.
        seed: Any text; the same text gives the same permutation.
    """
    n = len(explanations)
    draw = random.Random(seed)
    cycle = draw.sample(range(n), n)
    giver = dict(zip(cycle, [*cycle[1:], *cycle[:1]], strict=True))
    own = [_atoms(explanation) for explanation in explanations]
    for k in range(n):
        if own[giver[k]] == own[k]:
            others = [j for j in cycle if own[j] != own[k] and own[giver[j]] != own[k]]
            if others:
                j = draw.choice(others)
                giver[k], giver[j] = giver[j], giver[k]
    return [
        _moved(explanations[giver[k]], explanation.unit)
        for k, explanation in enumerate(explanations)
        if own[giver[k]] != own[k]
    ]


def randomised(explanation: Explanation, pool: Sequence[str], seed: str) -> Explanation | None:
    """An explanation of the same length and weights with random concepts, all different; None where there are none.

    The explanation's own concepts and the atoms of its formulas are never drawn.

    Args:
        explanation: What to imitate.
        pool: Concepts to draw from; where it has fewer than the explanation, the last terms are left out.
        seed: Any text; the same text and unit give the same draw, whatever other units there are.
    """
    draw = random.Random(f"{seed}/{explanation.unit}")
    own = _atoms(explanation)
    others = [concept for concept in pool if spoken(concept) not in own]
    if explanation.terms and not others:
        return None
    drawn = draw.sample(others, min(len(others), len(explanation.terms)))
    terms = tuple((concept, weight) for concept, (_, weight) in zip(drawn, explanation.terms, strict=False))
    return _moved(replace(explanation, terms=terms), explanation.unit)


def _atoms(explanation: Explanation) -> frozenset[str]:
    """The concepts of an explanation and the atoms of its formulas, spelt alike."""
    concepts = [concept for concept, _ in explanation.terms]
    atoms = [atom for concept in concepts for atom in parse(concept).atoms]
    return frozenset(map(spoken, (*concepts, *atoms)))


def _moved(explanation: Explanation, unit: Unit) -> Explanation:
    """An explanation put to another unit, without the evidence and the notes, which do not belong to it."""
    return replace(explanation, unit=unit, evidence=(), notes=(), support=())


def wide_list(own: Sequence[str], probe: "Probe") -> tuple[str, ...]:
    """Concepts to draw from where nobody gives a list: those of the explanations, the images' classes, ImageNet's."""
    from neuronx.data.imagenet import torchvision_names

    names = map(quoted, (*probe.class_names, *probe.hierarchy, *torchvision_names()))
    return tuple(dict.fromkeys((*own, *names)))
