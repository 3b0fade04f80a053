"""What a process has found out about some rows, on disk: parts that any later run goes on from.

A part is one file: its head (safetensors), then pairs of unit and value, read and written piece by piece, and last
their number. It says which rows it covers; which process wrote it, and how the rows came in batches, does not matter.
"""

import hashlib
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from neuronx.recording.tails import PIECE, Pairs, ordered
from neuronx.store.cache import Entry
from neuronx.store.shards import on_disk


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


def write_part(entry: Entry, head: Head, pairs: Iterable[Pairs]) -> Part:
    """Writes a part atomically; the same rows make the same name."""
    top = save({name: getattr(head, name).contiguous() for name in Head.__annotations__})
    name = f"part-{hashlib.sha256(head.seen.numpy().tobytes()).hexdigest()[:16]}"
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

    with on_disk(entry.path):
        path = entry.write(name, content())
    return Part(path, head, 8 + len(top), size)


def find_parts(entry: Entry) -> list[Part]:
    """Parts on disk that share no row, larger ones first; damaged ones are deleted.

    A process that is killed while it joins parts leaves both the whole and its pieces.
    """
    parts = []
    for path in sorted(entry.path.glob("part-*")):
        try:
            parts.append(_read(path))
        except (OSError, SafetensorError, struct.error, TypeError, ValueError):
            path.unlink(missing_ok=True)
    chosen: list[Part] = []
    for part in sorted(parts, key=lambda part: -int(part.head.seen.sum())):
        if not any(bool((part.head.seen & other.head.seen).any()) for other in chosen):
            chosen.append(part)
    return chosen


def _read(path: Path) -> Part:
    with path.open("rb") as file:
        length = struct.unpack("<q", file.read(8))[0]
        head = Head(**load(file.read(length)))
        file.seek(-8, 2)
        size = struct.unpack("<q", file.read(8))[0]
    if path.stat().st_size != 16 + length + size * _record(len(head.floor)).itemsize:
        raise ValueError("its end is missing")
    return Part(path, head, 8 + length, size)


def _record(units: int) -> np.dtype:
    return np.dtype([("unit", "<i2" if units < 2**15 else "<i4"), ("value", "<f4")])
