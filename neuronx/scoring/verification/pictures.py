"""Pictures that test explanations, and who makes them: a world that draws any scene, or a generator of the user's."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from PIL import Image
from torch import Tensor

from neuronx.data.in_memory import probe_of
from neuronx.data.probe import Probe
from neuronx.errors import UserError, first_line


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


class TextToImage(Protocol):
    """A generator of pictures of the user's.

    Attributes:
        name: Used in tables.
    """

    @property
    def name(self) -> str:
        """Used in tables."""
        ...

    def __call__(self, texts: Sequence[str]) -> Tensor | Sequence[Image.Image]:
        """One picture of each text, another each time that a text is repeated: (B, 3, H, W) uint8, or PIL pictures."""
        ...


def generated(generator: TextToImage, texts: Sequence[str], number: int, domain: str) -> Probe:
    """A number of pictures of each text, text by text, as a probe of a domain.

    Raises:
        UserError: A generator that fails, or gives another number of pictures than texts.
    """
    asked = [text for text in texts for _ in range(number)]
    try:
        pictures = generator(asked)
    except Exception as error:  # of the user's code, of any kind
        raise UserError(f"The generator {generator.name} failed: {first_line(error)}.") from error
    if len(pictures) != len(asked):
        raise UserError(f"The generator {generator.name} made {len(pictures)} pictures of {len(asked)} texts.")
    return probe_of(pictures, name=generator.name, domain=domain)
