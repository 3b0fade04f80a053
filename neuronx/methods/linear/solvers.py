"""Other solvers of the elastic net: the published GLM-SAGA, and gradient steps over the images."""

import contextlib
import io
import logging
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import softshrink

from neuronx.concepts.encoders import own_device
from neuronx.errors import UserError
from neuronx.methods.linear.elastic_net import violations
from neuronx.methods.linear.moments import Rows, over_ranks
from neuronx.progress import progress

log = logging.getLogger(__name__)

GROUP = 128  # units fitted together, as published
BATCH = 512


def saga(
    concepts: Tensor,
    units: Tensor,
    lam: float = 0.05,
    alpha: float = 0.99,
    *,
    epochs: int = 500,
    step: float = 5e-4,
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """Fits the elastic nets of all units by proximal SAGA.

    Args:
        concepts: (N, C) float, the train rows.
        units: (N, K) float.
        lam: Weight of the absolute values.
        alpha: Share of L1.
        epochs: Passes over the images.
        step: Learning rate.
        seed: Of the order of the images.

    Returns:
        As `elastic_net.solve`: weights (K, C) in standardised coordinates, and correlations (K, C) of the concepts with
        what is left over. Concepts and units that never change have zeros; they do not touch the others.

    Raises:
        UserError: When the library is not installed.
    """
    try:
        from glm_saga.elasticnet import glm_saga
    except ImportError:
        raise UserError(
            "solver=saga needs the glm_saga library: pip install 'neuronx[saga]', or solver=exact."
        ) from None
    x, y = _standardised(concepts), _standardised(units)
    weights = torch.zeros(y.shape[1], x.shape[1], device=x.device)
    live = (y != 0).any(0).nonzero().squeeze(1)
    for group in progress(live.split(GROUP), "GLM-SAGA"):
        linear = torch.nn.Linear(x.shape[1], len(group)).to(x.device)
        torch.nn.init.zeros_(linear.weight)
        torch.nn.init.zeros_(linear.bias)
        with contextlib.redirect_stdout(io.StringIO()):  # the library reports its stops by printing
            glm_saga(
                linear,
                _Shuffled(x, y[:, group], seed),
                max_lr=step,
                nepochs=epochs,
                alpha=alpha,
                n_ex=len(x),
                n_classes=len(group),
                epsilon=1,
                k=1,
                do_zero=False,
                metadata={"max_reg": {"nongrouped": lam}},
                lookbehind=epochs + 1,
                family="gaussian",
            )
        weights[group] = linear.weight.detach()
    left = (y - x @ weights.T).T @ x / len(x)
    return weights.double(), left.double()


def _standardised(values: Tensor) -> Tensor:
    values = values.double()
    centred = values - values.mean(0)
    deviation = values.std(0)
    live = deviation > 1e-12 * values.abs().amax(0)
    return torch.where(live, centred / deviation, 0.0).float()


class _Shuffled:
    """Batches (rows of x, rows of y, indices), in a new seeded order each time they are gone through."""

    def __init__(self, x: Tensor, y: Tensor, seed: int) -> None:
        self.x, self.y = x, y
        self.chance = torch.Generator().manual_seed(seed)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for rows in torch.randperm(len(self.x), generator=self.chance).split(BATCH):
            yield self.x[rows], self.y[rows], rows


class ProximalNet:
    """Elastic nets of K units on C concepts, standardised by the train rows; see `elastic_net` for the criterion.

    The first epoch finds means and deviations, the second how steep the criterion can be; then each takes a step.

    Attributes:
        net: (K, C) float32, the weights in standardised coordinates.
        left: (K, C) float32, correlations of the concepts with what `net` leaves over.
        residual: Largest residual of the optimality conditions over all units; infinite until known.
    """

    def __init__(self, rows: Rows, lam: float = 0.05, alpha: float = 0.99, tolerance: float = 1e-4) -> None:
        """Starts at zero."""
        self.rows, self.l1, self.l2, self.tolerance = rows, lam, lam / alpha * (1 - alpha), tolerance
        units, concepts, device = sum(map(len, rows.units)), len(rows.concepts), own_device()
        self.scales = [_Scale(concepts, device), _Scale(units, device)]
        self.net, self.left, self.ahead, self.gradient = (
            torch.zeros(units, concepts, device=device) for _ in range(4)
        )  # the next gradient is taken at `ahead`
        self.momentum, self.age = self.net.new_zeros(units, 1), self.net.new_ones(units, 1)
        self.residual, self.steepness = float("inf"), 0.0

    def fit(self, epochs: int = 2000) -> "ProximalNet":
        """Goes through the train rows until the weights are good enough, or the epochs run out, and says so."""
        for epoch in range(epochs):
            for batch in self.rows.batches(self.rows.train):
                if len(batch[0]):
                    self._add(batch, epoch)
            if epoch == 0:
                for scale in self.scales:
                    scale.finish()
            elif self._good_enough(epoch):
                return self
        log.warning(
            "the proximal solver stopped after %d epochs at a residual of %.1e (wanted %.1e)",
            *(epochs, self.residual, self.tolerance),
        )
        return self

    def _add(self, batch: tuple[Tensor, Tensor], epoch: int) -> None:
        """Adds one batch of (concept scores (B, C), activations (B, K))."""
        if epoch == 0:
            for scale, values in zip(self.scales, batch, strict=True):
                scale.add(values)
            return
        x, y = (scale.standardise(values) for scale, values in zip(self.scales, batch, strict=True))
        if epoch == 1:
            # The largest eigenvalue of an average is at most the average of the largest eigenvalues.
            small = x @ x.T if len(x) < x.shape[1] else x.T @ x
            self.steepness += float(torch.linalg.eigvalsh(small)[-1])
        self.gradient.addmm_((y - x @ self.ahead.T).T, x)

    def _good_enough(self, epoch: int) -> bool:
        """Whether the weights are, after an epoch; otherwise takes a step."""
        n = self.scales[0].count
        if epoch == 1:
            steepness = over_ranks(self.net.new_tensor(self.steepness))
            self.steepness = 1.01 * float(steepness) / n + self.l2
        left_ahead = over_ranks(self.gradient) / n
        self.gradient.zero_()
        # The residual is affine in the weights, so that at `net` follows from those at `ahead` and at the net before.
        self.left = (left_ahead + self.momentum * self.left) / (1 + self.momentum)
        self.residual = float(violations(self.net, self.left, self.l1, self.l2).max())
        if self.residual > self.tolerance:
            self._step(left_ahead)
        return self.residual <= self.tolerance

    def _step(self, left_ahead: Tensor) -> None:
        slope = left_ahead - self.l2 * self.ahead
        new = softshrink(self.ahead + slope / self.steepness, self.l1 / self.steepness)
        moved = new - self.net
        overshot = ((self.ahead - new) * moved).sum(1, keepdim=True) > 0
        age = torch.where(overshot, 1.0, (1 + (1 + 4 * self.age**2).sqrt()) / 2)
        self.momentum = torch.where(overshot, 0.0, (self.age - 1) / age)
        self.age = age
        self.ahead = new + self.momentum * moved
        self.net = new


class _Scale:
    """Means and deviations of columns, added up over batches (Chan's update) and ranks, in float64."""

    def __init__(self, columns: int, device: torch.device) -> None:
        kind = torch.float32 if device.type == "mps" else torch.float64
        self.count = 0
        self.mean = torch.zeros(columns, dtype=kind, device=device)
        self.squares = torch.zeros(columns, dtype=kind, device=device)

    def add(self, values: Tensor) -> None:
        values = values.to(self.mean.dtype)
        step = values.mean(0) - self.mean
        count = self.count + len(values)
        self.squares += (values - values.mean(0)).square().sum(0) + step.square() * (self.count * len(values) / count)
        self.mean += step * (len(values) / count)
        self.count = count

    def finish(self) -> None:
        total = over_ranks(torch.tensor(float(self.count), device=self.mean.device))
        mean = over_ranks(self.count * self.mean) / total
        squares = over_ranks(self.squares + self.count * (self.mean - mean).square())
        self.count, self.mean = int(total), mean
        deviation = (squares / (self.count - 1)).sqrt()
        self.inverse = torch.where(deviation > 1e-12 * mean.abs(), 1 / deviation, 0.0)

    def standardise(self, values: Tensor) -> Tensor:
        return ((values.to(self.mean.dtype) - self.mean) * self.inverse).float()
