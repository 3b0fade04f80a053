"""A folder of pictures and a folder of pictures of their labels, with a legend of what the labels stand for."""

import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

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
    turns,
)
from neuronx.data.segmentation import Regions, cells, under
from neuronx.data.walk import pictures_in
from neuronx.errors import UserError, brief
from neuronx.options import OptionsOf
from neuronx.store.cache import digest
from neuronx.tables.csv import read_csv

log = logging.getLogger(__name__)

LARGEST_GRID = 4096
LARGEST_LABEL = 2**24 - 1
"""The colour white; there is a table of the concepts of all numbers up to the largest."""
_LINE = re.compile(r'["\']?(\d+(?:[\s,;]+\d+[\s,;]+\d+)?)["\']?\s*[\s,;:=]\s*["\']?(.*?)["\']?')
_NUMBER_COLUMNS = ("id", "idx", "index", "number", "label", "value")


@dataclass(frozen=True)
class Legend:
    """The meaning of labels.

    Attributes:
        where: It stands, for messages.
        names: By number; a colour is the number red * 65536 + green * 256 + blue.
        colours: Whether labels are colours.
    """

    where: str
    names: Mapping[int, str]
    colours: bool = False

    def spell(self, number: int) -> str:
        """A label as people write it: 7, or the colour 128 64 0."""
        return f"colour {number >> 16} {number >> 8 & 255} {number & 255}" if self.colours else f"label {number}"

    def numbers(self, given: Sequence[int | str], option: str) -> frozenset[int]:
        """The numbers of labels given as numbers, colours or names.

        Raises:
            UserError: For a name that the legend does not have; a number need not be in the legend.
        """
        named = {name: [n for n, other in self.names.items() if other == name] for name in self.names.values()}
        found: set[int] = set()
        for one in given:
            key = None if isinstance(one, str) and one in named else _key(one)
            if key is None and one not in named:
                raise UserError(f"{option} names `{one}`, which is neither a number nor a name of {self.where}.")
            if key and key[0] > LARGEST_LABEL:
                raise UserError(f"{option} names label {one}; the numbers of labels end at {LARGEST_LABEL}.")
            found.update(named[str(one)] if key is None else [key[0]])
        return frozenset(found)


def read_legend(given: str | Path | Mapping[int | str, str] | Sequence[str] | None) -> Legend:
    """Reads a legend.

    Args:
        given: {number: name}; or names in the order of their numbers, from 0; or a file. A file is JSON of either; or
            a CSV with a column `name` and either a number (`id`, `index`, ...) or `r`, `g` and `b`; or a text with a
            number (or three, for a colour) and a name on each line: "0 sky", "0,sky" or "0: sky"; "#" starts a comment.

    Raises:
        UserError: If it is missing, cannot be read so, gives a number two names, or mixes numbers and colours.
    """
    if given is None:
        raise UserError("Say what the labels stand for: data.legend=FILE, or 'data.legend={0:sky,1:road}'.")
    where = str(given) if isinstance(given, str | Path) else "data.legend"
    pairs = list(_file(Path(given).expanduser()) if isinstance(given, str | Path) else _parsed(given, where))
    names: dict[int, str] = {}
    kinds: set[bool] = set()
    for key, name in pairs:
        parsed = _key(key)
        if parsed is None or not isinstance(name, str) or not name.strip():
            raise UserError(f"{where} says `{key}: {name}`; expected the number of a label and its name.")
        number, colour = parsed
        if number > LARGEST_LABEL:
            raise UserError(f"{where} names label {key}; the numbers of labels end at {LARGEST_LABEL}.")
        if names.setdefault(number, name.strip()) != name.strip():
            raise UserError(f"{where} calls label {key} both `{names[number]}` and `{name.strip()}`.")
        kinds.add(colour)
    if len(kinds) != 1:
        raise UserError(f"{where} mixes numbers and colours." if kinds else f"{where} names no labels.")
    return Legend(where, names, kinds.pop())


def _key(key: object) -> tuple[int, bool] | None:
    """The number that a key stands for and whether it is a colour; None when it is neither."""
    if isinstance(key, Sequence) and not isinstance(key, str):
        key = " ".join(map(str, key))
    parts = re.split(r"[\s,;]+", str(key).strip())
    if isinstance(key, bool) or not all(re.fullmatch(r"\d+", part) for part in parts):
        return None
    if len(parts) == 1:
        return int(parts[0]), False
    if len(parts) == 3 and all(int(part) < 256 for part in parts):
        red, green, blue = map(int, parts)
        return (red << 16) + (green << 8) + blue, True
    return None


def _parsed(given: object, where: str) -> Iterator[tuple[object, object]]:
    if isinstance(given, Mapping):
        yield from given.items()
    elif isinstance(given, Sequence) and not isinstance(given, str):
        yield from enumerate(given)
    else:
        raise UserError(f"{where} is neither {{number: name}} nor a list of names.")


def _file(path: Path) -> Iterator[tuple[object, object]]:
    text = lines(path)
    if path.suffix.lower() == ".json":
        try:
            yield from _parsed(json.loads("\n".join(text)), str(path))
        except ValueError as error:
            raise UserError(f"The legend {path} is not JSON: {error}") from None
        return
    told = [(number, line.partition("#")[0].strip()) for number, line in enumerate(text, 1)]
    told = [(number, line) for number, line in told if line]
    if told and not _LINE.fullmatch(told[0][1]) and "," in told[0][1]:
        yield from _csv(path, "\n".join(text))
        return
    for number, line in told:
        match = _LINE.fullmatch(line)
        if match is None:
            raise UserError(f"{path}, line {number}: expected a label's number and its name, found `{line[:60]}`.")
        yield match[1], match[2]


def _csv(path: Path, text: str) -> Iterator[tuple[object, object]]:
    columns, rows = read_csv(path, text=text)
    lower = {column.lower(): column for column in columns}
    number = next((lower[name] for name in _NUMBER_COLUMNS if name in lower), None)
    keys = [number] if number else [lower.get(channel) for channel in "rgb"]
    if "name" not in lower or None in keys:
        raise UserError(f"{path} needs a column `name` and one of {', '.join(_NUMBER_COLUMNS)}, or r, g and b.")
    for row in rows:
        yield " ".join(row.cells[key].strip() for key in keys if key), row.cells[lower["name"]]


LABELS = frozenset({".png", ".bmp", ".tif", ".tiff", ".pgm"})
"""Kinds of files that keep labels exactly."""


def labelled_pictures(
    root: str | Path | None = None,
    *,
    images: str = "images",
    annotations: str = "annotations",
    legend: str | Path | Mapping[int | str, str] | Sequence[str] | None = None,
    ignore: Sequence[int | str] = (),
    category: str = "object",
    grid: Sequence[int] = (112, 112),
    **options: Annotated[Any, OptionsOf(FolderProbe)],
) -> FolderProbe:
    """Pictures whose pixels are labelled one by one; without class labels.

    Args:
        root: The folder; `$NEURONX_DATA/<name>` by default.
        images: Folder of the pictures, in the root.
        annotations: Folder of the pictures of labels, in the root: for each picture one of the same name but for the
            ending, of the same size, whose pixels are grey values of any depth, indices of a palette, or colours. Where
            EXIF turns a picture, its labels lie on it as it is shown; those that fit it only as it is stored are turned
            alike.
        legend: What the labels stand for; see `read_legend`. Labels with one name are one concept.
        ignore: Labels (by number or name) of pixels that nobody annotated.
        category: What kind of concepts they are.
        grid: (height, width) of the grid on which masks are compared.
        options: Of `FolderProbe`.

    Raises:
        UserError: If a folder or a picture of labels is missing, or the legend cannot be read.
    """
    sides = list(grid) if isinstance(grid, Sequence) else [grid]
    if len(sides) != 2 or not all(isinstance(side, int) and 1 <= side <= LARGEST_GRID for side in sides):
        raise UserError(
            f"data.grid is a height and a width, such as [112,112], each at most {LARGEST_GRID}, not {brief(grid)}."
        )
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
            segmentation=lambda kept, files, upright: LabelledPictures(
                names,
                (category,),
                (int(grid[0]), int(grid[1])),
                known,
                ignored,
                pictures,
                labels,
                tuple((paths[position], annotated[position]) for position in kept),
                tuple(files),
                upright,
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
        raise UserError(
            f"{len(missing)} of {len(paths)} pictures in {pictures} have no labels in {labels}: {shown}. "
            f"Labels are files of the same names that end by {', '.join(sorted(LABELS))}."
        )
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
        held: What the files of the pictures hold.
        upright: Whether pictures and labels are turned as EXIF says.
    """

    labels: tuple[str, ...]
    categories: tuple[str, ...]
    grid: tuple[int, int]
    legend: Legend
    ignored: frozenset[int]
    pictures: Path
    annotations: Path
    files: tuple[tuple[str, str], ...]
    held: tuple[PictureFile, ...]
    upright: bool

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
            where = cells(transform, *self.held[row].shown(self.upright), grid or self.grid, labels=(height, width))
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
        table = np.full(max(*self.legend.names, *self.ignored, 0) + 2, UNKNOWN, np.int32)
        for number, label in self.legend.names.items():
            table[number] = NOTHING if number in self.ignored else self.labels.index(label)
        table[list(self.ignored)] = NOTHING
        return table

    def _concepts(self, row: int) -> Tensor:
        """(H, W) int32 concept of each pixel, -1 for none."""
        picture, path = self.pictures / self.files[row][0], self.annotations / self.files[row][1]
        found = self._numbers(read_pixels(path, picture.name, self._turns[row]), path)
        if found.shape != (size := self.held[row].lies(self.upright)):
            shown = not self.upright and found.shape == self.held[row].lies()
            raise UserError(
                f"{picture} and its labels {path} differ in size: {size[0]} x {size[1]} and "
                f"{found.shape[0]} x {found.shape[1]} pixels (height x width)"
                f"{'; the labels fit the picture as EXIF turns it: data.upright=true' if shown else ''}."
            )
        return looked_up(
            self._table,
            found,
            lambda label, y, x: UserError(
                f"{path} has {self.legend.spell(label)} at row {y}, column {x}, which {self.legend.where} does not "
                "have (data.ignore=[...] for labels that mean nothing)."
            ),
        )

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
    def _held(self) -> list[PictureFile]:
        """What the files of the labels hold."""
        return examined(self.annotations, [path for _, path in self.files], "labels")

    @cached_property
    def _turns(self) -> list[int]:
        """The EXIF orientation by which each picture of labels is turned; says which were drawn on what is stored."""
        if not self.upright:
            return [1] * len(self.files)
        found = turns(self.held, self._held)
        if several := sum(picture.turn > 1 for picture in self.held):
            alike = sum(turn > 1 and file.turn == 1 for turn, file in zip(found, self._held, strict=True))
            log.warning(
                "EXIF turns %d of %d pictures in %s; labels of %d were drawn on them as stored and are turned alike, "
                "the others lie on them as shown",
                several,
                len(found),
                self.pictures,
                alike,
            )
        return found

    @cached_property
    def fingerprint(self) -> str:
        """Of the legend and the bytes of all pictures of labels, and how they are turned."""
        for (_, path), file in zip(self.files, self._held, strict=True):
            if file.fault:
                raise UserError(f"The picture of labels {self.annotations / path} does not decode ({file.fault}).")
        found = [file.content for file in self._held]
        turned = [self._turns] if max(self._turns, default=1) > 1 else []
        return digest([list(self.labels), sorted(self.legend.names.items()), sorted(self.ignored), found, *turned])
