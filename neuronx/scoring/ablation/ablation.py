"""`sim=ablation`: a unit is replaced by its simulation and all else kept; how much does the network's loss change?"""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from lightning import Trainer
from torch import Tensor

from neuronx.errors import UserError, unknown
from neuronx.metrics.correlation import moments, pearson
from neuronx.options import Natural, Positive, TwoOrMore
from neuronx.recording.record import record, without_parts
from neuronx.scoring.ablation.curves import FEWEST, Curves, LinearLossChange, LossChange, Measurement
from neuronx.scoring.ablation.losses import (
    Replacement,
    compared_with,
    few_images,
    find_linear_head,
    fit_temperature,
    share_of,
    total_of,
)
from neuronx.scoring.predictors import WeightedConcepts
from neuronx.scoring.rows import TableOptions, layers_of
from neuronx.targets.replay import Tail
from neuronx.types import Explanation, Judge, Score, Scores, TrainerFactory

if TYPE_CHECKING:
    from neuronx.data.probe import Probe
    from neuronx.targets.target import Target

log = logging.getLogger(__name__)

MODES = ("optim", "norm")
HOW = ("shift", "scale")
BYTES = 192 * 2**20
"""Of the curves of the units that are scored at a time."""

BETAS, EPSILON = (0.9, 0.999), 1e-8
"""Of Adam."""

CACHED = 2**14
"""Numbers that a fit works on at a time, such that its arrays stay in a processor's cache."""

BEYOND = 0.1
"""Ranges of curves are widened by this share for fits, which may leave them."""

WIDER = 8
"""How often a range that a fit has left is widened."""

FAR = 1e9
"""Predictions further from a unit than so many of its ranges have no score in `optim`: no curve reaches there."""


@dataclass(frozen=True)
class Ablation(TableOptions):
    """Scores explanations by how much damage is undone when a unit is replaced by its simulation, not by its mean.

    With L the cross entropy of an image, L0 of the intact network, z^ the simulation and m the unit's mean on val:

        score = 1 - sum |L(unit at z^) - L0| / sum |L(unit at m) - L0|          over the test images

    1 is perfect, 0 as bad as the mean, and there is no lower end. `ablation_norm` gives the prediction the unit's mean
    and spread on val, times their correlation there; `ablation_optim` fits a scale and an offset on val. A unit that
    has no effect on the loss has the status `no_effect` and no score. A constant prediction scores 0 in `norm`, and in
    `optim` what a fitted constant reaches. Other statuses, baselines and the upper bound are those of `Correlation`.

    Where the layer feeds the class head linearly, effects are exact; elsewhere the rest of the network is run with the
    unit at a few amounts, and its effects are interpolated: the table then says in the column `pool` how an amount gets
    into a map or among tokens, as in `avg, shift`. Standard errors are those of a ratio of sums over test images.

    Attributes:
        modes: Which of `optim` and `norm`.
        temperature: Logits are divided by it; fitted on val by default (to 1 where labels are predicted). 1.1 was
            published for ResNet-50.
        labels: `true`, or `predicted` for the network's own largest logit, for pictures without labels.
        steps: Of Adam, in `optim`.
        lr: Of Adam.
        combine: `shift` adds the same everywhere in a map or to all tokens that the pooling looks at; `scale`
            multiplies them.
        nodes: Amounts that each unit is measured at where the network is run; by default as many as a few units need.
        most_nodes: At most so many, by default.
        most_images: Of val and of test, evenly spread, where the network is run; None for all. The table says how
            many test images there were.
    """

    modes: Sequence[str] = MODES
    temperature: Positive | None = None
    labels: str = "true"
    steps: Natural = 100
    lr: Positive = 1e-2
    combine: str = "shift"
    nodes: TwoOrMore | None = None
    most_nodes: TwoOrMore = 20
    most_images: TwoOrMore | None = 250

    def __post_init__(self) -> None:
        super().__post_init__()
        for mode in self.modes:
            if mode not in MODES:
                raise unknown("mode of ablation", mode, MODES)
        if not self.modes:
            raise UserError(f"sim.ablation.modes is empty; name {' or '.join(MODES)}.")
        if self.combine not in HOW:
            raise unknown("way to combine", self.combine, HOW)
        if self.temperature is not None and not (self.temperature > 0 and math.isfinite(self.temperature)):
            raise UserError(f"sim.ablation.temperature={self.temperature}: it must be above 0, or null to be fitted.")
        for name in ("nodes", "most_nodes", "most_images"):
            value = getattr(self, name)
            if value is not None and value < 2:
                raise UserError(f"sim.ablation.{name}={value}: at least 2 are needed.")
        if not (self.lr >= 0 and math.isfinite(self.lr)):
            raise UserError(f"sim.ablation.lr={self.lr}: it is a finite number from 0, such as 0.01.")
        if self.steps < 0:
            raise UserError(f"sim.ablation.steps={self.steps}: it is a whole number from 0.")

    def needs(self, target: "Target", probe: "Probe") -> None:
        """Raises UserError for a network without class head, or labels that are missing or of other classes."""
        images = few_images(target, probe)
        for layer in without_parts(target).layers:
            tail = Tail(target, layer)
            with torch.inference_mode():
                tail.load(images)
            compared_with(target, probe, tail.logits, self.labels)

    def score(
        self,
        explained: Mapping[str, Sequence[Explanation]],
        target: "Target",
        probe: "Probe",
        judge: Judge,
        trainer: TrainerFactory,
        words: Sequence[str] = (),
    ) -> Scores:
        """Scores explanations of several methods, of any layers of the target, as `Scorer.score` says.

        Test images give the scores, val fits; labels count the classes of the network.

        Raises:
            UserError: Explanations of an unknown layer or unit, two for one unit, or broken formulas; a network without
                class head; labels that are missing or of other classes.
        """
        # What a part of a unit would do to the network, were it another, nobody knows.
        explained = {
            method: [explanation for explanation in given if explanation.unit.part is None]
            for method, given in explained.items()
        }
        target = without_parts(target)
        layers = layers_of(explained, target)
        images = few_images(target, probe)
        heads = {layer: find_linear_head(target, layer, pool, images) for layer, pool in layers.items()}
        recorded = record(target, probe, trainer, layers={**layers, "": "none"})
        logits = recorded.pop("").values if "" not in layers else recorded[""].values
        labels = compared_with(target, probe, logits, self.labels)
        temperature = self.temperature or self._temperature(logits, labels, probe)
        log.info("%s: ablation at temperature %.3f", target.name, temperature)

        table = self.table(explained, recorded, probe, judge, trainer, words)
        everything = torch.cat((probe.split("val"), probe.split("test")))
        concepts = table.concepts.all_scores(everything, self.batch_size)
        runner = trainer()
        scores: list[Score] = []
        for layer, pool in layers.items():
            methods = [method for method in table.methods if method.layer == layer]
            columns = torch.cat([method.predictor.columns for method in methods]).unique()
            head = heads[layer]
            val, chosen = self._images(probe, head is not None)
            rows = everything[chosen]
            z = recorded[layer].values[rows][:, columns].T.contiguous()
            if head is not None:
                change: LossChange = LinearLossChange(head, columns, logits[rows], labels[rows], temperature)
            else:
                how = Replacement(target, probe, layer, pool, labels, temperature, self.combine)
                change = Measurement(how, runner).measure(columns, z, rows, logits[rows], self.nodes, self.most_nodes)
                pool = f"{pool}, {self.combine}"
            shown = concepts if len(chosen) == len(everything) else concepts[:, chosen]
            ablation = LayerAblation([method.predictor for method in methods], shown, columns, z, val, change, self)
            found = ablation.scores(runner)
            images_used = f"{probe.name}/test:{len(rows) - val}"
            for k, method in enumerate(methods):
                for mode in self.modes:
                    values, sems = found[mode][k].tolist()
                    # An infinite one, of a prediction beyond all numbers, becomes broken as any other score.
                    status = ["no_effect" if math.isnan(value) else "ok" for value in values]
                    results = zip(values, sems, status, strict=True)
                    scores += method.scores(results, f"ablation_{mode}", target.name, pool, judge.name, images_used)
        return Scores(scores)

    def _images(self, probe: "Probe", exact: bool) -> tuple[int, Tensor]:
        """How many val images are used, and the places among all val and test images, val first, of those used."""
        val, test = len(probe.split("val")), len(probe.split("test"))
        most = max(val, test) if exact or self.most_images is None else self.most_images
        first = torch.linspace(0, val - 1, min(val, most)).long()
        return len(first), torch.cat((first, val + torch.linspace(0, test - 1, min(test, most)).long()))

    def _temperature(self, logits: Tensor, labels: Tensor, probe: "Probe") -> float:
        """Fitted on val; against the network's own answers the best temperature would be 0, so there it is 1."""
        val = probe.split("val")
        return 1.0 if self.labels == "predicted" else fit_temperature(logits[val], labels[val])


@dataclass(frozen=True)
class LayerAblation:
    """Scores all predictions of the units of one layer, from the changes of the loss that the units cause.

    Attributes:
        predictors: Of units of the layer.
        concepts: (F, N) float32 scores of the concepts that they count.
        columns: (K,) the units, sorted, that any predictor is about.
        z: (K, N) float32, their activations.
        val: The first so many images are val, the others test.
        change: What units do to the loss.
        options: Modes, and steps and rate of the fit.
    """

    predictors: Sequence[WeightedConcepts]
    concepts: Tensor
    columns: Tensor
    z: Tensor
    val: int
    change: LossChange
    options: Ablation

    @torch.no_grad()
    def scores(self, runner: Trainer) -> dict[str, list[Tensor]]:
        """Mode -> for each predictor (2, K) float64, scores and their standard errors; NaN where there is no effect.

        Some units at a time; the processes of a run share them.
        """
        device = runner.strategy.root_device
        device = torch.device("cpu") if device.type == "mps" else device  # which has no float64
        sizes = [len(predictor.columns) for predictor in self.predictors]
        found = {mode: [torch.zeros(2, size).double() for size in sizes] for mode in self.options.modes}
        at_once = max(1, BYTES // (8 * 3 * FEWEST * self.z.shape[1]))
        for units in share_of(torch.arange(len(self.columns)), at_once):
            self._add(found, units, device)
        return {mode: [total_of(part, runner) for part in parts] for mode, parts in found.items()}

    def _add(self, found: dict[str, list[Tensor]], units: Tensor, device: torch.device) -> None:
        """Scores everything that is said about some units (places among K)."""
        val, test = slice(0, self.val), slice(self.val, self.z.shape[1])
        z = self.z[units].double().to(device)
        mean = z[:, val].mean(1, keepdim=True)
        said = []  # of each predictor: its number, its rows, their places among the units, what they predict
        scale = []  # of that, a power of 2: `norm` knows no scale, and the squares of large predictions would overflow
        for p, predictor in enumerate(self.predictors):
            place = torch.searchsorted(self.columns[units], predictor.columns).clamp(max=len(units) - 1)
            rows = (self.columns[units][place] == predictor.columns).nonzero()[:, 0]
            if len(rows):
                own = predictor.units(rows)
                q = own.scaled().predict_all(self.concepts).to(device)
                said.append((p, rows, place[rows].to(device), q))
                scale.append(torch.exp2(own.exponent.double())[:, None].to(device))
        norm = [standardised(q[:, val], z[k][:, val], q[:, test]) for *_, k, q in said]
        wide = FAR * (z.amax(1) - z.amin(1))
        far = []  # of each predictor: whose predictions are; their places are taken by the mean
        for at, ((p, rows, k, q), times) in enumerate(zip(said, scale, strict=True)):
            q = q * times
            far.append(~((q - z[k]).abs().amax(1) <= wide[k]))
            said[at] = p, rows, k, torch.where(far[at][:, None], mean[k], q)

        low = high = torch.zeros(len(units), dtype=torch.float64, device=device)
        about = [(torch.arange(len(units), device=device), mean - z)]
        about += [(k, amounts - z[k][:, test]) for (*_, k, _), amounts in zip(said, norm, strict=True)]
        about += [(k, q - z[k]) for *_, k, q in said if "optim" in self.options.modes]
        for k, change in about:
            low = low.scatter_reduce(0, k, change.amin(1), "amin")
            high = high.scatter_reduce(0, k, change.amax(1), "amax")
        if "optim" in self.options.modes:  # where a fit will go is not known
            low, high = low - BEYOND * (high - low), high + BEYOND * (high - low)
        curves = self.change.curves(units, z, low, high)

        base = curves.of(slice(None), test).at(mean.expand(-1, z[:, test].shape[1]))[0]
        for (p, rows, k, q), amounts, beyond in zip(said, norm, far, strict=True):
            for mode in self.options.modes:
                if mode == "norm":
                    change = curves.of(k, test).at(amounts)[0]
                else:
                    change = self._optimised(q, units, k, z, curves)
                scores = damage_undone(change, base[k], self.change.rounding)
                if mode == "optim":
                    scores = torch.where(beyond & ~scores.isnan(), -torch.inf, scores)
                found[mode][p][:, rows] = scores.cpu()

    def _optimised(self, q: Tensor, units: Tensor, k: Tensor, z: Tensor, curves: Curves) -> Tensor:
        """Changes of the test images' loss with units at their fitted simulation."""
        val, test = slice(0, self.val), slice(self.val, self.z.shape[1])
        for _ in range(WIDER):
            c, d, reach = fitted(q[:, val], curves.of(k, val), self.options.steps, self.options.lr)
            amounts = torch.addcmul(d[:, None], c[:, None], q[:, test])
            on_test = curves.of(k, test)
            reach = torch.maximum(reach, on_test.reach(amounts))
            if not self.change.exact or float(reach.max()) <= 1:
                break
            grow = torch.ones(len(units), dtype=reach.dtype, device=reach.device)
            half = curves.half[:, 0] * 1.1 * grow.scatter_reduce(0, k, reach, "amax")
            curves = self.change.curves(units, z, curves.centre[:, 0] - half, curves.centre[:, 0] + half)
        return on_test.at(amounts)[0]


def standardised(q_val: Tensor, z_val: Tensor, q_test: Tensor) -> Tensor:
    """`norm`: predictions for the test images, (K, N), with the mean and spread that the unit has on val.

    q are predictions, z activations, both (K, N) float64, split by images into val and test.

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


def fitted(q: Tensor, curves: Curves, steps: Natural, lr: float) -> tuple[Tensor, Tensor, Tensor]:
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


def damage_undone(simulated: Tensor, mean: Tensor, rounding: float) -> Tensor:
    """The score 1 - sum |simulated| / sum |mean|, and its standard error.

    The standard error is that of a ratio of sums over images (delta method): with the ratio R, residuals
    e = |simulated| - R |mean| and n images, sqrt(n / (n - 1) * sum e^2) / sum |mean|.

    Args:
        simulated: (K, N) changes of the loss with the unit at its simulation.
        mean: (K, N) the same with the unit at its mean.
        rounding: Mean absolute changes up to this are none.

    Returns:
        (2, K) scores and standard errors, NaN where there is no effect; infinite where the loss is.
    """
    there, base = simulated.abs(), mean.abs()
    n, total = base.shape[1], base.sum(1)
    effect = total > rounding * n
    ratio = there.sum(1) / total.masked_fill(~effect, 1)
    residual = there - ratio[:, None] * base
    sem = (residual.square().sum(1) * n / max(n - 1, 1)).sqrt() / total.masked_fill(~effect, 1)
    scores = torch.stack((1 - ratio, sem)).nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)
    return torch.where(effect, scores, torch.nan)
