"""Pictures that test explanations, and who draws them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from neuronx.data.probe import Probe


@dataclass(frozen=True)
class Changes:
    """Groups of pictures; those of one group differ in one attribute.

    Attributes:
        images: The pictures.
        rows: (N,) int64, which of them; one may stand in several groups.
        group: (N,) int64, from 0 on.
        scene: (N,) int64, from 0 on: groups of one scene share their other attributes.
        about: (N,) int64, the concept that a group was made for, by its place in the list asked for; -1 for all.
        kind: drawn or matched.
        close: How many groups are close; drawn ones are by construction.
    """

    images: Probe
    rows: Tensor
    group: Tensor
    scene: Tensor
    about: Tensor
    kind: str = "drawn"
    close: int | None = None


class Drawer(Protocol):
    """Draws pictures of one kind on demand.

    Attributes:
        domain: The kind of pictures, as of a probe.
    """

    @property
    def domain(self) -> str:
        """The kind of pictures."""
        ...

    def bank(self, scenes: int) -> Changes:
        """Changes of each attribute of some scenes, one at a time, for all explanations alike."""
        ...

    def contrasts(self, concepts: Sequence[str], scenes: int) -> Changes:
        """For each concept, in some scenes, a picture that shows it and one in which one of its words is false.

        Concepts that cannot be drawn have none.
        """
        ...

    def shows(self, concepts: Sequence[str], number: int) -> tuple[Probe, Tensor]:
        """A number of pictures of each concept that can be drawn, and which one each shows: (N,) int64."""
        ...

    def pool(self, size: int) -> Probe:
        """Pictures that nobody has seen."""
        ...
