"""Closing the loop: do pictures that an explanation predicts to be extreme drive its unit to its extremes?

Of a pool of pictures that no method saw, the judge retrieves those for which the explanation predicts most and least. A
unit passes when its mean response to them is above its 95th percentile on natural pictures, or below its 5th.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

HIGH, LOW = 0.95, 0.05
"""Percentiles of a unit on natural pictures that its extremes must pass."""


def extremes(values: Tensor, n: int, seed: int) -> tuple[Tensor, Tensor]:
    """The n pictures of the highest and of the lowest values (K, N): two (K, n) int64; ties are broken at random."""
    draw = torch.randperm(values.shape[1], generator=torch.Generator().manual_seed(seed))
    order = draw[values[:, draw].argsort(dim=1, stable=True)]
    return order[:, -n:], order[:, :n]


def percentiles(natural: Tensor) -> tuple[Tensor, Tensor]:
    """The 95th and 5th percentiles (K,) of units on natural pictures (K, N)."""
    if not len(natural):
        return torch.zeros(0).double(), torch.zeros(0).double()
    high, low = natural.double().quantile(torch.tensor([HIGH, LOW], dtype=torch.float64), dim=1).unbind()
    return high, low


@dataclass(frozen=True)
class LoopScores:
    """What the loop says of K explanations.

    Attributes:
        top: (K,) bool, the mean response to the pictures predicted highest is above the unit's 95th percentile.
        low: (K,) bool, that to the lowest is below its 5th.
        beats_top: (K,) share of the layer's other explanations whose highest pictures drive the unit less.
        beats_low: (K,) the same of the lowest.
    """

    top: Tensor
    low: Tensor
    beats_top: Tensor
    beats_low: Tensor


def loop_scores(predicted: Tensor, real: Tensor, natural: Tensor, n: int, seed: int = 0) -> LoopScores:
    """Scores K explanations of one method and layer.

    Args:
        predicted: (K, N) predictions on the pool.
        real: (K, N) responses of the units there.
        natural: (K, M) responses on natural pictures, for percentiles.
        n: Pictures retrieved at each end.
        seed: Breaks ties.
    """
    high, low = percentiles(natural)
    top_means, low_means = (_means(chosen, real) for chosen in extremes(predicted, n, seed))
    return LoopScores(
        top=top_means.diagonal() > high,
        low=low_means.diagonal() < low,
        beats_top=_beats(top_means),
        beats_low=_beats(-low_means),
    )


def _means(chosen: Tensor, real: Tensor) -> Tensor:
    """Mean response of each unit (K, N) to the pictures (E, n) of each explanation: (E, K)."""
    shares = torch.zeros(len(chosen), real.shape[1], dtype=real.dtype).scatter_(1, chosen, 1 / chosen.shape[1])
    return shares @ real.T


def _beats(means: Tensor) -> Tensor:
    """Share of the other explanations (E, K) that each unit's own, on the diagonal, is above; NaN without others."""
    return (means < means.diagonal()).sum(0).double() / torch.tensor(float(len(means) - 1) or torch.nan)


def separation(drawn: Tensor, natural: Tensor) -> tuple[Tensor, Tensor]:
    """CoSy's AUC and MAD of units on pictures of a concept (K, n) against natural ones (K, N): two (K,) float64.

    AUC = P(drawn > natural) + P(drawn = natural) / 2; MAD = difference of the means over the natural standard
    deviation (Kopf et al., 2024). NaN for a unit that never changes.
    """
    a, b = drawn.double()[:, :, None], natural.double()[:, None]
    area = ((a > b).double() + (a == b).double() / 2).mean((1, 2))
    deviation = natural.double().std(1)
    mad = (drawn.double().mean(1) - natural.double().mean(1)) / deviation
    flat = deviation == 0
    return area.masked_fill(flat, torch.nan), mad.masked_fill(flat, torch.nan)
