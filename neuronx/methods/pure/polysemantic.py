"""A test that a unit means several things: its circuits fall into two clusters better than one cloud of points would.

k-means splits any cloud into two halves, and explains more of its variance the longer the cloud is. The share of the
circuits' variance that two clusters explain is therefore compared with the share for points drawn from one Gaussian
with the same covariance spectrum, which stands for a unit of one meaning (after SigClust: Liu, Hayes, Nobel and
Marron, 2008).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from neuronx.errors import UserError
from neuronx.methods.pure.clusters import clouds, kmeans

FEWEST = 8
"""Circuits that a unit needs to be tested; with fewer it stays whole."""


@dataclass(frozen=True)
class Verdicts:
    """Results of the test for K units; all (K,) float64.

    Attributes:
        share: Of the variance of the unit's circuits, what two clusters explain; 0 where they do not vary.
        null: The same of one Gaussian cloud with the same spectrum, its mean over the draws.
        low: The 2.5 % quantile of the draws.
        high: The 97.5 % quantile.
        p: Chance that one cloud reaches `share`, from a normal distribution fitted to the draws; 1 where the unit
            cannot be tested.
    """

    share: Tensor
    null: Tensor
    low: Tensor
    high: Tensor
    p: Tensor

    @property
    def excess(self) -> Tensor:
        """(K,) how much more of the variance two clusters explain than of one cloud: how polysemantic a unit is."""
        return self.share - self.null


def verdicts(
    inner: Tensor, counted: Tensor, *, draws: int = 50, n_init: int = 4, seed: int = 0, fewest: int = FEWEST
) -> Verdicts:
    """Tests all units at once.

    Args:
        inner: (K, m, m) float64, inner products of each unit's circuits, from `products`.
        counted: (K, m) bool, which of them count.
        draws: Clouds drawn for each unit, at least 10.
        n_init: Restarts of k-means, the same for circuits and clouds.
        seed: Of the draws.
        fewest: Circuits that a unit needs to be tested.

    Raises:
        UserError: Fewer than 10 draws.
    """
    if draws < 10:
        raise UserError(f"The test for polysemantic units has {draws} draws; it needs at least 10.")
    possible = (counted.sum(1) >= max(fewest, 2)) & (inner.diagonal(dim1=1, dim2=2).sum(1) > 0)
    share, null, low, high = (torch.zeros(len(inner), dtype=torch.float64, device=inner.device) for _ in range(4))
    p = torch.ones_like(share)
    if possible.any():
        inner, counted = inner[possible], counted[possible]
        share[possible] = explained(inner, counted, n_init, seed)
        made = [explained(*drawn, n_init, seed) for drawn in clouds(inner, counted, draws, seed)]
        drawn = torch.cat(made).view(draws, -1)
        null[possible] = drawn.mean(0)
        low[possible], high[possible] = drawn.quantile(drawn.new_tensor([0.025, 0.975]), 0)
        z = (share[possible] - drawn.mean(0)) / drawn.std(0).clamp(min=1e-12)
        p[possible] = torch.special.ndtr(-z)
    return Verdicts(share, null, low, high, p)


def explained(inner: Tensor, counted: Tensor, n_init: int = 4, seed: int = 0, k: int = 2) -> Tensor:
    """(K,) share of the variance that k clusters explain, in [0, 1]."""
    total = inner.diagonal(dim1=1, dim2=2).sum(1)
    return 1 - kmeans(inner, k, counted, n_init=n_init, seed=seed).inertia / total.clamp(min=1e-300)
