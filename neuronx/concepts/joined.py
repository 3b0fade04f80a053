"""Several sources of concepts as one list, and several judges as one: each judges what it knows."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from neuronx.concepts.formula import spoken
from neuronx.concepts.seen import as_seen_by
from neuronx.data.probe import Probe
from neuronx.errors import UserError
from neuronx.types import Concepts, Judgement, Target, TrainerFactory


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
        columns: list[Tensor] = []
        for part in self.parts:
            found = part.concepts(probe, trainer)
            new = [place for place, name in enumerate(found.names) if spoken(name) not in names]
            names |= {spoken(found.names[place]): found.names[place] for place in new}
            columns.append(found.scores[:, new].float())
        return Concepts(tuple(names.values()), torch.cat(columns, 1), self.encoders)

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
