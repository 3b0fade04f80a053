"""Concepts as a judge sees them, and their support: how many images show each."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neuronx.concepts.formula import Formulas
from neuronx.errors import UserError
from neuronx.types import Concepts, Explanation, Judgement

if TYPE_CHECKING:
    from neuronx.data.probe import Probe


@dataclass(frozen=True)
class JudgedConcepts:
    """Concepts, formulas among them, as a judge sees them.

    Attributes:
        formulas: The F concepts, over the atoms that the judge was asked about.
        judgement: Of the atoms, in their order.
    """

    formulas: Formulas
    judgement: Judgement

    def scores(self, rows: Tensor) -> Tensor:
        """Scores (F, B) float64 of all concepts on some images.

        Raises:
            UserError: A score of the judge that is not a finite number.
        """
        scores = self.judgement.scores(rows)
        if not scores.sum().isfinite() and len(wrong := (~scores.isfinite()).nonzero()):
            image, atom = int(rows[wrong[0, 0]]), self.formulas.atoms[wrong[0, 1]]
            raise UserError(f"The judge's score of `{atom}` on image {image} is not a finite number.")
        return self.formulas.evaluate(scores.T.double().contiguous())

    def support(self, rows: Tensor, batch_size: int) -> tuple[Tensor, Tensor]:
        """How many of some images show each concept, (F,) float64, and whether any two differ in it, (F,) bool.

        Images count by their scores: one that shows a concept for sure is 1, with probability .3 it is .3.
        """
        low, high, mass = (torch.zeros(len(self.formulas)).double() + start for start in (torch.inf, -torch.inf, 0))
        for _, scores in self.batches(rows, batch_size):
            low, high = torch.minimum(low, scores.amin(1)), torch.maximum(high, scores.amax(1))
            mass += scores.sum(1)
        return mass, high > low

    def all_scores(self, rows: Tensor, batch_size: int) -> Tensor:
        """Scores (F, N) float32 of all concepts on some images."""
        found = torch.zeros(len(self.formulas), len(rows))
        places = torch.arange(len(rows)).split(batch_size)
        for place, (_, scores) in zip(places, self.batches(rows, batch_size), strict=True):
            found[:, place] = scores.float()
        return found

    def batches(self, rows: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Some images at a time: rows (B,) and scores (F, B)."""
        for batch in rows.split(batch_size):
            if len(batch):
                yield batch, self.scores(batch)


BATCH = 512
"""Images whose concepts are looked at together."""


def with_support(
    explanations: Sequence[Explanation], ask: Callable[[Sequence[str]], Judgement], probe: "Probe"
) -> list[Explanation]:
    """The explanations, with the number of train and of test images that show each of their concepts.

    Args:
        explanations: Of any units.
        ask: Judges concepts by name; an explanation with one that it does not know gets no support.
        probe: The images.
    """
    formulas = Formulas([concept for explanation in explanations for concept, _ in explanation.terms])
    judgement = ask(formulas.atoms)
    judged, places = JudgedConcepts(formulas, judgement), formulas.places(judgement.known)
    train, test = (judged.support(probe.splits[name], BATCH)[0].tolist() for name in ("train", "test"))
    support = {concept: (round(train[at], 1), round(test[at], 1)) for concept, at in places.items()}
    return [
        replace(explanation, support=tuple(support[concept] for concept, _ in explanation.terms))
        if all(concept in support for concept, _ in explanation.terms)
        else explanation
        for explanation in explanations
    ]


def recalled(concepts: Concepts, names: Sequence[str]) -> Judgement:
    """Judges concepts by name from their recorded scores."""
    index = {name: place for place, name in enumerate(concepts.names)}
    places = torch.tensor([index.get(name, -1) for name in names], dtype=torch.long)
    known = places >= 0
    columns = concepts.scores[:, places.clamp(min=0)].float() * known
    return Judgement(known, lambda rows: columns[rows])
