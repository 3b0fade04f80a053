"""What each pixel of Broden's images shows, by its index."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from neuronx.data.broden_index import UNKNOWN, Annotated, Labels
from neuronx.data.files import contents
from neuronx.data.label_maps import NOTHING, OUTSIDE, by_threads, cut, read_pixels, size_of, together
from neuronx.data.segmentation import Regions, cells, under
from neuronx.errors import UserError
from neuronx.store.cache import digest


@dataclass(frozen=True)
class BrodenSegmentation:
    """Labels of pixels and of whole images, of several categories at once.

    Attributes:
        table: The labels.
        folder: images/.
        images: The N images, by row.
    """

    table: Labels
    folder: Path
    images: tuple[Annotated, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The concepts in words: "street", "black color"."""
        return self.table.names

    @property
    def labels(self) -> tuple[str, ...]:
        """As label.csv spells them: "street-s", "black-c"."""
        return self.table.labels

    @property
    def categories(self) -> tuple[str, ...]:
        """The selected categories."""
        return self.table.categories

    @property
    def category(self) -> Tensor:
        """(C,) int64 primary category of each label."""
        return self.table.category

    @property
    def grid(self) -> tuple[int, int]:
        """The size of the pictures of labels: (112, 112) in broden1_224."""
        return self.images[0].grid

    def regions(
        self, rows: Sequence[int], transform: Callable[..., Tensor], grid: tuple[int, int] | None = None
    ) -> Regions:
        """The regions of some images; see `Segmentation.regions`."""

        @cache
        def under_cells(size: tuple[int, int], labels: tuple[int, int]) -> tuple[Tensor, Tensor]:
            return cells(transform, *size, grid or self.grid, labels=labels)

        def one(row: int) -> tuple[Tensor, Tensor]:
            image = self.images[row]
            if (found := size_of(self.folder / image.image)) != image.size:
                height, width = image.size
                raise image.row.wrong("ih", f"{image.image} is {found[0]} x {found[1]}, not {height} x {width}")
            where = under_cells(image.size, image.grid)
            planes = [under(plane, *where, outside=OUTSIDE).long() for plane in self._planes(image)]
            return cut(planes, image.whole, len(self.names))

        return together(by_threads(one, rows))

    def presence(self, rows: Sequence[int]) -> Tensor:
        """(B, C) bool: the labels of the pixels and the whole of the images."""

        def one(row: int) -> Tensor:
            shown = torch.zeros(len(self.names) + 1, dtype=torch.bool)
            for plane in self._planes(self.images[row]):
                shown[plane.long()] = True
            shown[list(self.images[row].whole)] = True
            return shown[:-1]  # the last is what NOTHING marked

        return torch.stack(by_threads(one, rows))

    def _planes(self, image: Annotated) -> list[Tensor]:
        """(sh, sw) int32 each: the concept of each pixel in every picture of an image's labels, -1 for none."""
        planes = [self._concepts(image, path) for path in image.pixels]
        return planes or [torch.full(image.grid, NOTHING, dtype=torch.int32)]

    def _concepts(self, image: Annotated, path: str) -> Tensor:
        where = f"{image.row.path}, line {image.row.line}"
        pixels = read_pixels(self.folder / path, f"{image.image} ({where})")
        if pixels.shape[:2] != image.grid:
            found, expected = (f"{height} x {width}" for height, width in (pixels.shape[:2], image.grid))
            raise UserError(f"{where}: {path} is {found} pixels, not sh x sw = {expected}.")
        numbers = pixels if pixels.ndim == 2 else pixels[..., 0] + (pixels[..., 1].astype(np.uint16) << 8)
        concepts = self.table.concept.take(numbers, mode="clip")
        if concepts.min() == UNKNOWN:
            y, x = np.argwhere(concepts == UNKNOWN)[0].tolist()
            raise UserError(
                f"{self.folder / path} ({where}) has label {numbers[y, x]} at row {y}, column {x}, which label.csv "
                "does not have."
            )
        return torch.from_numpy(concepts)

    @cached_property
    def fingerprint(self) -> str:
        """Of the labels, the index and the bytes of all pictures of labels."""
        paths = list(dict.fromkeys(path for one in self.images for path in one.pixels))
        content = dict(zip(paths, contents(self.folder, paths, "labels"), strict=True))
        if broken := [path for path, found in content.items() if found is None]:
            raise UserError(f"The picture of labels {self.folder / broken[0]} does not decode.")
        images = [[one.size, one.grid, [content[path] for path in one.pixels], one.whole] for one in self.images]
        table = self.table
        return digest([table.labels, table.categories, table.category.tolist(), table.concept.tolist(), images])
