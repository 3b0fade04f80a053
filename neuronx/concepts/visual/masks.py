"""Where pictures show features: pixel labels that nobody drew, for Network Dissection on any pictures."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from neuronx.concepts.visual.bank import AT_ONCE, FEATURES, VERSION
from neuronx.concepts.visual.planes import EPSILON, Planes
from neuronx.data.label_maps import together
from neuronx.data.probe import Probe
from neuronx.data.segmentation import Regions
from neuronx.options import OpenShare
from neuronx.progress import progress
from neuronx.store.cache import digest, entry, packed
from neuronx.targets.identity import transform_digest
from neuronx.targets.preprocess import Preprocess

PLACED = tuple(feature for feature in FEATURES if feature.place is not None)
"""The features that have a place."""

WHOLE = Preprocess(resize=(224, 224))
"""Where a network's transform is a function of its own, the whole picture is taken."""


@dataclass(frozen=True)
class VisualMasks:
    """The cells of pictures that show each feature with a place; a `Segmentation`, of what the network sees.

    A cell shows something that is there or not (a colour, a smooth area) where more than half of its pixels do. Of what
    there is more or less (lines, texture, dots) it shows as much as the strongest cells of the train pictures, those
    above a quantile, and never less than .0001.

    Attributes:
        probe: The pictures.
        quantile: Of the cells of all train pictures, above which a cell shows a feature that there is more or less of.
        grid: (height, width) in cells.
        most: Train pictures that the thresholds come from, evenly spaced where there are more.
    """

    probe: Probe
    quantile: OpenShare = 0.98
    grid: tuple[int, int] = (28, 28)
    most: int = 500

    @property
    def names(self) -> tuple[str, ...]:
        """The same as of the features that explain and judge."""
        return tuple(feature.name for feature in PLACED)

    labels = names

    @property
    def categories(self) -> tuple[str, ...]:
        """The groups of the features."""
        return tuple(dict.fromkeys(feature.group for feature in PLACED))

    @property
    def category(self) -> Tensor:
        """(C,) int64 group of each feature."""
        return torch.tensor([self.categories.index(feature.group) for feature in PLACED])

    @property
    def fingerprint(self) -> str:
        """Of the pictures, the features and how their thresholds are found."""
        train = digest(self.probe.split("train").tolist())
        return digest(["visual masks", VERSION, self.probe.fingerprint, self.quantile, self.most, train])

    def regions(
        self, rows: Sequence[int], transform: Callable[..., Tensor], grid: tuple[int, int] | None = None
    ) -> Regions:
        """See `Segmentation.regions`."""
        return together([_cut(masks) for masks in self.masks(rows, transform, grid)])

    def presence(self, rows: Sequence[int]) -> Tensor:
        """(B, C) bool: which features B whole pictures show in some cell."""
        return self.masks(rows, WHOLE).flatten(2).any(2)

    def masks(
        self, rows: Sequence[int], transform: Callable[..., Tensor], grid: tuple[int, int] | None = None
    ) -> Tensor:
        """(B, C, gh, gw) bool: which cells of some pictures, as a network with a transform sees them, show what."""
        seen, size = _plain(transform), grid or self.grid
        return self._maps(rows, seen, size) > self._thresholds(seen, size)[:, None, None]

    def ious(self, masks: Tensor, rows: Sequence[int], transform: Callable[..., Tensor]) -> Tensor:
        """How far given masks (B, H, W) bool of pictures, such as those of exemplars, lie on each feature: IoU (B, C).

        IoU is 0 where the picture shows none of a feature and the mask is empty.
        """
        shown = self.masks(rows, transform, (masks.shape[1], masks.shape[2])).flatten(2)
        given = masks.flatten(1)[:, None]
        both, either = (shown & given).sum(2), (shown | given).sum(2)
        return both / either.clamp(min=1)

    def _maps(self, rows: Sequence[int], seen: Preprocess, grid: tuple[int, int]) -> Tensor:
        """(B, C, gh, gw) float32: mean of each cell's pixels."""
        pictures = self.probe.loader(seen).dataset[list(rows)][0]
        return torch.cat([_maps(some.float().expand(-1, 3, -1, -1), grid) for some in pictures.split(AT_ONCE)])

    def _thresholds(self, seen: Preprocess, grid: tuple[int, int]) -> Tensor:
        """(C,) float32, from the train pictures; from the store where they were found before."""
        place = entry("visual thresholds", [self.fingerprint, transform_digest(seen), list(grid)])
        if (kept := place.open()) is None:
            train = self.probe.split("train")
            train = train[torch.linspace(0, len(train) - 1, min(len(train), self.most)).long()]
            parts = progress(train.split(16), f"features of {self.probe.name}")
            maps = torch.cat([self._maps(rows.tolist(), seen, grid) for rows in parts]).movedim(1, 0).flatten(1)
            rank = max(1, math.ceil(self.quantile * maps.shape[1]))
            found = maps.kthvalue(rank, 1).values.clamp(min=EPSILON).where(~_there_or_not(), 0.5)
            kept = place.publish(packed({"thresholds": found}), features=list(self.names))
        return kept.tensors()["thresholds"]


def _maps(pictures: Tensor, grid: tuple[int, int]) -> Tensor:
    planes = Planes(pictures)
    return torch.stack(
        [F.adaptive_avg_pool2d(feature.place(planes).float(), grid) for feature in PLACED if feature.place], 1
    )


def _there_or_not() -> Tensor:
    """(C,) bool: which features a pixel shows or not, rather than more or less of."""
    blank = Planes(torch.zeros(1, 3, 32, 32))
    return torch.tensor([feature.place(blank).dtype == torch.bool for feature in PLACED if feature.place])


def _cut(masks: Tensor) -> tuple[Tensor, Tensor]:
    """The region (gh, gw) of each cell of a picture, of cells that show the same, and what they show (R, C) bool."""
    shows, number = masks.flatten(1).T.unique(dim=0, return_inverse=True)
    return number.view(masks.shape[1:]), shows


def _plain(transform: Callable[..., Tensor]) -> Preprocess:
    """What a network sees, in [0, 1]."""
    return replace(transform, mean=None, std=None) if isinstance(transform, Preprocess) else WHOLE
