"""A folder of pictures and a folder of pictures of their labels, with a legend."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuronx.data.files import contents, pictures_in
from neuronx.data.folder import FolderProbe, Listing
from neuronx.data.label_maps import NOTHING, OUTSIDE, by_threads, cut, read_pixels, size_of, together
from neuronx.data.legend import Legend, read_legend
from neuronx.data.segmentation import Regions, cells, under
from neuronx.errors import UserError
from neuronx.store.cache import digest

LABELS = frozenset({".png", ".bmp", ".tif", ".tiff", ".pgm"})
"""Kinds of files that keep labels exactly."""
_UNKNOWN = -3


def labelled_pictures(
    root: str | Path | None = None,
    *,
    images: str = "images",
    annotations: str = "annotations",
    legend: str | Path | Mapping[int | str, str] | Sequence[str] | None = None,
    ignore: Sequence[int | str] = (),
    category: str = "object",
    grid: Sequence[int] = (112, 112),
    **options: Any,
) -> FolderProbe:
    """Pictures whose pixels are labelled one by one; without class labels.

    Args:
        root: The folder; `$NEURONX_DATA/<name>` by default.
        images: Folder of the pictures, in the root.
        annotations: Folder of the pictures of labels, in the root: for each picture one of the same name but for the
            ending, of the same size, whose pixels are grey values of 8 or 16 bits, indices of a palette, or colours.
        legend: What the labels stand for; see `read_legend`. Labels with one name are one concept.
        ignore: Labels (by number or name) of pixels that nobody annotated.
        category: What kind of concepts they are.
        grid: (height, width) of the grid on which masks are compared.
        options: Of `FolderProbe`.

    Raises:
        UserError: If a folder or a picture of labels is missing, or the legend cannot be read.
    """
    if len(grid) != 2 or min(grid) < 1:
        raise UserError(f"data.grid is a height and a width, such as [112,112], not {list(grid)}.")
    known = read_legend(legend)
    ignored = known.numbers([ignore] if isinstance(ignore, int | str) else ignore, "data.ignore")
    names = tuple(dict.fromkeys(name for number, name in known.names.items() if number not in ignored))

    def list_images(root: Path) -> Listing:
        pictures, labels = root / images, root / annotations
        for option, folder in (("images", pictures), ("annotations", labels)):
            if not folder.is_dir():
                raise UserError(f"There is no folder {folder}. Say which folder of {root} it is: data.{option}=NAME.")
        paths = pictures_in(pictures)
        annotated = _matched(paths, pictures, labels)
        return Listing(
            pictures,
            paths,
            segmentation=lambda kept: LabelledPictures(
                names,
                (category,),
                (int(grid[0]), int(grid[1])),
                known,
                ignored,
                pictures,
                labels,
                tuple((paths[position], annotated[position]) for position in kept),
            ),
        )

    return FolderProbe(root, list_images=list_images, **options)


def _matched(paths: Sequence[str], pictures: Path, labels: Path) -> list[str]:
    """The picture of labels of each picture: the same path but for the ending."""
    found: dict[str, str] = {}
    for path in pictures_in(labels, LABELS):
        if (other := found.setdefault(str(Path(path).with_suffix("")), path)) != path:
            raise UserError(f"{labels} has labels of the same picture twice: {other} and {path}.")
    stems = [str(Path(path).with_suffix("")) for path in paths]
    if missing := [path for path, stem in zip(paths, stems, strict=True) if stem not in found]:
        shown = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise UserError(f"{len(missing)} of {len(paths)} pictures in {pictures} have no labels in {labels}: {shown}.")
    return [found[stem] for stem in stems]


@dataclass(frozen=True)
class LabelledPictures:
    """One label for each pixel, from files.

    Attributes:
        labels: The C concepts as the legend spells them.
        categories: The one kind of concepts.
        grid: (height, width) on which masks are compared.
        legend: All labels.
        ignored: Labels of pixels that nobody annotated.
        pictures: Folder of the pictures.
        annotations: Folder of their labels.
        files: Of each of the N pictures, itself and its labels, in their folders.
    """

    labels: tuple[str, ...]
    categories: tuple[str, ...]
    grid: tuple[int, int]
    legend: Legend
    ignored: frozenset[int]
    pictures: Path
    annotations: Path
    files: tuple[tuple[str, str], ...]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The concepts with spaces for "_" where that keeps them distinct."""
        spaced = tuple(" ".join(label.replace("_", " ").split()) for label in self.labels)
        return spaced if len(set(spaced)) == len(spaced) else self.labels

    @property
    def category(self) -> Tensor:
        """(C,) int64 zeros: there is one category."""
        return torch.zeros(len(self.labels), dtype=torch.int64)

    def regions(
        self, rows: Sequence[int], transform: Callable[..., Tensor], grid: tuple[int, int] | None = None
    ) -> Regions:
        """The regions of some pictures, one for each label in a picture; see `Segmentation.regions`."""

        def one(row: int) -> tuple[Tensor, Tensor]:
            concepts = self._concepts(row)
            height, width = concepts.shape
            where = cells(transform, height, width, grid or self.grid)
            return cut([under(concepts, *where, outside=OUTSIDE).long()], (), len(self.labels))

        return together(by_threads(one, rows))

    def presence(self, rows: Sequence[int]) -> Tensor:
        """(B, C) bool: the labels of the pictures' pixels."""
        count = len(self.labels)
        return torch.stack(
            by_threads(lambda row: (self._concepts(row) + 1).flatten().bincount(minlength=count + 1)[1:] > 0, rows)
        )

    @cached_property
    def _table(self) -> np.ndarray:
        """The concept of each number up to the largest in the legend, and one for all beyond."""
        table = np.full(max(*self.legend.names, *self.ignored, 0) + 2, _UNKNOWN, np.int32)
        for number, label in self.legend.names.items():
            table[number] = NOTHING if number in self.ignored else self.labels.index(label)
        table[list(self.ignored)] = NOTHING
        return table

    def _concepts(self, row: int) -> Tensor:
        """(H, W) int32 concept of each pixel, -1 for none."""
        picture, path = self.pictures / self.files[row][0], self.annotations / self.files[row][1]
        found = self._numbers(read_pixels(path, picture.name), path)
        if found.shape != (size := size_of(picture)):
            raise UserError(
                f"{picture} and its labels {path} differ in size: {size[0]} x {size[1]} and "
                f"{found.shape[0]} x {found.shape[1]} pixels (height x width)."
            )
        concepts = self._table.take(found, mode="clip")
        if concepts.min() == _UNKNOWN:
            y, x = np.argwhere(concepts == _UNKNOWN)[0].tolist()
            raise UserError(
                f"{path} has {self.legend.spell(int(found[y, x]))} at row {y}, column {x}, which {self.legend.where} "
                "does not have (data.ignore=[...] for labels that mean nothing)."
            )
        return torch.from_numpy(concepts)

    def _numbers(self, pixels: np.ndarray, path: Path) -> np.ndarray:
        """(H, W) integers, the number of each pixel's label."""
        if pixels.ndim == 2 and not self.legend.colours:
            return pixels
        if pixels.ndim == 2:
            raise UserError(f"{path} is no picture in colours, but {self.legend.where} is a legend of colours.")
        red, green, blue = np.moveaxis(pixels.astype(np.int32), 2, 0)
        if self.legend.colours:
            return (red << 16) + (green << 8) + blue
        if (red == green).all() and (red == blue).all():  # a grey picture that was saved in colour
            return red
        raise UserError(f"{path} is a picture in colours, but {self.legend.where} is a legend of numbers.")

    @cached_property
    def fingerprint(self) -> str:
        """Of the legend and the bytes of all pictures of labels."""
        paths = [path for _, path in self.files]
        found = contents(self.annotations, paths, "labels")
        if None in found:
            raise UserError(f"The picture of labels {self.annotations / paths[found.index(None)]} does not decode.")
        return digest([list(self.labels), sorted(self.legend.names.items()), sorted(self.ignored), found])
