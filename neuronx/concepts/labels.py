"""What images are known to show, as concepts and as judge: labels, with superclasses, and masks or other truth."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from neuronx.concepts.formula import spoken
from neuronx.data.probe import Probe
from neuronx.data.segmentation import areas
from neuronx.errors import Unsuitable, UserError, unknown
from neuronx.types import Concepts, Judgement, TrainerFactory

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LabelConcepts:
    """The concepts that labelled images show for sure: one class each, or several.

    A concept's name is the class's or superclass's, with "_" as space. Names that are equal but for case become one
    concept, which an image shows if any of the merged classes is its own: on ImageNet two classes are called "missile",
    and nine superclasses share their name with a class.

    Attributes:
        superclasses: Whether superclasses are concepts too.
    """

    superclasses: bool = True
    name: ClassVar[str] = "labels"
    domain: ClassVar[str] = ""
    encoders: ClassVar[tuple[str, ...]] = ()

    def concepts(self, probe: Probe, trainer: TrainerFactory) -> Concepts:
        """Classes, then superclasses: scores (N, C) of 0 and 1."""
        names, table = self.table(probe)
        repeated = len(probe.class_names) + (len(probe.hierarchy) if self.superclasses else 0) - len(names)
        if repeated:
            log.info("labels of %s: %d concepts; %d repeated names were merged", probe.name, len(names), repeated)
        return Concepts(names, shown_by_labels(probe, table))

    def table(self, probe: Probe) -> tuple[tuple[str, ...], Tensor]:
        """Names of the C concepts and which classes they cover: (classes, C) float32 of 0 and 1."""
        _check_labelled(probe)
        return _table(probe.class_names, probe.hierarchy if self.superclasses else {}, probe.name)

    def vocabulary(self, probe: Probe) -> tuple[str, ...]:
        """The names of all concepts."""
        return self.table(probe)[0]

    def judge(self, names: Sequence[str], probe: Probe, trainer: TrainerFactory) -> Judgement:
        """Judges each name by the label of the same name (lower case, "_" as space); others are unknown."""
        known, table = look_up(names, *self.table(probe))
        return Judgement(known, lambda rows: shown_by_labels(probe, table, rows))


def look_up(names: Sequence[str], have: Sequence[str], columns: Tensor) -> tuple[Tensor, Tensor]:
    """Finds concepts by name among those that we have.

    Args:
        names: The C concepts asked for.
        have: Names of the columns.
        columns: (R, len(have)).

    Returns:
        (C,) bool, which names are there, and (R, C) float32, their columns; zeros for the others.
    """
    index = {spoken(name): position for position, name in enumerate(have)}
    positions = torch.tensor([index.get(spoken(name), -1) for name in names], dtype=torch.long)
    known = positions >= 0
    found = columns[:, positions.clamp(min=0)].float() * known
    return known, found


def _check_labelled(probe: Probe) -> None:
    if (probe.labels is None and probe.label_sets is None) or not probe.class_names:
        raise Unsuitable(
            f"The images of `{probe.name}` have no labels, so labels can neither explain nor judge: take another "
            "explain= or judge=, or data with one subfolder for each class."
        )


def shown_by_labels(probe: Probe, table: Tensor, rows: Tensor | slice = slice(None)) -> Tensor:
    """Which concepts some images show, (B, C), from those that each class covers (classes, C)."""
    if probe.label_sets is not None:
        return (probe.label_sets[rows].float() @ table).clamp(max=1)
    assert probe.labels is not None
    return table[probe.labels[rows]]


def _table(
    class_names: Sequence[str], hierarchy: Mapping[str, Sequence[int]], source: str
) -> tuple[tuple[str, ...], Tensor]:
    covers = [(name, [index]) for index, name in enumerate(class_names)]
    covers += [(name, list(classes)) for name, classes in hierarchy.items()]
    merged: dict[str, tuple[str, set[int]]] = {}
    for name, classes in covers:
        wrong = [c for c in classes if not 0 <= c < len(class_names)]
        if wrong:
            raise UserError(
                f"Superclass `{name}` of `{source}` covers class {wrong[0]}, but there are {len(class_names)} classes."
            )
        merged.setdefault(spoken(name), (name.replace("_", " "), set()))[1].update(classes)
    table = torch.zeros(len(class_names), len(merged))
    for column, (_, covered) in enumerate(merged.values()):
        table[sorted(covered), column] = 1
    return tuple(name for name, _ in merged.values()), table


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
