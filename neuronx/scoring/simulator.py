"""Simulates units: what would they do on each image if their explanations were the whole truth?

One pass over the test images serves all explanations of all methods: the judge sees each distinct concept once, and a
method's explanations of a layer are one sparse matrix.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from lightning import LightningModule
from torch import Tensor
from torch.nn import functional as F

from neuronx.concepts.formula import Formulas
from neuronx.errors import UserError
from neuronx.metrics.correlation import Moments, empty, merge, moments, pearson
from neuronx.scoring.rows import RowBatches, arithmetic_device
from neuronx.types import Judgement


@dataclass(frozen=True)
class Predictor:
    """Predictions of K units of one layer: bias + sum over the terms of weight times concept.

    Attributes:
        layer: Where the units are.
        columns: (K,) of the units in the layer's activations.
        concepts: (K, L) which concept each term names, padded with any concept of weight 0; or (L,) when the units
            share all their concepts, as the ceiling's do.
        weights: (K, L) float64.
        bias: (K,) float64.
    """

    layer: str
    columns: Tensor
    concepts: Tensor
    weights: Tensor
    bias: Tensor

    def predict(self, concepts: Tensor) -> Tensor:
        """From concept scores (C, B) float64 to predictions (K, B) float64."""
        to = concepts.device
        weights, bias, which = self.weights.to(to), self.bias.to(to), self.concepts.to(to)
        if which.ndim == 1:
            return weights @ concepts[which] + bias[:, None]
        if not which.shape[1] or not len(concepts):
            return bias[:, None].expand(-1, concepts.shape[1])
        return F.embedding_bag(which, concepts, per_sample_weights=weights, mode="sum") + bias[:, None]


class Predicts(Protocol):
    """Whatever predicts K units of one layer, such as `Predictor`."""

    @property
    def layer(self) -> str:
        """Where the units are."""
        ...

    @property
    def columns(self) -> Tensor:
        """(K,) of the units in the layer's activations."""
        ...

    def predict(self, concepts: Tensor) -> Tensor:
        """From concept scores (C, B) float64 to predictions (K, B) float64."""
        ...


class Simulator(LightningModule):
    """Correlates predictions with activations over some images, in float64, on any number of processes.

    Run it with `trainer.test(simulator)` and read `correlations`. It has no weights and sees no pictures: the judge and
    the recordings know the images by their rows.
    """

    def __init__(
        self,
        predictors: Sequence[Predicts],
        formulas: Formulas,
        judgement: Judgement,
        activations: Mapping[str, Tensor],
        rows: Tensor,
        batch_size: int = 128,
    ) -> None:
        """Takes what is to be simulated.

        Args:
            predictors: What predicts; their concepts count in `formulas`.
            formulas: The concepts, over the atoms that the judge was asked about.
            judgement: Of the atoms, in their order.
            activations: Layer -> (N, K) float32, of all images.
            rows: The images to look at.
            batch_size: Images at a time.
        """
        super().__init__()
        self.predictors, self.formulas, self.judgement = tuple(predictors), formulas, judgement
        self.activations, self.rows, self.batch_size = activations, rows, batch_size
        self.found: list[Moments] = []

    def test_dataloader(self) -> RowBatches:
        """Batches of rows; this process's share of them."""
        return RowBatches(self.rows, self.batch_size, self)

    def on_test_epoch_start(self) -> None:
        """Forgets what an earlier pass found."""
        self.found = [empty(len(one.columns), arithmetic_device(self)) for one in self.predictors]

    def test_step(self, rows: Tensor) -> None:
        """Adds some images."""
        if not len(rows):
            return
        with torch.autocast(self.device.type, enabled=False):  # bookkeeping, whatever precision networks run in
            device = arithmetic_device(self)
            concepts = judged(self.judgement, rows.cpu(), self.formulas, device)
            actual = {
                layer: self.activations[layer][rows.cpu()].to(device).T.double().contiguous()
                for layer in dict.fromkeys(one.layer for one in self.predictors)
            }
            for k, one in enumerate(self.predictors):
                found = moments(one.predict(concepts), actual[one.layer][one.columns])
                self.found[k] = merge(self.found[k], found)

    def on_test_epoch_end(self) -> None:
        """Merges what the processes found, in the order of their ranks."""
        if self.trainer.world_size > 1:
            for k, mine in enumerate(self.found):
                first, *others = self.all_gather(mine.stack().to(self.device))
                total = Moments(*first)
                for other in others:
                    total = merge(total, Moments(*other))
                self.found[k] = total

    @property
    def correlations(self) -> list[Tensor]:
        """For each predictor the correlation of each unit, (K,) float64; NaN for a unit that never changed."""
        return [pearson(one).cpu() for one in self.found]


def judged(judgement: Judgement, rows: Tensor, formulas: Formulas, device: torch.device) -> Tensor:
    """Scores (F, B) float64 of the formulas on some images, as the judge sees their atoms.

    Raises:
        UserError: A score of the judge that is not a number.
    """
    scores = judgement.scores(rows)
    if scores.sum().isnan():
        image, atom = scores.isnan().nonzero()[0].tolist()
        raise UserError(f"The judge's score of `{formulas.atoms[atom]}` on image {int(rows[image])} is not a number.")
    return formulas.evaluate(scores.to(device).T.double().contiguous())
