"""Broden's tables: which images there are, where their labels stand, and what the numbers mean."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from neuronx.data.text import lines
from neuronx.errors import UserError, unknown
from neuronx.tables.csv import Row, read_csv
from neuronx.tables.schemas import broden_label

UNKNOWN = -3
"""What `Labels.concept` says of a number that label.csv does not have."""
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

    row: Row
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


def _annotated(row: Row, categories: Sequence[str], concepts: Sequence[int]) -> Annotated | None:
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


def _table(path: Path, *columns: str) -> list[Row]:
    have, rows = read_csv(path)
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


def _number(row: Row, column: str) -> int:
    number = row.whole(column)
    if not 0 <= number < _NUMBERS:
        raise row.wrong(column, f"labels are numbers from 0 to {_NUMBERS - 1}, found {number}")
    return number


def _positive(row: Row, column: str) -> int:
    number = row.whole(column)
    if number < 1:
        raise row.wrong(column, f"expected a number of pixels, found {number}")
    return number
