"""Pictures whose pixels are numbers of concepts: read, laid under a grid, and cut into regions."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from neuronx.data.files import PictureFile, opened
from neuronx.data.pixels import TURNS, turned
from neuronx.data.segmentation import Regions
from neuronx.errors import UserError

NOTHING = -1
"""The concept of a pixel that nobody annotated."""
OUTSIDE = -2
"""What a cell beyond the picture holds."""

Part = TypeVar("Part")


def read_pixels(path: Path, picture: str, turn: int = 1) -> np.ndarray:
    """The pixels of a picture of labels, as they are stored.

    Args:
        path: The file.
        picture: Whose labels it holds, for messages.
        turn: The EXIF orientation by which what is stored is turned.

    Returns:
        (H, W) integers of a grey picture (of any depth) or a palette's indices; or (H, W, 3) uint8 of a colour picture.

    Raises:
        UserError: If the file cannot be read as a picture, or holds numbers that are no labels.
    """
    try:
        with opened(path) as found:
            kept = turned(found, upright=False)
            # A palette's index is the label; its colour is for people to look at.
            if kept.mode not in ("L", "P", "1", "I", "F") and not kept.mode.startswith("I;"):
                kept = kept.convert("RGB")
            pixels = np.asarray(kept.transpose(TURNS[turn]) if turn > 1 else kept)
    except Exception as error:  # what PIL raises on damaged files is of a dozen kinds
        reason = "it is missing" if isinstance(error, FileNotFoundError) else f"it does not decode ({error})"
        raise UserError(f"The labels of {picture} cannot be read from {path}: {reason}.") from None
    if pixels.dtype.kind in "if" and not ((pixels >= 0) & (pixels < 2**31) & (pixels == np.floor(pixels))).all():
        raise UserError(f"{path} holds numbers that are no labels: labels are whole numbers from 0.")
    return pixels.astype(np.int64) if pixels.dtype.kind == "f" else pixels


def turns(pictures: Sequence[PictureFile], labels: Sequence[PictureFile]) -> list[int]:
    """The EXIF orientations by which pictures of labels are turned to lie on their upright pictures.

    Labels are turned by their own EXIF where they fit then. Those of a turned picture were drawn on it as it is shown,
    or on what is stored: the sizes tell. Where both fit, the other pictures tell; where none does, it is as shown.
    """
    pairs = list(zip(pictures, labels, strict=True))
    found = [_turn(picture, drawn) for picture, drawn in pairs]
    plain = [turn for turn, (picture, drawn) in zip(found, pairs, strict=True) if picture.turn > 1 == drawn.turn]
    told = {turn > 1 for turn in plain if turn}
    alike = told == {True}
    return [turn or (picture.turn if alike else 1) for turn, (picture, _) in zip(found, pairs, strict=True)]


def _turn(picture: PictureFile, drawn: PictureFile) -> int:
    """How labels are turned; 0 where they may have been drawn on either way of the picture."""
    if drawn.turn > 1 and drawn.lies() == picture.lies():
        return drawn.turn
    shown, stored = (drawn.size == picture.lies(upright) for upright in (True, False))
    if picture.turn > 1 and drawn.turn == 1 and shown == stored:
        return 0
    return picture.turn if stored and not shown else 1


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
