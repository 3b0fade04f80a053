"""Two Lightning passes of ablation scoring: what the judge sees on val and test, then unit by unit the scores."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import torch
from lightning import LightningModule
from torch import Tensor

from neuronx.concepts.formula import Formulas
from neuronx.scoring.ablation.curves import Curves
from neuronx.scoring.ablation.undone import fitted, standardised, undone
from neuronx.scoring.rows import RowBatches, arithmetic_device
from neuronx.scoring.simulator import Predictor, judged
from neuronx.types import Judgement

ROOM = 0.1
"""How much of a range is left beyond it for fits."""

WIDER = 8
"""How often a range that a fit has left is widened."""


class Seen(LightningModule):
    """Collects what the judge sees: `trainer.test(seen)`, then `scores` (F, N) float32, the same on every process."""

    def __init__(self, formulas: Formulas, judgement: Judgement, rows: Tensor, batch_size: int) -> None:
        super().__init__()
        self.formulas, self.judgement, self.rows, self.batch_size = formulas, judgement, rows, batch_size
        self.scores = torch.zeros(0)

    def test_dataloader(self) -> RowBatches:
        """Places among the rows; this process's share of them."""
        return RowBatches(torch.arange(len(self.rows)), self.batch_size, self)

    def test_step(self, places: Tensor) -> None:
        """Looks at some images."""
        if not len(places):
            return
        device = arithmetic_device(self)
        with torch.autocast(self.device.type, enabled=False):
            found = judged(self.judgement, self.rows[places.cpu()], self.formulas, device).float().cpu()
        if not self.scores.numel():
            self.scores = torch.zeros(len(found), len(self.rows))
        self.scores[:, places.cpu()] = found

    def on_test_epoch_end(self) -> None:
        """Brings together what the processes saw."""
        if self.trainer.world_size > 1:
            shape = len(self.formulas), len(self.rows)
            mine = self.scores if self.scores.numel() else torch.zeros(shape)
            self.scores = self.trainer.strategy.reduce(mine.to(self.device), reduce_op="sum").cpu()


class Effect(Protocol):
    """What the units of one layer do to the loss of the val and test images, in this order.

    Attributes:
        exact: Whether there are curves for any range.
        rounding: Mean absolute changes of the loss up to this are none.
    """

    @property
    def exact(self) -> bool:
        """Whether there are curves for any range."""
        ...

    @property
    def rounding(self) -> float:
        """Mean absolute changes of the loss up to this are none."""
        ...

    def curves(self, units: Tensor, z: Tensor, low: Tensor, high: Tensor) -> Curves:
        """Of some units (places), from their activations z (K, N) on the device to use.

        `low` and `high` (K,) are the smallest and largest change of the activation that matters.
        """
        ...


def predictions(predictor: Predictor, which: Tensor, scores: Tensor) -> Tensor:
    """What some rows of a predictor say of N images, (len(which), N) float64, from all scores (F, N)."""
    some = replace(predictor, weights=predictor.weights[which], bias=predictor.bias[which])
    if predictor.concepts.ndim == 1:
        return torch.cat([some.predict(part.double()) for part in scores.split(1024, 1)], 1)
    named, places = predictor.concepts[which].unique(return_inverse=True)
    return replace(some, concepts=places).predict(scores[named].double())


class Damage(LightningModule):
    """Scores all predictors of one layer, some units at a time: `trainer.test(damage)`, then read the attributes.

    Attributes:
        values: Mode -> for each predictor (K,) float64 scores; NaN where there is no effect.
        sems: The same for standard errors.
    """

    def __init__(
        self,
        predictors: Sequence[Predictor],
        scores: Tensor,
        columns: Tensor,
        z: Tensor,
        val: int,
        effect: Effect,
        modes: Sequence[str],
        steps: int,
        lr: float,
        at_once: int,
    ) -> None:
        """Takes what is to be scored.

        Args:
            predictors: Of units of the layer.
            scores: (F, N) of the concepts that they count.
            columns: (K,) the units, sorted, that any predictor is about.
            z: (K, N) float32, their activations.
            val: The first so many images are val, the others test.
            effect: What units do to the loss.
            modes: `optim`, `norm`.
            steps: Of the fit.
            lr: Of the fit.
            at_once: Units at a time.
        """
        super().__init__()
        self.predictors, self.scores, self.columns, self.z = predictors, scores, columns, z
        self.val, self.on_test, self.effect = slice(0, val), slice(val, z.shape[1]), effect
        self.modes, self.steps, self.lr, self.at_once = modes, steps, lr, at_once
        self.values: dict[str, list[Tensor]] = {}
        self.sems: dict[str, list[Tensor]] = {}

    def test_dataloader(self) -> RowBatches:
        """Places among the units; this process's share of them."""
        return RowBatches(torch.arange(len(self.columns)), self.at_once, self)

    def on_test_epoch_start(self) -> None:
        """Forgets what an earlier pass found."""
        for kept in (self.values, self.sems):
            for mode in self.modes:
                kept[mode] = [torch.zeros(len(one.columns), dtype=torch.float64) for one in self.predictors]

    def test_step(self, units: Tensor) -> None:
        """Scores everything that is said about some units (places among K)."""
        if len(units):
            with torch.autocast(self.device.type, enabled=False):
                self._score(units.cpu(), arithmetic_device(self))

    def on_test_epoch_end(self) -> None:
        """Brings together what the processes found; each unit was scored by one of them."""
        if self.trainer.world_size > 1:
            reduce, device = self.trainer.strategy.reduce, arithmetic_device(self)
            for kept in (self.values, self.sems):
                for mode, found in kept.items():
                    kept[mode] = [reduce(one.to(device), reduce_op="sum").cpu() for one in found]

    def _score(self, units: Tensor, device: torch.device) -> None:
        z = self.z[units].double().to(device)
        mean = z[:, self.val].mean(1, keepdim=True)
        said = []  # of each predictor: its number, its rows, their places among the units, what they predict
        for p, one in enumerate(self.predictors):
            place = torch.searchsorted(self.columns[units], one.columns).clamp(max=len(units) - 1)
            rows = (self.columns[units][place] == one.columns).nonzero()[:, 0]
            if len(rows):
                q = predictions(one, rows, self.scores).to(device)
                said.append((p, rows, place[rows].to(device), q))
        norm = [standardised(q[:, self.val], z[k][:, self.val], q[:, self.on_test]) for *_, k, q in said]

        low = high = torch.zeros(len(units), dtype=torch.float64, device=device)
        about = [(torch.arange(len(units), device=device), mean - z)]
        about += [(k, a - z[k][:, self.on_test]) for (*_, k, _), a in zip(said, norm, strict=True)]
        about += [(k, q - z[k]) for *_, k, q in said if "optim" in self.modes]
        for k, change in about:
            low = low.scatter_reduce(0, k, change.amin(1), "amin")
            high = high.scatter_reduce(0, k, change.amax(1), "amax")
        if "optim" in self.modes:  # where a fit will go is not known
            low, high = low - ROOM * (high - low), high + ROOM * (high - low)
        curves = self.effect.curves(units, z, low, high)

        base = curves.of(slice(None), self.on_test).at(mean.expand(-1, z[:, self.on_test].shape[1]))[0]
        for (p, rows, k, q), amounts in zip(said, norm, strict=True):
            for mode in self.modes:
                if mode == "norm":
                    change = curves.of(k, self.on_test).at(amounts)[0]
                else:
                    change = self._optimised(q, units, k, z, curves)
                value, sem = undone(change, base[k], self.effect.rounding)
                self.values[mode][p][rows], self.sems[mode][p][rows] = value.cpu(), sem.cpu()

    def _optimised(self, q: Tensor, units: Tensor, k: Tensor, z: Tensor, curves: Curves) -> Tensor:
        """Changes of the test images' loss with units at their fitted simulation."""
        for _ in range(WIDER):
            c, d, reach = fitted(q[:, self.val], curves.of(k, self.val), self.steps, self.lr)
            amounts = torch.addcmul(d[:, None], c[:, None], q[:, self.on_test])
            on_test = curves.of(k, self.on_test)
            reach = torch.maximum(reach, on_test.reach(amounts))
            if not self.effect.exact or float(reach.max()) <= 1:
                break
            grow = torch.ones(len(units), dtype=reach.dtype, device=reach.device)
            half = curves.half[:, 0] * 1.1 * grow.scatter_reduce(0, k, reach, "amax")
            curves = self.effect.curves(units, z, curves.centre[:, 0] - half, curves.centre[:, 0] + half)
        return on_test.at(amounts)[0]
