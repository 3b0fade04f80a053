"""Pictures whose pixels are numbers of concepts: read, laid under a grid, and cut into regions."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from neuronx.data.segmentation import Regions
from neuronx.errors import UserError

NOTHING = -1
"""The concept of a pixel that nobody annotated."""
OUTSIDE = -2
"""What a cell beyond the picture holds."""

Part = TypeVar("Part")


def read_pixels(path: Path, picture: str) -> np.ndarray:
    """The pixels of a picture of labels, as they are stored.

    Args:
        path: The file.
        picture: Whose labels it holds, for messages.

    Returns:
        (H, W) integers of a grey picture (8 or 16 bits) or a palette's indices; or (H, W, 3) uint8 of a colour picture.

    Raises:
        UserError: If the file cannot be read as a picture.
    """
    try:
        with Image.open(path) as found:
            # A palette's index is the label; its colour is for people to look at.
            kept = found if found.mode in ("L", "P", "1", "I") or found.mode.startswith("I;") else found.convert("RGB")
            return np.asarray(kept)
    except Exception as error:  # what PIL raises on damaged files is of a dozen kinds
        reason = "it is missing" if isinstance(error, FileNotFoundError) else f"it does not decode ({error})"
        raise UserError(f"The labels of {picture} cannot be read from {path}: {reason}.") from None


UNKNOWN = -3
"""What a table of concepts holds for numbers that are no label's."""


def looked_up(table: np.ndarray, numbers: np.ndarray, refuse: Callable[[int, int, int], UserError]) -> Tensor:
    """The concept (H, W) int32 of each pixel's number, from a table whose last entry is for all numbers beyond it.

    Raises:
        UserError: For a number that is no label's, as `refuse` makes it of the number, its row and its column.
    """
    concepts = table.take(numbers, mode="clip")
    if concepts.min() == UNKNOWN:
        y, x = np.argwhere(concepts == UNKNOWN)[0].tolist()
        raise refuse(int(numbers[y, x]), y, x)
    return torch.from_numpy(concepts)


def size_of(path: Path) -> tuple[int, int]:
    """(height, width) of a picture; only the head of the file is read."""
    with Image.open(path) as picture:
        return picture.height, picture.width


def cut(planes: Iterable[Tensor], everywhere: Sequence[int], concepts: int) -> tuple[Tensor, Tensor]:
    """Cuts a picture into regions of cells that show the same.

    Args:
        planes: At least one (gh, gw) int64 each: the concept of each cell, `NOTHING` or `OUTSIDE`.
        everywhere: Concepts that all cells of the picture show.
        concepts: Their number C.

    Returns:
        (gh, gw) int64 number of the region of each cell, and (R, C) bool, what each region shows.
    """
    number, have = torch.zeros(1, dtype=torch.int64), torch.empty(1, 0, dtype=torch.int64)
    for plane in planes:
        kinds, kind = _dense(plane - OUTSIDE)
        pairs, number = _dense(number * len(kinds) + kind)
        have = torch.cat([have[pairs // len(kinds)], kinds[pairs % len(kinds), None] + OUTSIDE], 1)
    shows = torch.zeros(len(have), concepts, dtype=torch.bool)
    region, plane = (have >= 0).nonzero(as_tuple=True)
    shows[region, have[region, plane]] = True
    inside = (have[:, 0] != OUTSIDE).nonzero()
    shows[inside, torch.tensor(everywhere, dtype=torch.int64)] = True
    return number, shows


def _dense(numbers: Tensor) -> tuple[Tensor, Tensor]:
    """The R different numbers (small, not negative) in ascending order, and for each entry which of them it is."""
    seen = torch.bincount(numbers.flatten()) > 0
    return seen.nonzero()[:, 0], (seen.cumsum(0) - 1)[numbers]


def together(pictures: Sequence[tuple[Tensor, Tensor]]) -> Regions:
    """The regions of several pictures, each cut on its own by `cut`."""
    counts = torch.tensor([len(shows) for _, shows in pictures])
    first = counts.cumsum(0) - counts
    maps = torch.stack([number for number, _ in pictures]) + first[:, None, None]
    picture = torch.arange(len(pictures)).repeat_interleave(counts)
    return Regions(maps, picture, torch.cat([shows for _, shows in pictures]))


def by_threads(read: Callable[[int], Part], rows: Sequence[int]) -> list[Part]:
    """What `read` gives for each of some rows, in order; files decode on several threads."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(read, (int(row) for row in rows)))
