"""The largest values of many streams at once, exactly and in bounded memory: what a quantile far out needs.

The threshold at an upper quantile depends on the m largest values only, m known beforehand. A floor under the m-th
largest rises as values come, and whatever does not exceed it is forgotten; what is left may lie on disk, since the
m-th largest is found by going through it a few times, in pieces.
"""

import math
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

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
