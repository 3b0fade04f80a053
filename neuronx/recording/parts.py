"""What a process has found out about some rows, on disk: parts that any later run goes on from.

A part is one file: its head (safetensors) and then pairs of unit and value, read and written piece by piece. It says
which rows it covers, so that it does not matter which process wrote it, or how the rows came in batches.
"""

import hashlib
import itertools
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from neuronx.cache import Entry
from neuronx.recording.shards import on_disk
from neuronx.recording.tails import PIECE, Pairs, ordered


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
    """A file with a head and pairs."""

    path: Path
    head: Head
    start: int

    @property
    def size(self) -> int:
        """The number of its pairs."""
        return (self.path.stat().st_size - self.start) // _record(len(self.head.floor)).itemsize

    def pairs(self) -> Iterator[Pairs]:
        """Its pairs, read in pieces and never mapped, so that they do not stay in memory."""
        kind = _record(len(self.head.floor))
        with self.path.open("rb") as file:
            file.seek(self.start)
            while len(piece := np.fromfile(file, kind, PIECE)):
                yield torch.from_numpy(piece["unit"].copy()), torch.from_numpy(piece["value"].copy())


def strongest(peaks: Tensor, rows: Tensor, k: int) -> Tensor:
    """Where the k largest of peaks (K, n) are, largest first, ties by smaller row (K, n): (K, min(k, n)) int64."""
    key = ordered(peaks) << 32 | 2**32 - 1 - rows
    return key.topk(min(k, peaks.shape[1]), dim=1).indices


def write_part(entry: Entry, head: Head, pairs: Iterable[Pairs]) -> Part:
    """Writes a part atomically; the same rows make the same name."""
    top = save({name: getattr(head, name).contiguous() for name in Head.__annotations__})
    name = f"part-{hashlib.sha256(head.seen.numpy().tobytes()).hexdigest()[:16]}"
    start = struct.pack("<q", len(top)) + top
    with on_disk(entry.path):
        path = entry.write(name, itertools.chain([start], (_bytes(piece, len(head.floor)) for piece in pairs)))
    return Part(path, head, len(start))


def find_parts(entry: Entry) -> list[Part]:
    """Parts on disk that share no row, larger ones first; damaged ones are deleted.

    A process that is killed while it joins parts leaves both the whole and its pieces.
    """
    parts = []
    for path in sorted(entry.path.glob("part-*")):
        try:
            with path.open("rb") as file:
                size = struct.unpack("<q", file.read(8))[0]
                parts.append(Part(path, Head(**load(file.read(size))), 8 + size))
        except (OSError, SafetensorError, struct.error, TypeError):
            path.unlink(missing_ok=True)
    chosen: list[Part] = []
    for part in sorted(parts, key=lambda part: -int(part.head.seen.sum())):
        if not any(bool((part.head.seen & other.head.seen).any()) for other in chosen):
            chosen.append(part)
    return chosen


def _bytes(pairs: Pairs, units: int) -> bytes:
    records = np.empty(len(pairs[0]), _record(units))
    records["unit"], records["value"] = pairs[0].numpy(), pairs[1].numpy()
    return records.tobytes()


def _record(units: int) -> np.dtype:
    return np.dtype([("unit", "<i2" if units < 2**15 else "<i4"), ("value", "<f4")])
