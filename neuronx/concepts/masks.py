"""The truth as concepts: what annotated or generated images are known to show."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from neuronx.concepts.labels import look_up
from neuronx.data.probe import Probe
from neuronx.data.segmentation import areas
from neuronx.errors import UserError, unknown
from neuronx.types import Concepts, Judgement, TrainerFactory

log = logging.getLogger(__name__)

MEASURES = ("presence", "area")


@dataclass(frozen=True)
class TruthConcepts:
    """A concept for each thing that the probe knows its images to show, from its masks or its factors.

    Attributes:
        measure: `presence` scores 1 for what an image shows anywhere; `area` scores the share of the image that shows
            it, for scenes that hold everything somewhere, like streets.
    """

    measure: str = "presence"
    domain: ClassVar[str] = ""
    encoders: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        if self.measure not in MEASURES:
            raise unknown("measure of masks", self.measure, MEASURES)

    @property
    def name(self) -> str:
        """Of the judge: masks, or masks-area."""
        return "masks" if self.measure == "presence" else f"masks-{self.measure}"

    def concepts(self, probe: Probe, trainer: TrainerFactory) -> Concepts:
        """What each image shows: scores (N, C) of 0 and 1, or between."""
        names, shown = self._truth(probe)
        return Concepts(names, shown.float())

    def vocabulary(self, probe: Probe) -> tuple[str, ...]:
        """The names of all concepts."""
        return self._truth(probe)[0]

    def judge(self, names: Sequence[str], probe: Probe, trainer: TrainerFactory) -> Judgement:
        """Judges each name by the truth of the same name (lower case, "_" as space); others are unknown."""
        known, shown = look_up(names, *self._truth(probe))
        return Judgement(known, lambda rows: shown[rows])

    def _truth(self, probe: Probe) -> tuple[tuple[str, ...], Tensor]:
        if self.measure == "area" and probe.segmentation is not None:
            return probe.segmentation.names, areas(probe.segmentation, len(probe), probe.name)
        truth = probe.truth if self.measure == "presence" else None
        if truth is None:
            raise UserError(
                f"Nobody knows what the images of `{probe.name}` show: judge=masks needs data with labels of pixels "
                "(data=labelled_pictures, data=broden with its index) or known factors (data=shapes); "
                "take judge=labels or a CLIP."
            )
        if bool((truth[1] == truth[1][:1]).all()):
            log.warning(
                "All images of `%s` show the same concepts somewhere, so that presence tells nothing of units; "
                "take judge.measure=area.",
                probe.name,
            )
        return truth
