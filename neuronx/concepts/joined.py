"""Several sources of concepts as one list, and several judges as one: each judges what it knows."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from neuronx.concepts.clip import empty_table
from neuronx.concepts.formula import spoken
from neuronx.concepts.seen import as_seen_by
from neuronx.concepts.visual.bank import FEATURES_COMPUTED, VisualConcepts
from neuronx.data.probe import Probe
from neuronx.errors import UserError
from neuronx.types import Concepts, Explanation, Judge, Judgement, Target, TrainerFactory, WordList

ROWS = 4096
"""Images whose scores are copied at a time."""


@dataclass(frozen=True)
class Joined:
    """One list of the concepts of several sources that judge too, such as labels and visual features.

    Attributes:
        parts: Sources such as `LabelConcepts` and `VisualConcepts`. Where two know a name, the first one's counts.
    """

    parts: Sequence

    def __post_init__(self) -> None:
        if not self.parts:
            raise UserError("parts is empty; name one source of concepts at least.")

    @property
    def name(self) -> str:
        """Names of the parts, joined by +."""
        return "+".join(part.name for part in self.parts)

    @property
    def domain(self) -> str:
        """Of the first part that is for one kind of pictures only; "" where all are for any."""
        return next((part.domain for part in self.parts if part.domain), "")

    @property
    def encoders(self) -> tuple[str, ...]:
        """Of all parts."""
        return tuple(encoder for part in self.parts for encoder in part.encoders)

    def seen_by(self, target: Target) -> "Joined":
        """The same, each part looking at what a network sees where it can."""
        return Joined([as_seen_by(target, part) for part in self.parts])

    def vocabulary(self, probe: Probe) -> tuple[str, ...] | None:
        """All names, first occurrence kept; None where a part judges any phrase."""
        names: dict[str, str] = {}
        for part in self.parts:
            if (own := part.vocabulary(probe)) is None:
                return None
            for name in own:
                names.setdefault(spoken(name), name)
        return tuple(names.values())

    def concepts(self, probe: Probe, trainer: TrainerFactory) -> Concepts:
        """The scores of all parts side by side: (N, C)."""
        names: dict[str, str] = {}
        columns: list[tuple[Tensor, Tensor]] = []
        encoders: tuple[str, ...] = ()
        for part in self.parts:
            found = part.concepts(probe, trainer)
            new = [place for place, name in enumerate(found.names) if spoken(name) not in names]
            names |= {spoken(found.names[place]): found.names[place] for place in new}
            columns.append((found.scores, torch.tensor(new, dtype=torch.long)))
            encoders += found.encoders
        table = empty_table(len(probe), len(names))
        for rows in torch.arange(len(probe)).split(ROWS):
            table[rows[0] : rows[-1] + 1] = torch.cat([scores[rows][:, new].float() for scores, new in columns], 1)
        return Concepts(tuple(names.values()), table, encoders)

    def judge(self, names: Sequence[str], probe: Probe, trainer: TrainerFactory) -> Judgement:
        """Judges each concept by the first part that knows it."""
        known = torch.zeros(len(names), dtype=torch.bool)
        asked: list[tuple[Tensor, Judgement]] = []
        for part in self.parts:
            open_ = (~known).nonzero().flatten()
            judgement = part.judge([names[place] for place in open_.tolist()], probe, trainer)
            asked.append((open_, judgement))
            known[open_] |= judgement.known

        def scores(rows: Tensor) -> Tensor:
            found = torch.zeros(len(rows), len(names))
            for places, judgement in asked:
                own = places[judgement.known]
                found[:, own] = judgement.scores(rows)[:, judgement.known].float()
            return found

        return Judgement(known, scores)


@dataclass(frozen=True)
class WordsBeside:
    """A word list, and beside it sources that know concepts of their own: `concepts=words+visual`.

    CLIPs look for the words. Linear explanations join the sources to their own concepts, as one list.

    Attributes:
        words: For CLIPs.
        beside: Sources that judge too, such as `VisualConcepts`.
    """

    words: WordList
    beside: Sequence

    @property
    def suffix(self) -> str:
        """What follows the name of a method that joins the sources: +visual."""
        return "".join(f"+{source.name}" for source in self.beside)

    def of(self, probe: Probe | None) -> tuple[str, ...]:
        """The words that no source beside them knows better."""
        words = self.words.of(probe)
        if probe is None:
            return words
        known = {spoken(name) for source in self.beside for name in source.vocabulary(probe)}
        return tuple(word for word in words if spoken(word) not in known)


def join(concepts: Any, listed: WordList | None) -> Any:
    """A source of concepts with those that stand beside a word list; the source alone for a list of words only."""
    return Joined([concepts, *listed.beside]) if isinstance(listed, WordsBeside) else concepts


def with_visual(clip: Judge, visual: Judge) -> Joined:
    """A judge by whom features of pictures are computed, and all else is seen by a CLIP."""
    return Joined([visual, clip])


def fair(judge: Judge, probe: Probe, explanations: Iterable[Explanation]) -> Judge:
    """The judge; where it is a CLIP and explanations were made with features of pictures, `with_visual`.

    A CLIP would take the name of a feature, such as "mostly vertical lines, fine", for a phrase like any other.
    """
    computed = any(FEATURES_COMPUTED in explanation.made_by[1:] for explanation in explanations)
    return with_visual(judge, VisualConcepts()) if computed and judge.vocabulary(probe) is None else judge
