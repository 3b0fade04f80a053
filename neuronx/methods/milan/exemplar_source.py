"""The exemplars of a network's units as pictures and masks for a captioner, made when they are looked at."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neuronx.recording.gather import gather
from neuronx.recording.maps import masks
from neuronx.recording.pictures import View, view
from neuronx.types import Plain, TrainerFactory

if TYPE_CHECKING:
    from neuronx.data.probe import Probe
    from neuronx.recording.exemplars import Exemplars
    from neuronx.targets.target import Target


@dataclass(eq=False)
class ExemplarSource:
    """Pictures as the network sees them, without normalisation, and where its units fire in them.

    Attributes:
        exemplars: Of a layer.
        units: (U,) int64, the units that are asked for.
        target: The network.
        probe: The images.
        size: Side of pictures and masks.
        maps: (U, k, h, w), filled by `prepare`; none of a layer without positions, whose masks are whole images.
    """

    exemplars: "Exemplars"
    units: Tensor
    target: "Target"
    probe: "Probe"
    size: int
    maps: Tensor | None = field(default=None, repr=False)

    @property
    def key(self) -> Plain:
        """Everything that decides the pictures and the masks of these units."""
        found = hashlib.sha256()
        for part in (self.exemplars.rows[self.units], self.exemplars.thresholds[self.units], self.units):
            found.update(part.contiguous().numpy().tobytes())
        return {
            "network": self.target.digest,
            "prefix": self.target.prefix_tokens,
            "layer": self.exemplars.layer,
            "images": self.probe.fingerprint,
            "view": repr(self.view),
            "exemplars": found.hexdigest(),
        }

    @property
    def count(self) -> int:
        """Number of units."""
        return len(self.units)

    @property
    def view(self) -> View:
        """How pictures are shown."""
        return view(self.target.transform, self.size)

    @property
    def fires(self) -> Tensor:
        """(U,) bool, whether a unit is above its threshold anywhere; if not, all of its masks are empty."""
        return self.exemplars.peaks[self.units, 0] > self.exemplars.thresholds[self.units]

    def pictures(self, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Images (B, k, 3, S, S) and masks (B, k, 1, S, S), both uint8, of some of the units."""
        some = torch.tensor(list(rows), dtype=torch.int64)
        wanted, place = self.exemplars.rows[self.units[some]].unique(return_inverse=True)
        loaded, shown = self.probe.load(wanted.tolist()), self.view
        images = shown(loaded) if isinstance(loaded, Tensor) else torch.stack([shown(one) for one in loaded])
        if self.maps is None:
            return images[place], torch.ones(*place.shape, 1, self.size, self.size, dtype=torch.uint8)
        thresholds = self.exemplars.thresholds[self.units[some]]
        # A threshold for each unit, which `masks` looks for on the second axis.
        cut = masks(self.maps[some].transpose(0, 1), thresholds, (self.size, self.size)).transpose(0, 1)
        return images[place], cut.unsqueeze(2).byte()


def prepare(sources: Sequence[ExemplarSource], trainer: TrainerFactory) -> None:
    """Looks at the network's maps on the exemplars of several layers, in one pass; every process gets all of them."""
    if not sources:
        return
    found = {source.exemplars.layer: source.exemplars for source in sources}
    units = {source.exemplars.layer: source.units for source in sources}
    maps, _ = gather(found, units, sources[0].target, sources[0].probe, trainer)
    for source in sources:
        source.maps = maps.get(source.exemplars.layer)
