"""What one layer does over a stream of images: the strongest images of each unit and the tail of its values.

The threshold at an upper quantile depends on the m largest values only, m known beforehand. A lower bound of the m-th
largest rises as values come, and whatever does not exceed it is dropped; the rest may lie on disk, since the m-th
largest is found by going through it a few times, in pieces.

What is found in some images is written to a part, from which an interrupted run resumes: one file with a head
(safetensors), then pairs of unit and value, read and written piece by piece, and last their number. A part says which
rows it covers; how the rows came in batches does not matter.
"""

import dataclasses
import itertools
import math
import struct
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

from neuronx.errors import UserError
from neuronx.recording.maps import on_grid, pooled
from neuronx.store.cache import Draft
from neuronx.store.processes import on_first

Pairs = tuple[Tensor, Tensor]
"""Units (V,), an integer type, and their values (V,) float32, in any order."""

PIECE = 2**16
"""Pairs that are worked on at a time: as many as stay in a processor's cache."""


def ranks(quantile: float, count: int) -> tuple[int, int, float]:
    """Where a quantile lies among `count` sorted values: ranks below and above it, counted from 0, and the weight."""
    rank = quantile * (count - 1)
    return math.floor(rank), math.ceil(rank), rank - math.floor(rank)


class Side:
    """The end of the sorted values that a quantile is nearer to.

    Attributes:
        sign: 1 for the largest values; -1 for the smallest, which are the largest of the negated.
        need: How many of them decide about the quantile.
        other: The quantile lies between the need-th and this one (either need or need - 1), counted from 1.
        weight: Of the value with the higher rank, in [0, 1).
    """

    def __init__(self, quantile: float, count: int) -> None:
        below, above, self.weight = ranks(quantile, count)
        self.sign = 1 if count - below <= above + 1 else -1
        self.need = count - below if self.sign == 1 else above + 1
        self.other = count - above if self.sign == 1 else below + 1

    def quantile(self, need: Tensor, other: Tensor) -> Tensor:
        """Interpolates (K,) float32 between the need-th and the other of the signed values, as torch.quantile does."""
        low, high = (need, other) if self.sign == 1 else (-other, -need)
        return low.double().lerp(high.double(), self.weight).float() + 0.0  # never -0.0, whichever way it was found


def above(values: Tensor, floor: Tensor) -> Iterator[Pairs]:
    """All values (positions, K) strictly above their unit's floor (K,), on the CPU, piece by piece."""
    units = len(floor)
    small = torch.int16 if units < 2**15 else torch.int32
    at_once = PIECE if values.device.type == "cpu" else 64 * PIECE
    for piece in values.split(max(1, at_once // units)):
        hits = (piece > floor).flatten().nonzero().squeeze(1)
        if len(hits):
            yield (hits % units).to(small).cpu(), piece.flatten()[hits].cpu()


def trimmed(stream: Iterable[Pairs], floor: Tensor) -> Iterator[Pairs]:
    """The pairs above the floors (K,); small pieces come out joined."""
    kept: list[Pairs] = []
    for units, values in _pieces(stream):
        high = values > floor.index_select(0, units.int())
        kept.append((units.masked_select(high), values.masked_select(high)))
        if sum(len(some) for some, _ in kept) >= PIECE:
            yield _joined(kept)
            kept = []
    if kept:
        yield _joined(kept)


def largest(stream: Callable[[], Iterable[Pairs]], rank: int, floor: Tensor, enough: float = 0) -> Tensor:
    """The rank-th largest value of each unit, counted from 1: a radix selection, byte by byte.

    Args:
        stream: Gives all values above the floors, and maybe some below; called up to four times.
        rank: At least 1.
        floor: (K,) float32, which the answer is known to reach: it is the answer where too few values are above it.
        enough: Stop as soon as no more than this many values of all units together reach what was found. Then it is a
            floor under the answer.

    Returns:
        (K,) float32.
    """
    units = len(floor)
    found = torch.zeros(units, dtype=torch.int32)  # the leading bytes of the answer's key
    left = torch.full((units,), rank)
    few = torch.zeros(units, dtype=torch.bool)
    one = torch.ones((), dtype=torch.int64)
    for shift in (24, 16, 8, 0):
        counts = torch.zeros(units * 256, dtype=torch.int64)
        for owners, values in _pieces(stream()):
            owner, key = owners.int(), _bits(values)
            if shift < 24:
                same = key >> shift + 8 == found.index_select(0, owner)
                owner, key = owner.masked_select(same), key.masked_select(same)
            # The first byte holds the sign.
            byte = key >> shift & 255 if shift < 24 else (key >> shift) + 128
            counts.index_add_(0, owner * 256 + byte, one.expand(len(key)))
        reached = counts.view(units, 256).flip(1).cumsum(1)  # by how many values, from the highest byte down
        place = (reached < left[:, None]).sum(1)
        few |= place == 256
        place.clamp_(max=255)
        kept = rank - left + reached.gather(1, place[:, None]).squeeze(1)
        left -= reached.gather(1, (place - 1).clamp(min=0)[:, None]).squeeze(1).where(place > 0, 0)
        found = found << 8 | (255 - place).int() if shift < 24 else (127 - place).int()
        if kept.sum() <= enough:
            break
    return torch.where(few, floor, _value(found << shift).fmax(floor))  # what is below -3e38 may be NaN


def next_larger(stream: Iterable[Pairs], found: Tensor, rank: int) -> Tensor:
    """The (rank - 1)-th largest value (K,) of each unit, given the rank-th; not for rank 1."""
    count = torch.zeros(len(found), dtype=torch.int64)
    smallest = torch.full_like(found, torch.inf)
    for owners, values in trimmed(stream, found):
        count += torch.bincount(owners, minlength=len(found))
        smallest.scatter_reduce_(0, owners.long(), values, "amin")
    return torch.where(count == rank - 1, smallest, found)


def ordered(values: Tensor) -> Tensor:
    """Integers (int64, 32 bits with sign) in the order of float32 values."""
    return _bits(values).long()


def _bits(values: Tensor) -> Tensor:
    bits = values.view(torch.int32)
    return bits ^ (bits >> 31 & 0x7FFFFFFF)


def _value(bits: Tensor) -> Tensor:
    return (bits ^ (bits >> 31 & 0x7FFFFFFF)).view(torch.float32)


def _pieces(stream: Iterable[Pairs]) -> Iterator[Pairs]:
    for units, values in stream:
        yield from zip(units.split(PIECE), values.split(PIECE), strict=True)


def _joined(pairs: list[Pairs]) -> Pairs:
    units, values = zip(*pairs, strict=True)
    return torch.cat(units), torch.cat(values)


SLACK = 2**16
"""Pairs that are not worth a search for a higher floor."""


@dataclass(frozen=True)
class PartHead:
    """All but the tails of what was found in some rows.

    Attributes:
        seen: (N,) bool, the rows.
        floor: (K,) float32, which the values left out of the tails do not exceed.
        rows: (K, <=k) int64, the images of largest value, in the order of `strongest`.
        values: (K, <=k) float32, by which images are ranked.
        pooled: (K, <=k) float32, by which images of equal values are.
        peaks: (K, <=k) float32, the largest over positions.
        places: (K, <=k) int64, where the peaks are.
        ties: (K,) int64, how many images have the largest value.
        grid: (2,) int64, or (0,) for a layer without.
        broken: (K,) bool, the units that are NaN or infinite somewhere.
    """

    seen: Tensor
    floor: Tensor
    rows: Tensor
    values: Tensor
    pooled: Tensor
    peaks: Tensor
    places: Tensor
    ties: Tensor
    grid: Tensor
    broken: Tensor

    def joined(self, other: "PartHead", k: int) -> "PartHead":
        """Of the rows of both, which share none."""
        whole = {name: torch.cat([getattr(self, name), getattr(other, name)], 1) for name in OF_IMAGES}
        best = strongest(whole["values"], whole["pooled"], whole["rows"], k)
        kept = {name: tensor.gather(1, best) for name, tensor in whole.items()}
        return PartHead(
            seen=self.seen | other.seen,
            floor=self.floor.maximum(other.floor),
            ties=self.tied(kept["values"][:, :1]) + other.tied(kept["values"][:, :1]),
            grid=self.grid,
            broken=self.broken | other.broken,
            **kept,
        )

    def tied(self, largest: Tensor) -> Tensor:
        """How many of these images have the value `largest` (K, 1), which none exceeds: (K,) int64."""
        return self.ties * (self.values[:, :1] == largest).any(1)


@dataclass(frozen=True)
class Part:
    """A file with a head and `size` pairs, which begin at byte `start`."""

    path: Path
    head: PartHead
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


OF_IMAGES = ("rows", "values", "pooled", "peaks", "places")
"""What a head knows of each unit's strongest images."""


def strongest(values: Tensor, pooled: Tensor, rows: Tensor, k: int) -> Tensor:
    """Where the k largest of values (K, n) are, largest first: (K, min(k, n)) int64.

    Of equal values those with the larger `pooled` (K, n) come first, and of these the images, `rows` (K, n), in the
    order of their lots: never in the order of the data, which is often sorted by class.
    """
    key, k = ordered(values) << 32 | ordered(pooled) + 2**31, min(k, values.shape[1])
    largest, best = key.topk(min(k + 1, key.shape[1]))
    best = best[:, :k]
    tied = (largest[:, 1:] == largest[:, :-1]).any(1).nonzero()[:, 0]
    if len(tied):  # lots are drawn for few units, mostly none
        drawn = lots(rows[tied], tied[:, None]).argsort(1)
        order = key[tied].gather(1, drawn).sort(dim=1, descending=True, stable=True).indices
        best[tied] = drawn.gather(1, order[:, :k])
    return best


def lots(rows: Tensor, units: Tensor, seed: int = 0) -> Tensor:
    """A number below 2^32 for each image and unit, as if it were drawn, but always the same: int64.

    No two images of a unit have the same, since each step of the hash (Murmur3's last) can be undone.
    """
    return _hashed(rows ^ _hashed(units + seed + 1))


def _hashed(numbers: Tensor) -> Tensor:
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        numbers = (numbers ^ numbers >> shift) * factor & 0xFFFFFFFF
    return numbers ^ numbers >> 16


def write_part(draft: Draft, head: PartHead, pairs: Iterable[Pairs]) -> Part:
    """Writes a part."""
    top = save({name: getattr(head, name).contiguous() for name in PartHead.__annotations__})
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
        head = PartHead(**load(file.read(length)))
        file.seek(-8, 2)
        size = struct.unpack("<q", file.read(8))[0]
    return Part(path, head, 8 + length, size)


def _record(units: int) -> np.dtype:
    return np.dtype([("unit", "<i2" if units < 2**15 else "<i4"), ("value", "<f4")])


class LayerTally:
    """The running tally of one layer in one process.

    Args:
        draft: Where its parts are written.
        wanted: (N,) bool, the rows that count.
        k: Exemplars of each unit.
        quantile: Of the threshold.
        pool: How an image becomes one number. `first` looks at the first token only, which has no position.
        by: Images are ranked by their `peak` over positions, or by this number (`pool`).
    """

    def __init__(self, draft: Draft, wanted: Tensor, k: int, quantile: float, pool: str, by: str) -> None:
        self.draft, self.wanted, self.k, self.quantile, self.pool, self.by = draft, wanted, k, quantile, pool, by
        self.left = wanted.clone()
        self.adopted: list[Tensor] = []
        self.parts: list[Part] = []
        self.tail: list[Pairs] = []
        self.kept = 0
        self.head: PartHead | None = None
        self.latest: tuple[PartHead, list[Pairs]] | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the tail that is in memory."""
        return sum(units.nbytes + values.nbytes for units, values in self.tail)

    def done(self, batches: Sequence[Tensor]) -> Collection[int]:
        """The batches without a row that counts and is in no part yet."""
        heads = on_first(lambda: [part.head for part in disjoint_parts(self.draft.adopt("part-"))])
        for head in heads:
            self.left &= ~head.seen
            self.adopted.append(head.floor)
        return {number for number, rows in enumerate(batches) if not bool(self.left[rows].any())}

    def add(self, output: Tensor, rows: Tensor, prefix: int) -> None:
        """Takes the layer's output for rows (B,); nothing counts before `confirm`."""
        picked = self.left[rows]
        if not bool(picked.any()):
            self.latest = None
            return
        whole = pooled(output, self.pool, prefix)
        grid, values = ([], whole[:, None]) if self.pool == "first" else _positions(output, prefix)
        if not bool(picked.all()):
            values, whole = values[picked.to(values.device)], whole[picked.to(values.device)]
        head = self.head or self._blank(values.shape[2], grid)
        if head.grid.tolist() != grid:
            raise UserError(f"its grid is {head.grid.tolist()} on some images and {grid} on others; use one image size")
        side = self._side(grid)
        signed = values if side.sign == 1 else -values
        tail = list(above(signed.flatten(0, 1), head.floor.to(values.device)))
        self.latest = _extended(head, values, whole, rows[picked], self.k, self.by), tail

    def confirm(self) -> None:
        """What was added last is final."""
        if self.latest is None:
            return
        self.head, tail = self.latest
        self.left &= ~self.head.seen
        self.tail += tail
        self.kept += sum(len(units) for units, _ in tail)
        need = self._side(self.head.grid.tolist()).need
        if self.kept >= 2 * need * len(self.head.floor) + SLACK:
            self._raise_floor(self.head, need)
        self.latest = None

    def save(self) -> None:
        """Writes what is in memory as a part."""
        if self.head is not None and bool(self.head.seen.any()):
            self.parts.append(write_part(self.draft, self.head, self.tail))
            self.tail = []
            blank = self._blank(len(self.head.floor), self.head.grid.tolist())
            self.head = dataclasses.replace(blank, floor=self.head.floor)

    def _raise_floor(self, head: PartHead, need: int) -> None:
        """Finds the floor anew, forgets what it leaves behind, and makes one part of those on disk."""
        enough = 1.5 * need * len(head.floor)
        floor = largest(lambda: itertools.chain(_stream(self.parts), self.tail), need, head.floor, enough)
        self.tail = list(trimmed(_drained(self.tail), floor))
        self.head = dataclasses.replace(head, floor=floor)
        if self.parts:
            whole = reduce(lambda a, b: a.joined(b, self.k), [part.head for part in self.parts])
            whole = dataclasses.replace(whole, floor=floor)
            joined = write_part(self.draft, whole, trimmed(_stream(self.parts), floor))
            for part in self.parts:
                if part.path != joined.path:
                    part.path.unlink(missing_ok=True)
            self.parts = [joined]
        self.kept = sum(len(units) for units, _ in self.tail) + sum(part.size for part in self.parts)

    def _side(self, grid: list[int]) -> Side:
        return Side(self.quantile, int(self.wanted.sum()) * math.prod(grid))

    def _blank(self, units: int, grid: list[int]) -> PartHead:
        floor = reduce(torch.maximum, self.adopted, torch.full((units,), -torch.inf))
        none = torch.empty(units, 0, dtype=torch.int64)
        nowhere, sound = torch.zeros_like(self.wanted), torch.zeros(units, dtype=torch.bool)
        return PartHead(
            seen=nowhere,
            floor=floor,
            ties=torch.zeros(units, dtype=torch.int64),
            grid=torch.tensor(grid, dtype=torch.int64),
            broken=sound,
            **{name: none if name in ("rows", "places") else none.float() for name in OF_IMAGES},
        )


def merge(draft: Draft, wanted: Tensor, k: int, quantile: float) -> tuple[PartHead, Tensor]:
    """Brings the parts of all processes and earlier runs together: (what was found, thresholds (K,) float32).

    Broken units never fire: their peaks are 0, in images drawn by lot, and their thresholds infinite.

    Raises:
        UserError: Somebody removed parts.
    """
    parts = disjoint_parts(draft.blocks("part-"))
    seen = reduce(torch.logical_or, [part.head.seen for part in parts], torch.zeros_like(wanted))
    if not bool(seen[wanted].all()):
        raise UserError(f"Exemplars in {draft.entry.path} vanished while they were looked for; run again.")
    head = reduce(lambda a, b: a.joined(b, k), [part.head for part in parts])
    side = Side(quantile, int(wanted.sum()) * math.prod(head.grid.tolist()))
    need = largest(partial(_stream, parts), side.need, head.floor)
    other = need if side.other == side.need else next_larger(_stream(parts), need, side.need)
    thresholds = side.quantile(need, other)
    if bool(head.broken.any()):
        units, rows = head.broken.nonzero()[:, 0], wanted.nonzero()[:, 0]
        head.rows[units] = rows[lots(rows, units[:, None]).argsort(1)[:, : head.rows.shape[1]]]
        for zeroed in (head.values, head.pooled, head.peaks, head.places, head.ties):
            zeroed[units] = 0
        thresholds[units] = torch.inf
    return head, thresholds


def _extended(head: PartHead, values: Tensor, whole: Tensor, rows: Tensor, k: int, by: str) -> PartHead:
    """What is known after a batch of values (B, P, K), pooled (B, K), of rows (B,) too."""
    peaks, means = (found.T.cpu() + 0.0 for found in (values.amax(1), whole))  # -0.0 would sort below 0.0
    ranked = peaks if by == "peak" else means
    batch = {"rows": rows.expand_as(peaks), "values": ranked, "pooled": means, "peaks": peaks}
    batch["places"] = torch.zeros_like(peaks, dtype=torch.int64)
    joined = {name: torch.cat([getattr(head, name), batch[name]], 1) for name in OF_IMAGES}
    best = strongest(joined["values"], joined["pooled"], joined["rows"], k)
    # Where a peak is matters for few of them only.
    units, ranks = (best >= head.peaks.shape[1]).nonzero(as_tuple=True)
    columns = best[units, ranks]
    numbers = (columns - head.peaks.shape[1]).to(values.device)
    joined["places"][units, columns] = values[numbers, :, units.to(values.device)].max(1).indices.cpu()
    kept = {name: tensor.gather(1, best) for name, tensor in joined.items()}
    first = kept["values"][:, :1]
    seen = head.seen.clone()
    seen[rows] = True
    broken = head.broken
    if not math.isfinite(values.sum()):  # or the sum alone is too large for a float
        broken = broken | ~values.isfinite().flatten(0, 1).all(0).cpu()
    return PartHead(
        seen=seen,
        floor=head.floor,
        ties=head.tied(first) + (ranked == first).sum(1),
        grid=head.grid,
        broken=broken,
        **kept,
    )


def _positions(output: Tensor, prefix: int) -> tuple[list[int], Tensor]:
    """A layer's output as ([h, w], values (B, h * w, K) float32); ([], (B, 1, K)) where it has no positions."""
    if output.ndim == 2:
        return [], output.float()[:, None]
    maps = on_grid(output, prefix)
    return list(maps.shape[2:]), maps.movedim(1, 3).flatten(1, 2).float().contiguous()


def _stream(parts: list[Part]) -> Iterator[Pairs]:
    return itertools.chain.from_iterable(part.pairs() for part in parts)


def _drained(tail: list[Pairs]) -> Iterator[Pairs]:
    """Gives a list's elements and lets go of them, so that they and what is made of them are not both in memory."""
    tail.reverse()
    while tail:
        yield tail.pop()
