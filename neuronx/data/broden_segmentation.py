"""What each pixel of Broden's images shows, by its index."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from neuronx.cache import digest
from neuronx.data.broden_index import UNKNOWN, Annotated, Labels
from neuronx.data.files import contents
from neuronx.data.label_maps import NOTHING, OUTSIDE, by_threads, cut, read_pixels, size_of, together
from neuronx.data.segmentation import Regions, cells, under
from neuronx.errors import UserError


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
        return together(by_threads(lambda row: self._cut(row, transform, grid or self.grid), rows))

    def presence(self, rows: Sequence[int]) -> Tensor:
        """(B, C) bool: the labels of the pixels and the whole of the images."""
        return torch.stack(by_threads(lambda row: self._cut(row, None, self.images[row].grid)[1].any(0), rows))

    def _cut(self, row: int, transform: Callable[..., Tensor] | None, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        one = self.images[row]
        if transform is not None and (found := size_of(self.folder / one.image)) != one.size:
            raise one.row.wrong("ih", f"{one.image} is {found[0]} x {found[1]}, not {one.size[0]} x {one.size[1]}")
        where = cells(transform or (lambda picture: picture), *one.size, grid, labels=one.grid)
        planes = [under(self._concepts(one, path), *where, outside=OUTSIDE) for path in one.pixels]
        if not planes:
            planes = [under(torch.full(one.grid, NOTHING), *where, outside=OUTSIDE)]
        return cut(planes, one.whole, len(self.names))

    def _concepts(self, one: Annotated, path: str) -> Tensor:
        """(sh, sw) int64 concept of each pixel, -1 for none."""
        whose = f"{one.image} ({one.row.path.name}, line {one.row.line})"
        pixels = torch.from_numpy(read_pixels(self.folder / path, whose).astype("int64"))
        if tuple(pixels.shape[:2]) != one.grid:
            found = " x ".join(map(str, pixels.shape[:2]))
            raise UserError(
                f"{one.row.path}, line {one.row.line}: {path} is {found} pixels, not sh x sw = "
                f"{one.grid[0]} x {one.grid[1]}."
            )
        numbers = pixels[..., 0] + 256 * pixels[..., 1] if pixels.ndim == 3 else pixels
        concepts = self.table.concept[numbers].masked_fill_(numbers == 0, NOTHING)
        if bool((concepts == UNKNOWN).any()):
            y, x = (concepts == UNKNOWN).nonzero()[0].tolist()
            raise UserError(
                f"{self.folder / path} ({one.row.path.name}, line {one.row.line}) has label {int(numbers[y, x])} at "
                f"row {y}, column {x}, which label.csv does not have."
            )
        return concepts

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
