"""Correlations, fed in pieces and merged across processes, and how sure a correlation, mean or difference is.

Everything is float64: a unit that fires on 5 of 50,000 images has a variance that float32 sums lose.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor


@dataclass(frozen=True)
class Moments:
    """What is known of K pairs (x, y) after n images; all (K,) float64.

    Attributes:
        n: Number of images, the same for every pair, as a (K,) tensor so that moments can be stacked and gathered.
        x: Mean of x.
        y: Mean of y.
        xx: Sum of squared deviations of x; exactly 0 where x never changed.
        yy: The same of y.
        xy: Sum of products of the deviations.
    """

    n: Tensor
    x: Tensor
    y: Tensor
    xx: Tensor
    yy: Tensor
    xy: Tensor

    def stack(self) -> Tensor:
        """All six as one (6, K) tensor, to send to other processes; `Moments(*tensor)` reads it back."""
        return torch.stack((self.n, self.x, self.y, self.xx, self.yy, self.xy))


def empty(pairs: int, device: torch.device | str = "cpu") -> Moments:
    """The moments of no images at all."""
    return Moments(*torch.zeros(6, pairs, dtype=torch.float64, device=device))


def moments(x: Tensor, y: Tensor) -> Moments:
    """The moments of one batch of B images, B at least 1.

    Args:
        x: (K, B) of any floating dtype; taken as float64.
        y: (K, B) on the same device.
    """
    x, y = x.double(), y.double()
    # Values are taken less that of the first image. What never changes gives exact zeros, and since the first image is
    # in the batch, the square of the mean is at most B times the variance: no digits are lost.
    first_x, first_y = x[:, 0], y[:, 0]
    x, y = x - first_x[:, None], y - first_y[:, None]
    mean_x, mean_y, count = x.mean(1), y.mean(1), x.shape[1]
    return Moments(
        n=torch.full_like(mean_x, count),
        x=first_x + mean_x,
        y=first_y + mean_y,
        xx=(x * x).sum(1) - count * mean_x * mean_x,
        yy=(y * y).sum(1) - count * mean_y * mean_y,
        xy=(x * y).sum(1) - count * mean_x * mean_y,
    )


def merge(a: Moments, b: Moments) -> Moments:
    """The moments of the images of both (Chan, Golub and LeVeque, 1983). Either may be empty."""
    n = a.n + b.n
    share = b.n / n.clamp(min=1)
    dx, dy = b.x - a.x, b.y - a.y
    both = a.n * share
    return Moments(
        n,
        a.x + dx * share,
        a.y + dy * share,
        a.xx + b.xx + dx * dx * both,
        a.yy + b.yy + dy * dy * both,
        a.xy + b.xy + dx * dy * both,
    )


def pearson(m: Moments) -> Tensor:
    """Correlation of prediction x and activation y, (K,) float64 in [-1, 1].

    Where y never changes there is nothing to predict: NaN, "inactive". Where x never changes, but for rounding, and y
    does, the prediction knows nothing: 0.
    """
    rounding = 1e-12 * m.x.abs() * m.n.sqrt()
    flat = m.xx.sqrt() <= rounding
    r = m.xy / (m.xx.sqrt() * m.yy.sqrt()).masked_fill(flat | (m.yy == 0), 1)
    r = torch.where(flat, 0.0, r.clamp(-1, 1))
    return torch.where(m.yy == 0, math.nan, r)


def mean_and_sem(values: ArrayLike) -> tuple[float, float]:
    """Mean and standard error, the sample standard deviation over the square root of the number.

    The mean of nothing is NaN, and so is the standard error of fewer than two.
    """
    x = np.asarray(values, dtype=np.float64)
    if not len(x):
        return math.nan, math.nan
    # By a power of 2, so that no digit changes, and sums and squares of huge values do not overflow.
    exponent = int(np.frexp(np.abs(x).max())[1])
    x = np.ldexp(x, -exponent)
    sem = float(np.ldexp(x.std(ddof=1) / math.sqrt(len(x)), exponent)) if len(x) > 1 else math.nan
    return float(np.ldexp(x.mean(), exponent)), sem


def correlation_sem(r: ArrayLike, n: int) -> NDArray[np.float64]:
    """Standard error of correlations over n images, (1 - r^2) / sqrt(n - 1); NaN for fewer than two images."""
    r = np.asarray(r, dtype=np.float64)
    return (1 - r * r) / math.sqrt(n - 1) if n > 1 else np.full_like(r, math.nan)


FEW = 10
"""Of fewer values the bootstrap's interval is too narrow: it is the t interval instead."""


def interval(values: ArrayLike, *, seed: int = 0, draws: int = 2000, level: float = 0.95) -> tuple[float, float, float]:
    """Mean and its percentile bootstrap interval: (mean, low, high); of fewer than `FEW` values the t interval.

    For a paired comparison pass the differences: a draw then takes whole pairs.

    Args:
        values: (n,), one a unit; NaN for an empty list. The ends are NaN for a single one, which has no interval.
        seed: Of the draws.
        draws: How many samples of n units, drawn with replacement.
        level: Share of the draws' means inside the interval.
    """
    x = np.asarray(values, dtype=np.float64)
    if not len(x):
        return math.nan, math.nan, math.nan
    if len(x) < FEW:
        from scipy.stats import t

        mean, sem = mean_and_sem(x)
        half = float(t.ppf((1 + level) / 2, len(x) - 1)) * sem if len(x) > 1 else math.nan
        return mean, mean - half, mean + half
    rng = np.random.default_rng(seed)
    step = max(1, 4_000_000 // len(x))  # bounds the memory, not the draws
    sizes = [min(step, draws - start) for start in range(0, draws, step)]
    means = np.concatenate([x[rng.integers(0, len(x), (size, len(x)))].mean(1) for size in sizes])
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(x.mean()), float(low), float(high)


def spearman(x: ArrayLike, y: ArrayLike) -> float:
    """Rank correlation of two lists, ties at their middle ranks; NaN with fewer than two or where one is constant."""
    from scipy.stats import rankdata

    a, b = rankdata(x), rankdata(y)
    if len(a) < 2:
        return math.nan
    a, b = a - a.mean(), b - b.mean()
    scale = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / scale if scale else math.nan
