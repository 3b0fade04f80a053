"""Broden, the picture set of Network Dissection: its tables, its images, and what each of their pixels shows."""

import re
import typing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuronx.data.class_folders import Listing
from neuronx.data.files import PictureFile, examined, lines
from neuronx.data.folder import FolderProbe
from neuronx.data.label_maps import (
    NOTHING,
    OUTSIDE,
    UNKNOWN,
    by_threads,
    cut,
    looked_up,
    read_pixels,
    together,
)
from neuronx.data.segmentation import Regions, cells, under
from neuronx.data.walk import pictures_in
from neuronx.errors import UserError, unknown
from neuronx.options import OptionsOf
from neuronx.store.cache import digest
from neuronx.tables.csv import TableRow, any_case, read_csv
from neuronx.tables.schemas import broden_label

_NUMBERS = 1 << 16
"""Labels are numbers of two bytes."""


@dataclass(frozen=True)
class Labels:
    """The labels of selected categories, as concepts.

    Attributes:
        labels: (C,) as Broden spells them, "street-s", in order of their numbers.
        names: The same in words, distinct.
        categories: Selected, in the order of category.csv.
        category: (C,) int64, the selected category that covers most with the label; of equals, the later one.
        concept: (65536,) int32 from a label's number to its concept; -1 for labels that show nothing (0, nameless, or
            of categories that are not selected), -3 for numbers that are no label's.
    """

    labels: tuple[str, ...]
    names: tuple[str, ...]
    categories: tuple[str, ...]
    category: Tensor
    concept: np.ndarray


@dataclass(frozen=True)
class Annotated:
    """One image of the index, with its labels of the selected categories.

    Attributes:
        row: Of the table, for messages.
        image: Path under images/.
        size: (height, width) of the image.
        grid: (height, width) of its pictures of labels.
        pixels: Paths of its pictures of labels under images/.
        whole: Concepts that the whole image shows.
    """

    row: TableRow
    image: str
    size: tuple[int, int]
    grid: tuple[int, int]
    pixels: tuple[str, ...]
    whole: tuple[int, ...]


def read_labels(root: Path, categories: Sequence[str] | None) -> Labels:
    """Reads category.csv, label.csv and c_<category>.csv.

    Args:
        root: The folder that holds them.
        categories: Those to keep; all of category.csv by default.

    Raises:
        UserError: A missing file or column, a number that is none, or a category that there is not.
    """
    every = [row.cells["name"].strip() for row in _table(root / "category.csv", "name")]
    for wanted in categories or ():
        if wanted not in every:
            raise unknown("category", wanted, every, f"They are listed in {root / 'category.csv'}.")
    chosen = tuple(name for name in every if name in (categories or every))
    listed = {name: dict(_coverage(root, name)) for name in every if name in chosen or _of(root, name).is_file()}
    concept = np.full(_NUMBERS, UNKNOWN, np.int32)
    labels: list[str] = []
    category: list[int] = []
    for row in _table(root / "label.csv", "number", "name"):
        number, label = _number(row, "number"), row.cells["name"].strip()
        if concept[number] != UNKNOWN:
            raise row.wrong("number", f"label {number} stands here for the second time")
        homes = [name for name, covers in listed.items() if number in covers]
        # A label that no category lists may still be in pictures; one of other categories only is none of ours.
        shows = number != 0 and label not in ("", "-") and (not homes or any(name in chosen for name in homes))
        concept[number] = len(labels) if shows else -1
        if shows:
            labels.append(label)
            category.append(max(range(len(chosen)), key=lambda c: (listed[chosen[c]].get(number, 0.0), c)))
    concept[0] = -1
    names = tuple(distinct([broden_label(label) for label in labels], [label.endswith("-s") for label in labels]))
    return Labels(tuple(labels), names, chosen, torch.tensor(category, dtype=torch.int64), concept)


def distinct(names: Sequence[str], scenes: Sequence[bool]) -> Iterator[str]:
    """Tells equal names apart: a scene called like a thing is "bar(scene)"; others are numbered."""
    seen: set[str] = set()
    for name, scene in zip(names, scenes, strict=True):
        plain = f"{name}(scene)" if scene and name in seen else name
        fresh = next(one for n in count(1) if (one := plain if n == 1 else f"{plain} ({n})") not in seen)
        seen.add(fresh)
        yield fresh


def read_index(path: Path, labels: Labels, split: str | None = None) -> list[Annotated]:
    """The images with a label in any selected category, in the order of the index.

    Args:
        path: index.csv, or one with other images.
        labels: From `read_labels`.
        split: Keep only images that the index marks so, "train" or "val"; all by default.

    Raises:
        UserError: A missing column, a number that is none, or a label that label.csv does not have; names the line.
    """
    rows = _table(path, "image", "split", "ih", "iw", "sh", "sw", *labels.categories)
    splits = sorted({row.cells["split"].strip() for row in rows})
    if split is not None and split not in splits:
        raise unknown("split", split, splits, f"They are listed in {path}.")
    rows = [row for row in rows if split in (None, row.cells["split"].strip())]
    concept = labels.concept.tolist()
    found = [_annotated(row, labels.categories, concept) for row in rows]
    return [one for one in found if one is not None]


def _annotated(row: TableRow, categories: Sequence[str], concepts: Sequence[int]) -> Annotated | None:
    pixels: list[str] = []
    whole: list[int] = []
    kept = False
    for category in categories:
        for item in filter(None, (item.strip() for item in row.cells[category].split(";"))):
            if not re.fullmatch(r"\d+(\.\d*)?", item):
                pixels.append(item)
                continue
            number = int(float(item))
            if number != float(item):
                raise row.wrong(category, f"expected the number of a label or the path of a picture, found `{item}`")
            concept = concepts[number] if number < _NUMBERS else UNKNOWN
            if concept == UNKNOWN:
                raise row.wrong(category, f"label.csv has no label {number}")
            kept |= number != 0
            whole += [concept] if concept >= 0 else []
    sizes = {name: _positive(row, name) for name in ("ih", "iw", "sh", "sw")}
    if not (kept or pixels):
        return None
    size, grid = (sizes["ih"], sizes["iw"]), (sizes["sh"], sizes["sw"])
    return Annotated(row, row.cells["image"].strip(), size, grid, tuple(pixels), tuple(whole))


def _table(path: Path, *columns: str) -> list[TableRow]:
    have, rows = read_csv(path, any_case(*columns))
    for column in columns:
        if column not in have:
            raise UserError(f"{path} has no column `{column}`; it has {', '.join(have)}.")
    return rows


def _of(root: Path, category: str) -> Path:
    return root / f"c_{category}.csv"


def _coverage(root: Path, category: str) -> Iterator[tuple[int, float]]:
    """Each label of a category and how much it covers; a table of nothing but a header has none."""
    if _of(root, category).is_file() and len(lines(_of(root, category))) < 2:
        return
    for row in _table(_of(root, category), "number", "coverage"):
        yield _number(row, "number"), row.number("coverage")


def _number(row: TableRow, column: str) -> int:
    number = row.whole(column)
    if not 0 <= number < _NUMBERS:
        raise row.wrong(column, f"labels are numbers from 0 to {_NUMBERS - 1}, found {number}")
    return number


def _positive(row: TableRow, column: str) -> int:
    number = row.whole(column)
    if number < 1:
        raise row.wrong(column, f"expected a number of pixels, found {number}")
    return number


@dataclass(frozen=True)
class BrodenSegmentation:
    """Labels of pixels and of whole images, of several categories at once.

    Attributes:
        table: The labels.
        folder: images/.
        images: The N images, by row.
        files: What their files hold.
        upright: Whether they are turned as their EXIF orientation says.
    """

    table: Labels
    folder: Path
    images: tuple[Annotated, ...]
    files: tuple[PictureFile, ...]
    upright: bool

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
            if (found := self.files[row].shown(self.upright)) != image.size:
                height, width = image.size
                stored = self.upright and self.files[row].size == image.size
                hint = "; it is as stored, before EXIF turns it: data.upright=false" if stored else ""
                raise image.row.wrong("ih", f"{image.image} is {found[0]} x {found[1]}, not {height} x {width}{hint}")
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
        return looked_up(
            self.table.concept,
            numbers,
            lambda label, y, x: UserError(
                f"{self.folder / path} ({where}) has label {label} at row {y}, column {x}, which label.csv does not "
                "have."
            ),
        )

    @cached_property
    def fingerprint(self) -> str:
        """Of the labels, the index and the bytes of all pictures of labels."""
        paths = list(dict.fromkeys(path for one in self.images for path in one.pixels))
        files = dict(zip(paths, examined(self.folder, paths, "labels"), strict=True))
        if broken := next((path for path, file in files.items() if file.fault), None):
            raise UserError(f"The picture of labels {self.folder / broken} does not decode ({files[broken].fault}).")
        images = [[one.size, one.grid, [files[path].content for path in one.pixels], one.whole] for one in self.images]
        table = self.table
        return digest([table.labels, table.categories, table.category.tolist(), table.concept.tolist(), images])


HINT = (
    "Broden was at http://netdissect.csail.mit.edu/data/broden1_224.zip (1 GB): unpack it and give the folder that "
    "holds images/ as data.root=DIR."
)
INDEX = "index.csv"


def broden(
    root: str | None = None,
    *,
    name: str = "broden",
    index: str | None = INDEX,
    categories: str | Sequence[str] | None = None,
    split: str | None = None,
    **options: typing.Annotated[Any, OptionsOf(FolderProbe)],
) -> FolderProbe:
    """The images of broden1_224 or broden1_227, without class labels.

    With an index: the images that have a label in a selected category, in the order of the index, and what each of
    their pixels shows. Without one: all photographs, in the order of their paths.

    Args:
        root: The folder that holds `images/` and the index files; `$NEURONX_DATA/broden` by default.
        name: Used in tables.
        index: File in the root; None leaves the labels out.
        categories: Kinds of labels to keep, such as object and part; all that category.csv lists by default.
        split: Only the images that the index marks "train" or "val"; all by default.
        options: Of `FolderProbe`.

    Raises:
        UserError: As `read_labels` and `read_index`; or a row whose image or picture of labels is missing.
    """
    kinds = [categories] if isinstance(categories, str) else categories

    def list_images(root: Path) -> Listing:
        path = root / (index or INDEX)
        if not path.is_file() and index not in (None, INDEX):
            raise UserError(f"There is no index {path} (data.index).")
        # A table of nothing but a header lists no image: nobody knows more of the photographs than without it.
        if index is None or not path.is_file() or len(lines(path)) < 2:
            return photographs(root)
        return annotated(root, path, kinds, split)

    return FolderProbe(root, name=name, list_images=list_images, hint=HINT, **options)


def photographs(root: Path) -> Listing:
    """All JPEG files under `images/`; the PNG files beside them are segmentations."""
    folder = _images(root)
    return Listing(folder, pictures_in(folder, frozenset({".jpg", ".jpeg"})))


def annotated(root: Path, index: Path, categories: Sequence[str] | None, split: str | None) -> Listing:
    """The images of an index, in its order, with their segmentation."""
    table, folder = read_labels(root, categories), _images(root)
    images = read_index(index, table, split)
    there = set(pictures_in(folder))
    for one in images:
        for path, what in ((one.image, "image"), *((path, "picture of labels") for path in one.pixels)):
            if str(Path(path)) not in there:
                raise UserError(f"{index}, line {one.row.line}: there is no {what} {folder / path}.")
    return Listing(
        folder,
        [one.image for one in images],
        segmentation=lambda kept, files, upright: BrodenSegmentation(
            table, folder, tuple(images[position] for position in kept), tuple(files), upright
        ),
    )


def _images(root: Path) -> Path:
    return root / "images" if (root / "images").is_dir() else root
