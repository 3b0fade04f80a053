"""The truth as concepts: what annotated or generated images are known to show."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from neuronx.concepts.labels import look_up
from neuronx.data.probe import Probe
from neuronx.errors import UserError
from neuronx.types import Concepts, Judgement, TrainerFactory


@dataclass(frozen=True)
class TruthConcepts:
    """A concept for each thing whose presence the probe knows, from its masks or its factors."""

    name: ClassVar[str] = "masks"
    domain: ClassVar[str] = ""

    def concepts(self, probe: Probe, trainer: TrainerFactory) -> Concepts:
        """Presence in each image: scores (N, C) of 0 and 1."""
        names, present = _truth(probe)
        return Concepts(names, present.float())

    def vocabulary(self, probe: Probe) -> tuple[str, ...]:
        """The names of all concepts."""
        return _truth(probe)[0]

    def judge(self, names: Sequence[str], probe: Probe, trainer: TrainerFactory) -> Judgement:
        """Judges each name by the truth of the same name (lower case, "_" as space); others are unknown."""
        known, present = look_up(names, *_truth(probe))
        return Judgement(known, lambda rows: present[rows])


def _truth(probe: Probe) -> tuple[tuple[str, ...], Tensor]:
    truth = probe.truth
    if truth is None:
        raise UserError(
            f"Nobody knows what the images of `{probe.name}` show: judge=masks needs data with labels of pixels "
            "(data=labelled_pictures, data=broden with its index) or known factors (data=shapes); take judge=labels or "
            "a CLIP."
        )
    return truth
