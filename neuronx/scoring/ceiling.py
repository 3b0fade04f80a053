"""The ceiling: how well the judge's concepts can predict a unit at all, when a dense ridge regression may use them all.

Fitted on train and val: the penalty of each unit is the one that, fitted on train, correlates best on val; then both
are fitted together. Everything is solved from moments, for all units at once.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from lightning import LightningModule
from torch import Tensor

from neuronx.concepts.formula import Formulas
from neuronx.scoring.rows import RowBatches, arithmetic_device
from neuronx.scoring.simulator import judged
from neuronx.types import Activations, Judgement, TrainerFactory

PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0, 1000.0)
"""Tried for every unit, in units of the mean variance of a concept."""


@dataclass(frozen=True)
class Products:
    """Sums over n images of concepts f (C,) and activations y (K,), all float64.

    Attributes:
        n: Number of images.
        f: (C,) sum of the concepts.
        y: (K,) sum of the activations.
        ff: (C, C) sum of f f^T.
        fy: (C, K) sum of f y^T.
        yy: (K,) sum of y squared.
    """

    n: Tensor
    f: Tensor
    y: Tensor
    ff: Tensor
    fy: Tensor
    yy: Tensor

    def __add__(self, other: "Products") -> "Products":
        return Products(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))

    def covariance(self) -> tuple[Tensor, Tensor, Tensor]:
        """Covariances (C, C) of the concepts, (C, K) of concepts and units, and variances (K,) of the units."""
        f, y = self.f / self.n, self.y / self.n
        return self.ff / self.n - f[:, None] * f, self.fy / self.n - f[:, None] * y, self.yy / self.n - y * y


@dataclass(frozen=True)
class Ceiling:
    """Ridge regressions of the K units of a layer on C concepts.

    Attributes:
        weights: (K, C) float64.
        penalty: (K,) float64.
        bias: (K,) float64.
    """

    weights: Tensor
    penalty: Tensor
    bias: Tensor


class Gram(LightningModule):
    """Sums products of concepts and activations over some images: `trainer.test(gram)`, then `products`."""

    def __init__(
        self,
        formulas: Formulas,
        judgement: Judgement,
        chosen: Tensor,
        recorded: Mapping[str, Activations],
        rows: Tensor,
        batch_size: int = 128,
    ) -> None:
        """Takes what is to be summed.

        Args:
            formulas: Concepts, over the atoms that the judge was asked about.
            judgement: Of the atoms.
            chosen: (C,) which of the formulas are used.
            recorded: Layer -> activations; layers are taken side by side.
            rows: The images to look at.
            batch_size: Images at a time.
        """
        super().__init__()
        self.formulas, self.judgement, self.chosen = formulas, judgement, chosen
        self.recorded, self.rows, self.batch_size = recorded, rows, batch_size
        self.products: Products

    def test_dataloader(self) -> RowBatches:
        """Batches of rows; this process's share of them."""
        return RowBatches(self.rows, self.batch_size, self)

    def on_test_epoch_start(self) -> None:
        """Starts from nothing. Activations are taken less those of image 0, so that a large mean costs no digits."""
        self.origin = self._activations(torch.zeros(1, dtype=torch.long))  # the same in passes that are added up
        C, K = len(self.chosen), self.origin.shape[1]
        shapes: tuple[tuple[int, ...], ...] = ((), (C,), (K,), (C, C), (C, K), (K,))
        device = arithmetic_device(self)
        self.products = Products(*(torch.zeros(shape, dtype=torch.float64, device=device) for shape in shapes))

    def test_step(self, rows: Tensor) -> None:
        """Adds some images."""
        if not len(rows):
            return
        with torch.autocast(self.device.type, enabled=False):  # bookkeeping, whatever precision networks run in
            sums, device = self.products, self.products.n.device
            f = judged(self.judgement, rows.cpu(), self.formulas, device)[self.chosen]
            y = (self._activations(rows.cpu()) - self.origin).to(device)
            sums.n.add_(len(rows))
            sums.f.add_(f.sum(1))
            sums.y.add_(y.sum(0))
            sums.ff.addmm_(f, f.T)
            sums.fy.addmm_(f, y)
            sums.yy.add_((y * y).sum(0))

    def on_test_epoch_end(self) -> None:
        """Adds up what the processes found."""
        if self.trainer.world_size > 1:
            reduce = self.trainer.strategy.reduce
            self.products = Products(
                *(reduce(x.to(self.device), reduce_op="sum") for x in vars(self.products).values())
            )

    def _activations(self, rows: Tensor) -> Tensor:
        return torch.cat([one.values[rows] for one in self.recorded.values()], 1).double()


def fit_ceiling(train: Gram, val: Gram, trainer: TrainerFactory) -> dict[str, Ceiling]:
    """Passes over both splits, then solves: layer -> the ceiling of all its units."""
    for gram in (train, val):
        trainer().test(gram, verbose=False)
    weights, penalty = ridge(train.products, val.products)
    both = train.products + val.products
    bias = train.origin[0] + (both.y.cpu() - weights @ both.f.cpu()) / both.n.cpu()
    sizes = [one.values.shape[1] for one in train.recorded.values()]
    parts = zip(train.recorded, weights.split(sizes), penalty.split(sizes), bias.split(sizes), strict=True)
    return {layer: Ceiling(*found) for layer, *found in parts}


def ridge(train: Products, val: Products) -> tuple[Tensor, Tensor]:
    """Ridge regression of every unit on all concepts: weights (K, C) float64 and penalties (K,), on the CPU."""
    covariance, cross, variance = val.covariance()
    best = torch.full_like(variance, -torch.inf)
    penalty = torch.full_like(variance, PENALTIES[-1])
    fitted = train.covariance()[:2]
    for p in PENALTIES:
        W = _solve(*fitted, p)
        scale = ((W * (covariance @ W)).sum(0).clamp(min=0) * variance.clamp(min=0)).sqrt()
        r = torch.where(scale > 0, (W * cross).sum(0) / scale.masked_fill(scale == 0, 1), 0)
        penalty = torch.where(r > best, p, penalty)
        best = torch.maximum(best, r)
    fitted = (train + val).covariance()[:2]
    weights = torch.zeros_like(fitted[1])
    for p in PENALTIES:
        if (penalty == p).any():
            weights[:, penalty == p] = _solve(fitted[0], fitted[1][:, penalty == p], p)
    return weights.T.cpu().contiguous(), penalty.cpu()


def _solve(covariance: Tensor, cross: Tensor, penalty: float) -> Tensor:
    """Weights (C, K) of a ridge whose penalty counts in mean variances of a concept.

    Concepts keep their own scale: standardised, those that hardly vary would weigh as much as the others, as noise.
    """
    A = covariance.clone()
    A.diagonal().add_(penalty * covariance.diagonal().mean().clamp(min=1e-12))
    return torch.cholesky_solve(cross, torch.linalg.cholesky(A))
