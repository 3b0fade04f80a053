"""What the rows of a score table predict: weighted concepts, sums of parts, and a ridge regression on all concepts.

All predictions are float64, from the scores that the judge gives to concepts on the images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from neuronx.concepts.judged import JudgedConcepts
from neuronx.types import Activations

PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0, 1000.0)
"""Of the ridge regression, tried for every unit, in units of the mean variance of a concept."""


@dataclass(frozen=True)
class WeightedConcepts:
    """Predictions of K units of one layer: bias + sum over the terms of weight times concept.

    Attributes:
        layer: The layer of the units.
        columns: (K,) of the units in the layer's activations.
        concepts: (K, L) the concept of each term, padded with any concept of weight 0; or (L,) when the units share all
            their concepts, as in the ridge regression.
        weights: (K, L) float64.
        bias: (K,) float64.
    """

    layer: str
    columns: Tensor
    concepts: Tensor
    weights: Tensor
    bias: Tensor

    def scaled(self) -> "WeightedConcepts":
        """The same with predictions that are at most about 1, each unit's by a power of 2, so that no digit changes.

        For what does not depend on the scale of a prediction: squares of large ones would overflow.
        """
        exponent = self.exponent.numpy()
        weights = np.ldexp(self.weights.numpy(), -exponent[:, None])
        return replace(
            self, weights=torch.from_numpy(weights), bias=torch.from_numpy(np.ldexp(self.bias.numpy(), -exponent))
        )

    @property
    def exponent(self) -> Tensor:
        """(K,) int32, the power of 2 that the largest weight or bias of each unit is just below."""
        largest = torch.cat((self.weights, self.bias[:, None]), 1).abs().amax(1)
        return torch.frexp(largest).exponent

    def predict(self, concepts: Tensor) -> Tensor:
        """From concept scores (C, B) float64 to predictions (K, B) float64."""
        to = concepts.device
        weights, bias, which = self.weights.to(to), self.bias.to(to), self.concepts.to(to)
        if which.ndim == 1:
            return weights @ concepts[which] + bias[:, None]
        if not which.shape[1] or not len(concepts):
            return bias[:, None].expand(-1, concepts.shape[1])
        return F.embedding_bag(which, concepts, per_sample_weights=weights, mode="sum") + bias[:, None]

    def predict_all(self, concepts: Tensor) -> Tensor:
        """As `predict`, from scores (C, N) float32 of many images, some images or concepts at a time."""
        if self.concepts.ndim == 1:
            return torch.cat([self.predict(part.double()) for part in concepts.split(1024, 1)], 1)
        named, places = self.concepts.unique(return_inverse=True)
        return replace(self, concepts=places).predict(concepts[named].double())

    def units(self, kept: Tensor) -> "WeightedConcepts":
        """The predictor of some of the units."""
        return replace(
            self,
            columns=self.columns[kept],
            concepts=self.concepts[kept] if self.concepts.ndim == 2 else self.concepts,
            weights=self.weights[kept],
            bias=self.bias[kept],
        )


@dataclass(frozen=True)
class SumOfParts:
    """Predictions of K units of one layer: bias + sum over the parts of weight times the part's prediction, cut at 0.

    Attributes:
        parts: Predicts the P parts.
        unit: (P,) int64, the place among the K units of the unit that each part belongs to.
        columns: (K,) of the units in the layer's activations.
        weights: (P,) float64.
        bias: (K,) float64.
    """

    parts: WeightedConcepts
    unit: Tensor
    columns: Tensor
    weights: Tensor
    bias: Tensor

    @property
    def layer(self) -> str:
        """The layer of the units."""
        return self.parts.layer

    def predict(self, concepts: Tensor) -> Tensor:
        """From concept scores (C, B) float64 to predictions (K, B) float64."""
        return self._sum(self.parts.predict(concepts))

    def predict_all(self, concepts: Tensor) -> Tensor:
        """As `predict`, from scores (C, N) float32 of many images."""
        return self._sum(self.parts.predict_all(concepts))

    def _sum(self, predicted: Tensor) -> Tensor:
        """From what the parts predict (P, B) to the units (K, B)."""
        shares = predicted.clamp(min=0) * self.weights.to(predicted)[:, None]
        bias = self.bias.to(predicted)[:, None].expand(-1, predicted.shape[1]).clone()
        return bias.index_add_(0, self.unit.to(predicted.device), shares)


Predictor = WeightedConcepts | SumOfParts


def fit_sum(
    parts: WeightedConcepts,
    unit: Tensor,
    columns: Tensor,
    values: Tensor,
    concepts: JudgedConcepts,
    rows: Tensor,
    batch_size: int,
) -> SumOfParts:
    """Fits the weights and biases by least squares, all units at once; parts that predict a constant get a weight of 0.

    Args:
        parts: Predicts the P parts.
        unit: (P,) int64, the place among the K units of the unit that each part belongs to; K for a part that is left
            out.
        columns: (K,) of the units in the layer's activations.
        values: (N, columns) activations of the layer.
        concepts: Used by the parts.
        rows: The images to fit on.
        batch_size: Images at a time.
    """
    units = len(columns)
    # The place of each part among those of its unit.
    by_unit = unit.argsort(stable=True)
    counts = unit.bincount(minlength=units + 1)
    order = torch.empty_like(unit)
    order[by_unit] = torch.arange(len(unit)) - (counts.cumsum(0) - counts)[unit[by_unit]]
    width = int(order.max()) + 2 if len(order) else 1
    gram, cross = torch.zeros(units + 1, width, width).double(), torch.zeros(units + 1, width).double()
    for batch, scores in concepts.batches(rows, batch_size):
        x = torch.zeros(units + 1, width, len(batch)).double()
        x[:, -1] = 1
        x[unit, order] = parts.predict(scores).clamp(min=0)
        y = torch.zeros(units + 1, len(batch)).double()
        y[:units] = values[batch][:, columns].T.double()
        gram += x @ x.transpose(1, 2)
        cross += (x @ y[:, :, None])[:, :, 0]
    fitted = torch.linalg.pinv(gram, rtol=1e-10, hermitian=True) @ cross[:, :, None]
    kept = unit < units
    return SumOfParts(parts.units(kept), unit[kept], columns, fitted[unit, order, 0][kept], bias=fitted[:units, -1, 0])


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

    n: int
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


def sum_products(
    concepts: JudgedConcepts,
    chosen: Tensor,
    recorded: Sequence[Activations],
    origin: Tensor,
    rows: Tensor,
    batch_size: int,
) -> Products:
    """Sums products of the chosen concepts (C,) and the units (K,) of layers side by side, taken less `origin` (K,)."""
    C, K = len(chosen), len(origin)
    f, y, ff, fy, yy = (torch.zeros(shape).double() for shape in ((C,), (K,), (C, C), (C, K), (K,)))
    for batch, scores in concepts.batches(rows, batch_size):
        some = scores[chosen]
        units = torch.cat([layer.values[batch] for layer in recorded], 1).double() - origin
        f.add_(some.sum(1))
        y.add_(units.sum(0))
        ff.addmm_(some, some.T)
        fy.addmm_(some, units)
        yy.add_((units * units).sum(0))
    return Products(len(rows), f, y, ff, fy, yy)


def fit_ridge(
    concepts: JudgedConcepts,
    chosen: Tensor,
    recorded: Mapping[str, Activations],
    train: Tensor,
    val: Tensor,
    batch_size: int = 128,
) -> dict[str, tuple[WeightedConcepts, Tensor]]:
    """Regresses all units of layers on the chosen concepts: how well can the judge's concepts predict a unit at all?

    The penalty of each unit is the one that, fitted on train, correlates best on val; then both are fitted together.

    Returns:
        Layer -> what predicts its units, and their penalties (K,).
    """
    layers = list(recorded.values())
    # Less the activations of image 0, so that a large mean costs no digits.
    origin = torch.cat([layer.values[:1] for layer in layers], 1).double()[0]
    on_train, on_val = (sum_products(concepts, chosen, layers, origin, rows, batch_size) for rows in (train, val))
    weights, penalty = ridge(on_train, on_val)
    both = on_train + on_val
    bias = origin + (both.y - weights @ both.f) / both.n
    sizes = [layer.values.shape[1] for layer in layers]
    fitted = zip(recorded, sizes, weights.split(sizes), bias.split(sizes), penalty.split(sizes), strict=True)
    return {layer: (WeightedConcepts(layer, torch.arange(K), chosen, w, b), p) for layer, K, w, b, p in fitted}


def ridge(train: Products, val: Products) -> tuple[Tensor, Tensor]:
    """Ridge regression of every unit on all concepts: weights (K, C) float64 and penalties (K,)."""
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
    return weights.T.contiguous(), penalty


def _solve(covariance: Tensor, cross: Tensor, penalty: float) -> Tensor:
    """Weights (C, K) of a ridge whose penalty counts in mean variances of a concept.

    Concepts keep their own scale: standardised, those that hardly vary would weigh as much as the others, as noise.
    """
    A = covariance.clone()
    A.diagonal().add_(penalty * covariance.diagonal().mean().clamp(min=1e-12))
    return torch.cholesky_solve(cross, torch.linalg.cholesky(A))
