"""Hartigan's dip: how far a sample is from having one mode, for many samples at once.

(J. A. Hartigan and P. M. Hartigan, "The dip test of unimodality", Annals of Statistics 13, 1985.)
"""

from functools import lru_cache

import torch
from torch import Tensor

CHUNK = 2**23
"""Numbers that are worked on at a time: 64 MB."""
DRAWS = 20_000
"""Normal samples that the null distribution has."""


def dip(samples: Tensor) -> Tensor:
    """The dip of B samples of n numbers: the distance of the empirical distribution from the nearest with one mode.

    Args:
        samples: (B, n), n at least 2. Of equal numbers each counts as just above the one before.

    Returns:
        (B,) float64, from 1 / (2 n) to 1 / 4.
    """
    B, n = samples.shape
    found = torch.empty(B, dtype=torch.float64, device=samples.device)
    for some in torch.arange(B).split(max(1, CHUNK // (n * n))):
        found[some] = _dip(samples[some].double().sort(1).values)
    return found


@lru_cache(maxsize=256)
def normal_dips(n: int) -> Tensor:
    """The dips of samples of n numbers from a normal distribution, in ascending order: (20000,) float64."""
    draw = torch.Generator().manual_seed(0)
    return dip(torch.randn(DRAWS, n, generator=draw, dtype=torch.float64)).sort().values


def chance(found: Tensor, null: Tensor) -> Tensor:
    """(B,) float64, the chance of a dip (B,) as large under a null distribution (N,), whose own draws count as one."""
    reached = len(null) - torch.searchsorted(null.to(found.device), found)
    return (1 + reached).double() / (1 + len(null))


def _dip(x: Tensor) -> Tensor:
    """Of sorted samples (B, n) float64.

    In steps of the distribution, n of which are 1: x_i has the height i just before its step and i + 1 after it.
    """
    B, n = x.shape
    before, after = _neighbours(x)
    dips = torch.ones(B, dtype=torch.float64, device=x.device)  # twice the dip, in steps
    low, high = torch.zeros_like(before[:, 0]), torch.full_like(before[:, 0], n - 1)
    place = torch.arange(n, device=x.device)
    left = torch.arange(B, device=x.device)
    while len(left):
        y, lo, hi = x[left], low[left, None], high[left, None]
        on_convex, on_concave = _chain(before[left], hi, lo), _chain(after[left], lo, hi)
        convex, concave = _height(y, on_convex), _height(y, on_concave)  # of both curves at all points
        inside = (place >= lo) & (place <= hi)
        gap = (concave - convex + 1).masked_fill(~(inside & (on_convex | on_concave)), -1.0)
        widest, at = gap.max(1, keepdim=True)
        # The modal interval goes from a vertex of the convex curve to the next one of the concave curve.
        from_ = _latest(on_convex).gather(1, at)
        to = _next(on_concave).gather(1, at)
        wider = widest[:, 0] > dips[left]
        below = (place + 1 - convex).masked_fill(~((place >= lo) & (place <= from_)), 1.0)
        above = (concave - place + 1).masked_fill(~((place >= to) & (place <= hi)), 1.0)
        worst = torch.maximum(below.amax(1), above.amax(1))
        dips[left] = torch.where(wider, torch.maximum(dips[left], worst), dips[left])
        moved = (from_ > lo)[:, 0] | (to < hi)[:, 0]
        low[left], high[left] = from_[:, 0], to[:, 0]
        left = left[wider & moved & (from_ < to)[:, 0]]
    return dips / (2 * n)


def _neighbours(x: Tensor) -> tuple[Tensor, Tensor]:
    """The vertex before each point on the greatest convex minorant of all up to it, and the one after it on the least
    concave majorant of all from it on: (B, n) int64 each; the first and last point are their own.
    """
    n = x.shape[1]
    place = torch.arange(n, dtype=torch.float64, device=x.device)
    slope = ((place[:, None] - place) / (x[:, :, None] - x[:, None, :])).abs()  # infinite between equal points
    earlier = torch.ones(n, n, dtype=torch.bool, device=x.device).tril(-1)
    before = slope.masked_fill(~earlier, -1.0).argmax(2)
    after = slope.masked_fill(~earlier.T, -1.0).argmax(2)
    before[:, 0], after[:, -1] = 0, n - 1
    return before, after


def _chain(following: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """(B, n) bool, the points that following (B, n) leads through from start to end (B, 1), both with it."""
    on = torch.zeros_like(following, dtype=torch.bool).scatter_(1, start, True)
    at = start
    while bool((at != end).any()):
        # Rounding may lead past the end where points are almost equal.
        onward = following.gather(1, at)
        at = torch.where(start < end, onward.minimum(end), onward.maximum(end))
        on.scatter_(1, at, True)
    return on


def _latest(on: Tensor) -> Tensor:
    """(B, n) the last marked place up to each; 0 before the first."""
    return torch.where(on, torch.arange(on.shape[1], device=on.device), 0).cummax(1).values


def _next(on: Tensor) -> Tensor:
    """(B, n) the first marked place from each on; the last place after the last."""
    last = on.shape[1] - 1
    return last - _latest(on.flip(1)).flip(1)


def _height(x: Tensor, on: Tensor) -> Tensor:
    """(B, n) height before the step of the curve through marked points, at all between the first and the last."""
    a, b = _latest(on), _next(on)
    start, wide = x.gather(1, a), x.gather(1, b) - x.gather(1, a)
    share = torch.where(
        wide > 0, (x - start) / wide, (torch.arange(x.shape[1], device=x.device) - a) / (b - a).clamp(min=1)
    )
    return a + (b - a) * share
