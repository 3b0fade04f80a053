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

PIECE = 2**19
"""Pairs that are worked on at a time."""


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
    for piece in values.split(max(1, PIECE // units)):
        hits = (piece > floor).flatten().nonzero().squeeze(1)
        if len(hits):
            yield (hits % units).to(small).cpu(), piece.flatten()[hits].cpu()


def trimmed(stream: Iterable[Pairs], floor: Tensor) -> Iterator[Pairs]:
    """The pairs above the floors (K,); small pieces come out joined."""
    kept: list[Pairs] = []
    for units, values in _pieces(stream):
        high = values > floor[units.int()]
        kept.append((units[high], values[high]))
        if sum(len(some) for some, _ in kept) >= PIECE:
            yield _joined(kept)
            kept = []
    if kept:
        yield _joined(kept)


def largest(stream: Callable[[], Iterable[Pairs]], rank: int, floor: Tensor) -> Tensor:
    """The rank-th largest value of each unit, counted from 1: a radix selection, byte by byte.

    Args:
        stream: Gives all values above the floors, and maybe some below; called four times.
        rank: At least 1.
        floor: (K,) float32, which the answer is known to reach: it is the answer where too few values are above it.

    Returns:
        (K,) float32.
    """
    units = len(floor)
    found = torch.zeros(units, dtype=torch.int64)  # the leading bits of the answer's key
    left = torch.full((units,), rank)
    few = torch.zeros(units, dtype=torch.bool)
    for shift in (24, 16, 8, 0):
        counts = torch.zeros(units * 256, dtype=torch.int64)
        for owners, values in _pieces(stream()):
            key, owner = _key(values), owners.long()
            if shift < 24:
                same = key >> shift + 8 == found[owner]
                key, owner = key[same], owner[same]
            counts += torch.bincount(owner * 256 + (key >> shift & 255), minlength=units * 256)
        reached = counts.view(units, 256).flip(1).cumsum(1)  # by how many values, from the highest byte down
        place = (reached < left[:, None]).sum(1)
        few |= place == 256
        place.clamp_(max=255)
        before = torch.cat([torch.zeros(units, 1, dtype=torch.int64), reached], 1).gather(1, place[:, None])
        left -= before.squeeze(1)
        found = found << 8 | 255 - place
    return torch.where(few, floor, _value(found).maximum(floor))


def ordered(values: Tensor) -> Tensor:
    """Integers (int64, 32 bits with sign) in the order of float32 values."""
    bits = values.view(torch.int32)
    return (bits ^ (bits >> 31 & 0x7FFFFFFF)).long()


def _key(values: Tensor) -> Tensor:
    return ordered(values) + 2**31


def _value(key: Tensor) -> Tensor:
    bits = (key - 2**31).int()
    return (bits ^ (bits >> 31 & 0x7FFFFFFF)).view(torch.float32)


def _pieces(stream: Iterable[Pairs]) -> Iterator[Pairs]:
    for units, values in stream:
        yield from zip(units.split(PIECE), values.split(PIECE), strict=True)


def _joined(pairs: list[Pairs]) -> Pairs:
    units, values = zip(*pairs, strict=True)
    return torch.cat(units), torch.cat(values)
