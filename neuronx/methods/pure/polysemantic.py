"""A test that a unit means several things: seen along the line between two clusters, its circuits have two modes.

k-means splits any cloud into two halves, along which its own points then look apart. The line is therefore found on one
half of the references, and the other half is projected on it, where Hartigan's dip says whether there are two modes
more surely than in a normal sample. Many random halves are combined by Cauchy's rule (Liu and Xie, 2020), which needs
not know how they depend on each other.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from neuronx.errors import UserError
from neuronx.methods.pure.clusters import CHUNK, kmeans
from neuronx.metrics.dip import chance, dip, normal_dips
from neuronx.metrics.purity import members
from neuronx.options import Count, Seed

FEWEST = 20
"""Circuits that a unit needs to be tested; with fewer it stays whole."""
DEFAULT = 0.001
"""Level of the test where none is given."""
HALVES = 10
"""Random halves; each is fitted and looked at in turn."""


@dataclass(frozen=True)
class Verdicts:
    """Results of the test for K units; all (K,) float64.

    Attributes:
        p: Chance that circuits of one mode look as split; 1 where the unit cannot be tested.
        dip: Mean dip of the halves that were looked at, 0 to .25; 0 where the unit cannot be tested.
        repeats: Mean adjusted Rand index of the two clusters that either half makes of all references: 1 where parts do
            not depend on the references, 0 at chance; NaN where the unit cannot be tested.
    """

    p: Tensor
    dip: Tensor
    repeats: Tensor

    @property
    def q(self) -> Tensor:
        """(K,) p adjusted for the number of units (`adjusted`)."""
        return adjusted(self.p)

    @property
    def order(self) -> Tensor:
        """(K,) int64, the units by p, of equals the largest dip first."""
        by_dip = self.dip.argsort(descending=True, stable=True)
        return by_dip[self.p[by_dip].argsort(stable=True)]


@dataclass(frozen=True)
class Level:
    """At which a unit is called polysemantic: p below `alpha`, or, if `adjusted`, q of at most `alpha`."""

    alpha: float
    adjusted: bool = False

    @classmethod
    def of(cls, alpha: float | str | None) -> "Level":
        """From .001, `bh:.05` or None, which stands for the default.

        Raises:
            UserError: Neither.
        """
        if alpha is None:
            return cls(DEFAULT)
        way, _, number = alpha.rpartition(":") if isinstance(alpha, str) else ("", "", alpha)
        try:
            level = cls(float(number), way == "bh")
        except ValueError:
            level = cls(0.0)
        if way not in ("", "bh") or not 0 < level.alpha < 1:
            raise UserError(
                f"alpha={alpha} of PURE: write a number between 0 and 1, bh:.05 for a share of false ones among the "
                "units of a layer that are split, or null to split all units."
            )
        return level

    def found(self, verdicts: Verdicts) -> Tensor:
        """(K,) bool, the units that are polysemantic."""
        return verdicts.q <= self.alpha if self.adjusted else verdicts.p < self.alpha


def verdicts(
    inner: Tensor, counted: Tensor, *, halves: Count = HALVES, n_init: Count = 10, seed: Seed = 0, fewest: int = FEWEST
) -> Verdicts:
    """Tests all units at once; what is said of a unit does not depend on what other units there are.

    Args:
        inner: (K, m, m) float64, inner products of each unit's circuits, from `products`.
        counted: (K, m) bool, which of them count.
        halves: Random halves.
        n_init: Restarts of k-means.
        seed: Of the halves.
        fewest: Circuits that a unit needs to be tested.
    """
    K = len(inner)
    p, dips, repeats = inner.new_ones(K), inner.new_zeros(K), inner.new_full((K,), math.nan)
    number = counted.sum(1)
    possible = (number >= max(fewest, 4)) & (inner.diagonal(dim1=1, dim2=2).sum(1) > 0)
    for m in number[possible].unique().tolist():
        alike = (possible & (number == m)).nonzero().squeeze(1)
        for units in alike.split(max(1, CHUNK // (2 * halves * m * m))):
            at = counted[units].nonzero()[:, 1].view(len(units), m)
            own = inner[units].gather(1, at[:, :, None].expand(-1, -1, inner.shape[2]))
            own = own.gather(2, at[:, None].expand(-1, m, -1))
            p[units], dips[units], repeats[units] = _cross_fitted(own, halves, n_init, seed)
    return Verdicts(p, dips, repeats)


def _cross_fitted(G: Tensor, halves: Count, n_init: Count, seed: Seed) -> tuple[Tensor, Tensor, Tensor]:
    """p, dip and repeats, (K,) each, of units whose m circuits all count, from inner products G (K, m, m)."""
    m, draw = G.shape[1], torch.Generator().manual_seed(seed)
    orders = torch.stack([torch.randperm(m, generator=draw) for _ in range(halves)]).to(G.device)
    chances, dips, labels = [], [], []
    for fit, rest in ((orders[:, : m // 2], orders[:, m // 2 :]), (orders[:, m // 2 :], orders[:, : m // 2])):
        to_all = G[:, fit]  # (K, S, n, m)
        n = fit.shape[1]
        own = to_all.gather(3, fit[:, None].expand(len(G), -1, n, -1))
        found = kmeans(own.flatten(0, 1), 2, n_init=n_init, seed=seed)
        inside = members(found.labels, 2)
        weights = inside / inside.sum(1, keepdim=True).clamp(min=1)  # (K S, n, 2)
        axis = weights[:, :, :1] - weights[:, :, 1:]
        scores = (to_all.flatten(0, 1).transpose(1, 2) @ axis).view(len(G), halves, m)
        # The middle of the two centres is where a point is as near to one as to the other.
        squares = ((own.flatten(0, 1) @ weights) * weights).sum(1).view(len(G), halves, 2)
        labels.append((scores < (squares[..., :1] - squares[..., 1:]) / 2).long())
        held_out = scores.gather(2, rest.expand(len(G), -1, -1)).flatten(0, 1)
        looked_at = dip(held_out)
        chances.append(chance(looked_at, normal_dips(rest.shape[1])).view(len(G), -1))
        dips.append(looked_at.view(len(G), -1))
    p = cauchy(torch.cat(chances, 1))
    return p, torch.cat(dips, 1).mean(1), rand_index(*labels).mean(1)


def cauchy(p: Tensor) -> Tensor:
    """One chance (K,) from the chances (K, S) of tests that may depend on each other (Liu and Xie, 2020)."""
    mean = (math.pi * (0.5 - p.clamp(max=0.99))).tan().mean(1)
    return 0.5 - mean.atan() / math.pi


def adjusted(p: Tensor) -> Tensor:
    """The share of false findings (K,) among units with at most a unit's p (Benjamini and Hochberg, 1995)."""
    order = p.argsort(descending=True)
    rank = torch.arange(len(p), 0, -1, dtype=p.dtype, device=p.device)
    return torch.empty_like(p).scatter_(0, order, (p[order] * len(p) / rank).cummin(0).values.clamp(max=1))


def rand_index(a: Tensor, b: Tensor) -> Tensor:
    """Adjusted Rand index (Hubert and Arabie, 1985) of labels a and b (..., m) of two clusters, 0 and 1: (...)."""
    m = a.shape[-1]

    def pairs(n: Tensor) -> Tensor:
        return n * (n - 1) / 2

    both = torch.stack([((a == i) & (b == j)).sum(-1) for i in (0, 1) for j in (0, 1)], -1).double()
    table = both.unflatten(-1, (2, 2))
    together, of_a, of_b = pairs(both).sum(-1), pairs(table.sum(-1)).sum(-1), pairs(table.sum(-2)).sum(-1)
    expected = of_a * of_b / (m * (m - 1) / 2)
    most = (of_a + of_b) / 2
    return torch.where(most > expected, (together - expected) / (most - expected).clamp(min=1e-300), 1.0)
