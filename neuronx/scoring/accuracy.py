"""How often a network is right on the test pictures: what wrong preprocessing, weights or classes spoil first."""

import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from neuronx.concepts.formula import spoken
from neuronx.recording.record import answers_of
from neuronx.types import TrainerFactory

if TYPE_CHECKING:
    from neuronx.data.probe import Probe
    from neuronx.targets.target import Target

log = logging.getLogger("neuronx")


@dataclass(frozen=True)
class Accuracy:
    """How many test pictures a network gives the class that they are labelled with.

    Attributes:
        target: Name of the network.
        data: Name of the pictures.
        right: How many.
        n: Of how many.
        classes: That the network tells apart.
    """

    target: str
    data: str
    right: int
    n: int
    classes: int

    @property
    def value(self) -> float:
        """The share."""
        return self.right / self.n

    @property
    def is_chance(self) -> bool:
        """Whether guessing could do as well: it is at most two standard errors above."""
        chance = 1 / self.classes
        return self.value <= chance + 2 * math.sqrt(chance * (1 - chance) / self.n)

    def __str__(self) -> str:
        return f"accuracy of {self.target} on {self.data}: {100 * self.value:.1f} % ({self.n} test pictures)"


def accuracy(target: "Target", probe: "Probe", trainer: TrainerFactory) -> Accuracy | None:
    """The accuracy of a network on the test pictures, from the answers that were kept when its layers were recorded.

    Classes are matched by name where all names of the pictures' classes are names of the network's, else by number
    where there are as many. None where they are neither, where pictures have no labels or several, and where nothing
    was recorded; no picture is looked at.
    """
    if probe.labels is None or target.latents is not None or not len(probe.splits["test"]):
        return None
    found = answers_of(target, probe, trainer())
    if found is None:
        return None
    outputs, answers = found
    own = {spoken(name): number for number, name in enumerate(target.class_names)}
    names = [spoken(name) for name in probe.class_names]
    if len(own) == outputs and set(names) <= set(own) and len(set(names)) == len(names):
        numbers = torch.tensor([own[name] for name in names])
    elif len(names) == outputs > 1:
        numbers = torch.arange(outputs)
    else:
        return None
    rows = probe.splits["test"]
    right = int((answers[rows] == numbers[probe.labels[rows]]).sum())
    return Accuracy(target.name, probe.name, right, len(rows), outputs)


def accuracies(targets: Iterable["Target"], probe: "Probe", trainer: TrainerFactory) -> list[Accuracy]:
    """The accuracies of networks, those that are known; warns of networks that do no better than guessing."""
    known = [found for target in targets if (found := accuracy(target, probe, trainer)) is not None]
    for found in known:
        if found.is_chance:
            log.warning(
                "%s is at chance on %s (%.1f %%; guessing gives %.1f %%): check its transform, weights and the order "
                "of its classes.",
                *(found.target, found.data, 100 * found.value, 100 / found.classes),
            )
    return known
