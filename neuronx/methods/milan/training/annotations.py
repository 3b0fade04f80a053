"""Where `train.py milan=` and the experiments take annotated units from."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from neuronx.milannotations.published import HOST
from neuronx.milannotations.reading import load
from neuronx.types import TrainerFactory

if TYPE_CHECKING:
    from neuronx.milannotations.dataset import Milannotations


class Annotations(Protocol):
    """Annotated units by the names of MILAN."""

    @property
    def domain(self) -> str:
        """Kind of the pictures, "shapes" or "natural"."""
        ...

    @property
    def encoder(self) -> str:
        """The network that captioners of these units see through, unless told otherwise."""
        ...

    def load(self, name: str, trainer: TrainerFactory) -> "Milannotations":
        """The units of a key, such as `base` or `not-alexnet-imagenet`."""
        ...

    def about(self, units: "Milannotations") -> str:
        """What the units are and who described them, for cards."""
        ...

    def truth(self, units: "Milannotations") -> list[tuple[str, ...]]:
        """For each unit the ways to name what it answers to; () where nobody knows."""
        ...


@dataclass(frozen=True)
class PublishedAnnotations:
    """Units that people described, or folders of yours in the same layout.

    Attributes:
        root: Holds `<network>/<data>` folders; by default `$MILAN_DATA_DIR`, else `$NEURONX_DATA/milannotations`.
        download: Fetch published models that are not there: gigabytes each.
        host: A mirror of the published zips.
        imagenet: The folder of ImageNet's validation images, for models whose images may not be handed out.
        squash: Show ImageNet's images squashed to the square, as the published captioners saw them.
        layers: Only these.
        domain: The kind of the pictures, "natural" or "shapes".
        encoder: See `Annotations`.
    """

    root: str | Path | None = None
    download: bool = False
    host: str = HOST
    imagenet: str | Path | None = None
    squash: bool = False
    layers: list[str] | None = None
    domain: str = "natural"
    encoder: str = "resnet101"

    def load(self, name: str, trainer: TrainerFactory) -> "Milannotations":
        """The units of a key, or of a folder."""
        places = {"download": self.download, "host": self.host, "imagenet": self.imagenet, "squash": self.squash}
        return load(name, self.root, layers=self.layers, **places)  # type: ignore[arg-type]

    def about(self, units: "Milannotations") -> str:
        """How many units of which models."""
        return f"{len(units)} units of {', '.join(units.models)}"

    def truth(self, units: "Milannotations") -> list[tuple[str, ...]]:
        """Nobody knows."""
        return [()] * len(units)
