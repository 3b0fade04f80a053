"""Pixel labels of some categories only, and the images' own, or the reason why there are none."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from neuronx.data.probe import Probe
from neuronx.data.segmentation import Regions, Segmentation
from neuronx.errors import Unsuitable, unknown
from neuronx.store.cache import digest


def segmentation_of(probe: Probe, categories: Sequence[str] | None = None) -> Segmentation:
    """The pixel labels of a probe's images, of all categories or of some.

    Raises:
        UserError: For images without pixel labels, or a category that they do not have.
    """
    found = probe.segmentation
    if found is None:
        raise Unsuitable(
            f"Nobody has labelled the pixels of `{probe.name}`, which net_dissect and compositional need: take data "
            "that have masks (data=shapes, broden or labelled_pictures), or leave these methods out."
        )
    if categories is None:
        return found
    for name in categories:
        if name not in found.categories:
            raise unknown(f"category of `{probe.name}`", name, found.categories)
    return Selected(found, tuple(name for name in found.categories if name in categories))


@dataclass(frozen=True)
class Selected:
    """A segmentation of which only the concepts of some categories count.

    Attributes:
        whole: With all categories.
        categories: Those that count.
    """

    whole: Segmentation
    categories: tuple[str, ...]

    @cached_property
    def kept(self) -> Tensor:
        """(C,) int64 numbers of the concepts that count."""
        numbers = torch.tensor([self.whole.categories.index(name) for name in self.categories], dtype=torch.int64)
        return torch.isin(self.whole.category, numbers).nonzero().flatten()

    @property
    def names(self) -> tuple[str, ...]:
        """As people say them."""
        return tuple(self.whole.names[c] for c in self.kept.tolist())

    @property
    def labels(self) -> tuple[str, ...]:
        """As the data set spells them."""
        return tuple(self.whole.labels[c] for c in self.kept.tolist())

    @property
    def category(self) -> Tensor:
        """(C,) int64 among the categories that count."""
        old = [self.whole.categories[g] for g in self.whole.category[self.kept].tolist()]
        return torch.tensor([self.categories.index(name) for name in old], dtype=torch.int64)

    @property
    def grid(self) -> tuple[int, int]:
        """Of the whole."""
        return self.whole.grid

    @property
    def fingerprint(self) -> str:
        """Of the whole and the choice."""
        return digest([self.whole.fingerprint, list(self.categories)])

    def regions(
        self, rows: Sequence[int], transform: Callable[..., Tensor], grid: tuple[int, int] | None = None
    ) -> Regions:
        """See `Segmentation.regions`."""
        found = self.whole.regions(rows, transform, grid)
        return Regions(found.maps, found.picture, found.shows[:, self.kept])

    def presence(self, rows: Sequence[int]) -> Tensor:
        """See `Segmentation.presence`."""
        return self.whole.presence(rows)[:, self.kept]
