"""How much of the damage of replacing a unit by its mean is undone when it is replaced by its simulation instead.

Everything is for K units at once and comes from the curves of their effects: no network runs here. q are predictions, z
activations, both (K, N) float64, split by images into val and test.
"""

import torch
from torch import Tensor

from neuronx.metrics.correlation import moments, pearson
from neuronx.scoring.ablation.curves import Curves

BETAS, EPSILON = (0.9, 0.999), 1e-8

CACHED = 2**14
"""Numbers that a fit works on at a time, such that its arrays stay in a processor's cache."""


def standardised(q_val: Tensor, z_val: Tensor, q_test: Tensor) -> Tensor:
    """`norm`: predictions for the test images, (K, N), with the mean and spread that the unit has on val.

    q is standardised by its own mean and (unbiased) deviation on the test images, as published: these are statistics of
    the simulation, never of the unit. It is shrunk by its correlation with the unit on val. A constant q is the mean.
    """
    m = moments(q_val, z_val)
    r = pearson(m).nan_to_num(0)
    spread = (m.yy / max(q_val.shape[1] - 1, 1)).sqrt()
    own = q_test - q_test.mean(1, keepdim=True)
    deviation = (own.square().sum(1) / max(q_test.shape[1] - 1, 1)).sqrt()
    flat = deviation <= 1e-12 * q_test.abs().amax(1)
    own = own / deviation.masked_fill(flat, 1)[:, None]
    return own * (torch.where(flat, 0.0, spread * r))[:, None] + m.y[:, None]


def fitted(q: Tensor, curves: Curves, steps: int, lr: float) -> tuple[Tensor, Tensor, Tensor]:
    """`optim`: scale c and offset d (K,) that make c q + d do least damage, sum over val of the absolute loss changes.

    By Adam from c = 1, d = 0 with all images at every step, as published; from there c and d can move by about
    steps * lr, by design. For a constant q only d is fitted.

    Returns:
        c, d, and how far amounts went in the range of the curves on the way, where 1 is its end.
    """
    K, few = len(q), max(1, CACHED // max(1, q.shape[1]))
    if few < K:
        parts = [slice(k, k + few) for k in range(0, K, few)]
        found = [fitted(q[part], curves.of(part, slice(None)), steps, lr) for part in parts]
        c, d, reach = (torch.cat(one) for one in zip(*found, strict=True))
        return c, d, reach
    at = torch.stack((torch.ones(K), torch.zeros(K))).to(q)
    mean, square = torch.zeros_like(at), torch.zeros_like(at)
    free = (q.amax(1) > q.amin(1)).to(q)
    reach = torch.zeros(K).to(q)
    for step in range(1, steps + 1):
        amounts = torch.addcmul(at[1][:, None], at[0][:, None], q)
        reach = torch.maximum(reach, curves.reach(amounts))
        change, slope = curves.at(amounts)
        slope *= change.sign()
        gradient = torch.stack(((slope * q).sum(1) * free, slope.sum(1)))
        mean = mean.lerp(gradient, 1 - BETAS[0])
        square = square.lerp(gradient.square(), 1 - BETAS[1])
        rate = lr / (1 - BETAS[0] ** step)
        at = at - rate * mean / ((square / (1 - BETAS[1] ** step)).sqrt() + EPSILON)
    return at[0], at[1], reach


def undone(simulated: Tensor, mean: Tensor, nothing: float) -> tuple[Tensor, Tensor]:
    """The score 1 - sum |simulated| / sum |mean|, and its standard error.

    The standard error is that of a ratio of sums over images (delta method): with the ratio R, residuals
    e = |simulated| - R |mean| and n images, sqrt(n / (n - 1) * sum e^2) / sum |mean|.

    Args:
        simulated: (K, N) changes of the loss with the unit at its simulation.
        mean: (K, N) the same with the unit at its mean.
        nothing: Mean absolute changes up to this are rounding.

    Returns:
        Scores (K,) and standard errors (K,), both NaN where there is no effect.
    """
    there, base = simulated.abs(), mean.abs()
    n, total = base.shape[1], base.sum(1)
    effect = total > nothing * n
    ratio = there.sum(1) / total.masked_fill(~effect, 1)
    residual = there - ratio[:, None] * base
    sem = (residual.square().sum(1) * n / max(n - 1, 1)).sqrt() / total.masked_fill(~effect, 1)
    return torch.where(effect, 1 - ratio, torch.nan), torch.where(effect, sem, torch.nan)
