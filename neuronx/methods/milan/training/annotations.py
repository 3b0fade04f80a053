"""Where `train.py milan=` takes annotated units from: the embedded world, or the MILANNOTATIONS."""

from dataclasses import dataclass
from pathlib import Path

from neuronx.milannotations import zips
from neuronx.milannotations.dataset import Milannotations
from neuronx.milannotations.loading import load
from neuronx.types import TrainerFactory


@dataclass(frozen=True)
class Embedded:
    """Units of the embedded networks, described from what is known of the pictures; made on first use."""

    domain: str = "shapes"

    def load(self, name: str, trainer: TrainerFactory) -> Milannotations:
        """Those of a key, such as `base` or `not-alexnet-imagenet`."""
        from neuronx.world.annotations import embedded

        return load(name, root=embedded.root(trainer))


@dataclass(frozen=True)
class Published:
    """Units that people described, or folders of yours in the same layout.

    Attributes:
        root: Holds `<network>/<data>` folders; by default `$MILAN_DATA_DIR`, else `$NEURONX_DATA/milannotations`.
        download: Fetch published models that are not there: gigabytes each.
        host: A mirror of the published zips.
        imagenet: The folder of ImageNet's validation images, for models whose images may not be handed out.
        squash: Show ImageNet's images squashed to the square, as the published captioners saw them.
        layers: Only these.
        domain: The kind of the pictures, "natural" or "shapes".
    """

    root: str | Path | None = None
    download: bool = False
    host: str = zips.HOST
    imagenet: str | Path | None = None
    squash: bool = False
    layers: list[str] | None = None
    domain: str = "natural"

    def load(self, name: str, trainer: TrainerFactory) -> Milannotations:
        """Those of a key, such as `base` or `not-alexnet-imagenet`, or of a folder."""
        return load(
            name,
            self.root,
            layers=self.layers,
            download=self.download,
            host=self.host,
            imagenet=self.imagenet,
            squash=self.squash,
        )
