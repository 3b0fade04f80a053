"""Does a unit change as its explanation says when one attribute of a picture changes and nothing else?

Prediction and response are centred within each group of pictures that differ in one attribute, so that whatever the
scenes have in common is gone; their correlation over all pictures is the score. A wrong word that goes along with the
right one in natural pictures is worth nothing here.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

SMALL, BIG = 0.1, 0.5
"""Signs are compared where the predicted change is above this share of the unit's largest; and where it is big."""


def centred(values: Tensor, group: Tensor) -> Tensor:
    """Values (K, N) float64 less the mean of their group (N,); exactly 0 where a row differs by rounding only."""
    count = group.bincount().clamp(min=1)
    sums = torch.zeros(len(values), len(count), dtype=torch.float64).index_add_(1, group, values)
    rest = values - (sums / count)[:, group]
    flat = rest.abs().amax(1, keepdim=True) <= 1e-10 * values.abs().amax(1, keepdim=True)
    return rest.masked_fill(flat, 0.0)


def correlations(predicted: Tensor, real: Tensor) -> Tensor:
    """Correlation of each of E predictions (E, N) with each of K responses (K, N), both centred: (E, K).

    A prediction that never changes knows nothing: 0. A unit that never changes has no correlation: NaN.
    """
    size = predicted.square().sum(1).sqrt()
    unit = real.square().sum(1).sqrt()
    r = (predicted / size.masked_fill(size == 0, 1)[:, None]) @ (real / unit.masked_fill(unit == 0, 1)[:, None]).T
    return r.clamp(-1, 1).masked_fill(unit == 0, torch.nan)


def jackknife(predicted: Tensor, real: Tensor, scene: Tensor) -> Tensor:
    """Standard errors (K,) of the correlation of each prediction (K, N) with its response, by leaving out scenes.

    NaN for fewer than two scenes.
    """
    scene = scene.unique(return_inverse=True)[1]
    n = int(scene.max()) + 1 if len(scene) else 0
    if n < 2:
        return torch.full((len(real),), torch.nan, dtype=torch.float64)
    parts = [
        torch.zeros(len(real), n, dtype=torch.float64).index_add_(1, scene, x * y)
        for x, y in ((predicted, real), (predicted, predicted), (real, real))
    ]
    xy, xx, yy = (part.sum(1, keepdim=True) - part for part in parts)
    r = xy / (xx * yy).sqrt().clamp(min=1e-300)
    return ((n - 1) / n * (r - r.mean(1, keepdim=True)).square().sum(1)).sqrt()


def partners(group: Tensor, seed: int = 0) -> Tensor:
    """For each picture (N,) another of its group, drawn at random: groups are gone through in a random circle."""
    draw = torch.rand(len(group), generator=torch.Generator().manual_seed(seed))
    order = torch.from_numpy(np.lexsort((draw.numpy(), group.numpy())))
    sizes = group[order].unique_consecutive(return_counts=True)[1]
    ends = sizes.cumsum(0)
    following = torch.arange(1, len(group) + 1)
    following[ends - 1] = ends - sizes
    other = torch.empty_like(order)
    other[order] = order[following]
    return other


def sign_agreement(predicted: Tensor, real: Tensor, other: Tensor, least: float) -> Tensor:
    """Share of pairs in which prediction (K, N) and response change in the same direction: (K,) float64.

    Pairs count whose predicted change is above `least` of the largest of the unit; NaN where there are none.
    """
    said, done = predicted[:, other] - predicted, real[:, other] - real
    counts = said.abs() > least * said.abs().amax(1, keepdim=True)
    same = (said.sign() == done.sign()) & counts
    return same.sum(1).double() / counts.sum(1)


def flips(scores: Tensor, group: Tensor, least: float) -> Tensor:
    """In how many groups each concept's scores (F, N) differ by at least `least`: (F,) int64."""
    names, places = group.unique(return_inverse=True)
    index, shape = places.expand(len(scores), -1), (len(scores), len(names))
    low = torch.full(shape, torch.inf).scatter_reduce_(1, index, scores, "amin")
    high = torch.full(shape, -torch.inf).scatter_reduce_(1, index, scores, "amax")
    return (high - low >= least).sum(1)


def own_flips(scores: Tensor, group: Tensor, about: Tensor, least: float) -> Tensor:
    """The same (F,) where each group was made for one concept, `about` (N,), and counts for this one only."""
    own = scores[about, torch.arange(len(about))][None]
    flipped = [flips(own[:, about == place], group[about == place], least) for place in about.unique()]
    counts = torch.zeros(len(scores), dtype=torch.int64)
    counts[about.unique()] = torch.cat(flipped) if flipped else counts[:0]
    return counts


def beaten(own: Tensor, others: Tensor) -> Tensor:
    """Share of the other explanations (E, K) of K units that each unit's own (K,) is above: (K,); NaN if none."""
    return (others < own).sum(0).double() / (~others.isnan()).sum(0)


def auroc(own: Tensor, others: Tensor) -> float:
    """Probability that a unit's own explanation is above any other explanation on any unit; ties count half."""
    ours, theirs = own[~own.isnan()], others[~others.isnan()].sort().values
    if not len(ours) or not len(theirs):
        return float("nan")
    below = torch.searchsorted(theirs, ours) + torch.searchsorted(theirs, ours, right=True)
    return float(below.double().mean() / 2 / len(theirs))


@dataclass(frozen=True)
class PairScores:
    """What pairs say of K explanations.

    Attributes:
        own: (K,) correlation of each with its unit; NaN for a unit that never changes.
        sem: (K,) its standard error, over scenes.
        others: (E, K) correlation of each explanation of the layer with each unit; NaN for the unit's own.
        signs: (K,) share of changes whose direction is right.
        big: (K,) the same of big changes.
    """

    own: Tensor
    sem: Tensor
    others: Tensor
    signs: Tensor
    big: Tensor

    @property
    def beaten(self) -> Tensor:
        """(K,) share of the other explanations that each is above."""
        return beaten(self.own, self.others)

    def take(self, k: int, by: "PairScores") -> None:
        """Puts what other pictures say of explanation k, the only one in `by`, in the place of what these say."""
        for mine, theirs in ((self.own, by.own), (self.sem, by.sem), (self.signs, by.signs), (self.big, by.big)):
            mine[k] = theirs[0]
        self.others[:, k] = by.others[:, 0]


def pair_scores(predicted: Tensor, real: Tensor, of: Tensor, group: Tensor, scene: Tensor) -> PairScores:
    """Scores the explanations of K units, and all E explanations of the layer on each of them.

    Args:
        predicted: (E, N) predictions of all explanations.
        real: (K, N) responses of the units.
        of: (K,) int64, which explanation is each unit's own.
        group: (N,) pictures of one group differ in one attribute.
        scene: (N,) of each picture; scenes are independent.
    """
    if not len(group):
        own, sem, signs, big = torch.full((4, len(real)), torch.nan, dtype=torch.float64).unbind()
        others = torch.full((len(predicted), len(real)), torch.nan, dtype=torch.float64)
        return PairScores(own, sem, others, signs, big)
    predicted, real = centred(predicted.double(), group), centred(real.double(), group)
    r = correlations(predicted, real)
    units, other, mine = torch.arange(len(of)), partners(group), predicted[of]
    own = r[of, units]
    r[of, units] = torch.nan
    return PairScores(
        own=own,
        sem=jackknife(mine, real, scene),
        others=r,
        signs=sign_agreement(mine, real, other, SMALL),
        big=sign_agreement(mine, real, other, BIG),
    )
