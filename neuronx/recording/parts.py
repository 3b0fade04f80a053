"""Checkpoint files of the exemplar search.

Each holds the top images and the largest values of a set of images; an interrupted run resumes from them. A part is one
file: its head (safetensors), then pairs of unit and value, read and written piece by piece, and last their number. It
says which rows it covers; how the rows came in batches does not matter.
"""

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

from neuronx.recording.tails import PIECE, Pairs, ordered
from neuronx.store.cache import Draft


@dataclass(frozen=True)
class Head:
    """All but the tails of what was found in some rows.

    Attributes:
        seen: (N,) bool, the rows.
        floor: (K,) float32, which the values left out of the tails do not exceed.
        rows: (K, <=k) int64, the images of largest peak, strongest first, ties by smaller row.
        peaks: (K, <=k) float32.
        places: (K, <=k) int64.
        grid: (2,) int64, or (0,) for a layer without.
        wrong: (2,) int64, row and unit of the first value that is NaN or infinite; (0,) where all are finite.
    """

    seen: Tensor
    floor: Tensor
    rows: Tensor
    peaks: Tensor
    places: Tensor
    grid: Tensor
    wrong: Tensor

    def joined(self, other: "Head", k: int) -> "Head":
        """Of the rows of both, which share none."""
        peaks, rows, places = (
            torch.cat([getattr(self, name), getattr(other, name)], 1) for name in ("peaks", "rows", "places")
        )
        best = strongest(peaks, rows, k)
        wrong = min([self.wrong.tolist(), other.wrong.tolist()], key=lambda found: found or [torch.inf])
        return Head(
            seen=self.seen | other.seen,
            floor=self.floor.maximum(other.floor),
            rows=rows.gather(1, best),
            peaks=peaks.gather(1, best),
            places=places.gather(1, best),
            grid=self.grid,
            wrong=torch.tensor(wrong, dtype=torch.int64),
        )


@dataclass(frozen=True)
class Part:
    """A file with a head and `size` pairs, which begin at byte `start`."""

    path: Path
    head: Head
    start: int
    size: int

    def pairs(self) -> Iterator[Pairs]:
        """Its pairs, read in pieces and never mapped, so that they do not stay in memory."""
        kind, left = _record(len(self.head.floor)), self.size
        with self.path.open("rb") as file:
            file.seek(self.start)
            while left:
                piece = np.fromfile(file, kind, min(left, PIECE))
                left -= len(piece)
                yield torch.from_numpy(piece["unit"].copy()), torch.from_numpy(piece["value"].copy())


def strongest(peaks: Tensor, rows: Tensor, k: int) -> Tensor:
    """Where the k largest of peaks (K, n) are, largest first, ties by smaller row (K, n): (K, min(k, n)) int64."""
    key = ordered(peaks) << 32 | 2**32 - 1 - rows
    return key.topk(min(k, peaks.shape[1]), dim=1).indices


def write_part(draft: Draft, head: Head, pairs: Iterable[Pairs]) -> Part:
    """Writes a part."""
    top = save({name: getattr(head, name).contiguous() for name in Head.__annotations__})
    size = 0

    def content() -> Iterator[bytes]:
        nonlocal size
        yield struct.pack("<q", len(top)) + top
        for units, values in pairs:
            records = np.empty(len(units), _record(len(head.floor)))
            records["unit"], records["value"] = units.numpy(), values.numpy()
            size += len(records)
            yield records.tobytes()
        yield struct.pack("<q", size)

    return Part(draft.write("part-", content()), head, 8 + len(top), size)


def disjoint_parts(paths: Sequence[Path]) -> list[Part]:
    """Of the parts in some files those that share no row, larger ones first; the files of the others are deleted.

    A process that is killed while it joins parts leaves both the whole and its pieces; and runs at the same time have
    the same rows.
    """
    chosen: list[Part] = []
    for part in sorted(map(_read, paths), key=lambda part: -int(part.head.seen.sum())):
        if any(bool((part.head.seen & other.head.seen).any()) for other in chosen):
            part.path.unlink()
        else:
            chosen.append(part)
    return chosen


def _read(path: Path) -> Part:
    with path.open("rb") as file:
        length = struct.unpack("<q", file.read(8))[0]
        head = Head(**load(file.read(length)))
        file.seek(-8, 2)
        size = struct.unpack("<q", file.read(8))[0]
    return Part(path, head, 8 + length, size)


def _record(units: int) -> np.dtype:
    return np.dtype([("unit", "<i2" if units < 2**15 else "<i4"), ("value", "<f4")])
