"""What each pixel shows: one interface for Broden, folders of label pictures and the embedded world.

Pixels of a picture that show the same concepts form a region. A concept's mask, and that of any formula of concepts, is
a union of regions, so that counting pixels by region counts them for all concepts and formulas at once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from neuronx.progress import progress
from neuronx.store.cache import entry, packed
from neuronx.targets.preprocess import Preprocess


@dataclass(frozen=True)
class Regions:
    """The pixels of B pictures, each in one region.

    Attributes:
        maps: (B, H, W) int64, the region of each cell of the concept grid, 0 to R-1; no two pictures share a region.
        picture: (R,) int64, 0 to B-1, whose region it is.
        shows: (R, C) bool, which concepts all cells of the region show; none for what is not annotated.
    """

    maps: Tensor
    picture: Tensor
    shows: Tensor

    @property
    def sizes(self) -> Tensor:
        """(R,) int64 number of cells of each region."""
        return torch.bincount(self.maps.flatten(), minlength=len(self.picture))

    def masks(self, concepts: Sequence[int] | Tensor) -> Tensor:
        """(B, len(concepts), H, W) bool: where the pictures show some concepts."""
        return self.shows[:, torch.as_tensor(concepts)][self.maps].movedim(-1, 1)


class Segmentation(Protocol):
    """Pixel labels of a probe's pictures, streamed: nothing is read before it is asked for.

    Attributes:
        names: The C concepts as people say them, distinct: "street", "red", "striped".
        labels: The same as the data set spells them, "street-s", for published files.
        categories: Names of the kinds of concepts, in the data set's order: object, part, scene, ...
        category: (C,) int64, the primary category of each concept.
        grid: (height, width) of the concept grid on which masks are compared, unless another is asked for.
        fingerprint: Hex digest of everything that decides which pixels show which concepts.
    """

    @property
    def names(self) -> tuple[str, ...]: ...  # noqa: D102

    @property
    def labels(self) -> tuple[str, ...]: ...  # noqa: D102

    @property
    def categories(self) -> tuple[str, ...]: ...  # noqa: D102

    @property
    def category(self) -> Tensor: ...  # noqa: D102

    @property
    def grid(self) -> tuple[int, int]: ...  # noqa: D102

    @property
    def fingerprint(self) -> str: ...  # noqa: D102

    def regions(
        self, rows: Sequence[int], transform: Callable[..., Tensor], grid: tuple[int, int] | None = None
    ) -> Regions:
        """The regions of some pictures as the network sees them: resized and cropped like its input.

        Args:
            rows: B rows of the probe.
            transform: Of the network.
            grid: (height, width) of the maps; the segmentation's own by default.

        Raises:
            UserError: A label picture that is missing, of another size than its picture, or with unknown labels.
        """
        ...

    def presence(self, rows: Sequence[int]) -> Tensor:
        """(B, C) bool: which concepts B pictures show anywhere, seen whole and at the labels' own size.

        Raises:
            UserError: As `regions`.
        """
        ...


def cells(
    transform: Callable[..., Tensor],
    height: int,
    width: int,
    grid: tuple[int, int],
    labels: tuple[int, int] | None = None,
) -> tuple[Tensor, Tensor]:
    """Which pixels of a picture lie under the cells of a grid that is laid over a network's input.

    A transform that is no `Preprocess` is taken to keep the whole picture.

    Args:
        transform: Of the network.
        height: Of the picture.
        width: Of the picture.
        grid: (gh, gw).
        labels: (height, width) of the picture of labels, where it is another than the picture's.

    Returns:
        Rows (gh,) and columns (gw,) int64 of the pixel (of labels) under each cell's centre; -1 where the crop reaches
        beyond the picture and shows nothing.
    """
    sides: list[Tensor] = []
    resized, cropped = transform.sizes(height, width) if isinstance(transform, Preprocess) else ((height, width),) * 2
    for source, scaled, crop, count in zip(labels or (height, width), resized, cropped, grid, strict=True):
        before = round((scaled - crop) / 2) if crop <= scaled else -((crop - scaled) // 2)
        centre = (torch.arange(count, dtype=torch.float64) + 0.5) * crop / count + before
        pixel = (centre * source / scaled).floor().long()
        sides.append(pixel.where((centre >= 0) & (centre < scaled), -1).clamp(max=source - 1))
    return sides[0], sides[1]


def under(labels: Tensor, rows: Tensor, columns: Tensor, outside: int) -> Tensor:
    """What lies under the cells of a grid.

    Args:
        labels: (..., H, W) of integers.
        rows: (gh,) from `cells`.
        columns: (gw,) from `cells`.
        outside: Stands for cells that lie beyond the picture.

    Returns:
        (..., gh, gw), of the type of `labels`.
    """
    inside = (rows >= 0)[:, None] & (columns >= 0)
    return labels[..., rows.clamp(min=0), :][..., columns.clamp(min=0)].masked_fill(~inside, outside)


_BATCH = 64


def presence(segmentation: Segmentation, images: int, name: str) -> Tensor:
    """Whether pictures show concepts anywhere.

    Args:
        segmentation: Of a probe.
        images: Number N of its pictures.
        name: Of the data, for the progress bar.

    Returns:
        (N, C) bool.

    Raises:
        UserError: As `Segmentation.presence`.
    """
    return _passed("presence", segmentation, images, name, segmentation.presence)


def areas(segmentation: Segmentation, images: int, name: str) -> Tensor:
    """On which share of a picture, seen whole and on the segmentation's grid, it shows each concept.

    Args:
        segmentation: Of a probe.
        images: Number N of its pictures.
        name: Of the data, for the progress bar.

    Returns:
        (N, C) float32 in [0, 1].

    Raises:
        UserError: As `Segmentation.regions`.
    """

    def share(rows: range) -> Tensor:
        regions = segmentation.regions(rows, _whole)
        share = regions.sizes.float() / regions.maps[0].numel()
        found = torch.zeros(len(rows), regions.shows.shape[1])
        return found.index_add_(0, regions.picture, share[:, None] * regions.shows)

    return _passed("areas", segmentation, images, name, share)


def _whole(picture: Tensor) -> Tensor:
    return picture


def _passed(kind: str, segmentation: Segmentation, images: int, name: str, look: Callable[[range], Tensor]) -> Tensor:
    """(N, C) of what `look` finds on rows of pictures; from the store where it was found before."""
    place = entry(kind, {"segmentation": segmentation.fingerprint, "images": images, "grid": list(segmentation.grid)})
    if (kept := place.open()) is None:
        starts = progress(range(0, images, _BATCH), f"labels of {name}")
        found = torch.cat([look(range(at, min(at + _BATCH, images))) for at in starts])
        kept = place.publish(packed({kind: found}), concepts=list(segmentation.names))
    return kept.tensors()[kind]
