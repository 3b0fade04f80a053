"""Parts of split units on any image: how much of a unit's activation belongs to each of its parts (gates).

By the circuit on that image, or by regressions on the lower layer's activations that learnt from circuits.
Distances come as (P, k) squares of one image and unit each, infinite to parts that a unit does not have; gates are
(P, k) float32, or (P, k + 1) with `reject`, at least 0, and sum to 1.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from neuronx.errors import UserError, unknown
from neuronx.methods.pure.circuits import circuit_vectors
from neuronx.methods.pure.references import mean_pool
from neuronx.metrics.purity import members
from neuronx.options import Count, Share
from neuronx.progress import progress
from neuronx.recording.record import identity, record
from neuronx.store.cache import entry, read_or_make
from neuronx.types import TrainerFactory, Unit

if TYPE_CHECKING:
    from neuronx.data.probe import Probe
    from neuronx.targets.target import Target

KINDS = ("hard", "soft", "reject", "distilled")
MOST = 2**25
"""Numbers in the circuits that are in memory at a time."""


@dataclass(frozen=True, kw_only=True)
class GateOptions:
    """How much of a unit's activation on an image belongs to each of its parts.

    Attributes:
        gate: `hard` (all of it to the nearest part), `soft` (shares by distance), `reject` (nearest, but to a part of
            its own what is further off than the references) or `distilled` (the nearest part as regressions on the
            lower layer's activations predict it).
        learns_from: Train images of each unit that the distilled gate learns from.
        quantile: Of a unit's train activations; up to it the parts have equal shares, which saves circuits.
    """

    gate: str = "hard"
    learns_from: Count = 1500
    quantile: Share = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.quantile < 1:
            raise UserError(f"quantile={self.quantile} of PURE's gates: write a number from 0 to below 1.")
        if self.gate not in KINDS:
            raise unknown("gate", self.gate, KINDS)


@dataclass(frozen=True)
class Centres:
    """The parts of S split units.

    Attributes:
        points: (S, k, C') float32, mean circuit of each part; NaN where a unit has fewer parts.
        radius: (S, k) float32, the distance from it within which 95 % of the part's references lie.
        spread: (S,) float32, mean squared distance of the references to their part's centre.
    """

    points: Tensor
    radius: Tensor
    spread: Tensor

    @property
    def there(self) -> Tensor:
        """(S, k) bool, which parts there are."""
        return ~self.points[:, :, 0].isnan()


def centres(vectors: Tensor, labels: Tensor, k: int) -> Centres:
    """The centres of parts, from references (S, m, C') with labels (S, m), -1 for those that do not count."""
    inside = members(labels, k).to(vectors)
    sizes = inside.sum(1)
    points = (inside.transpose(1, 2) @ vectors) / sizes[:, :, None]
    far = torch.cdist(vectors, points.nan_to_num(), compute_mode="donot_use_mm_for_euclid_dist")
    own = torch.where(inside > 0, far, torch.nan)
    radius = own.nanquantile(0.95, dim=1)
    spread = (far.square() * inside).sum((1, 2)) / sizes.sum(1).clamp(min=1)
    return Centres(points, radius.nan_to_num(), spread)


def squared_distances(vectors: Tensor, own: Tensor, to: Centres) -> Tensor:
    """From circuits (P, C') of the split units `own` (P,) to the centres of their parts: (P, k) float32."""
    points = to.points[own].nan_to_num()
    found = (vectors[:, None] - points).square().sum(2)
    return found.masked_fill(~to.there[own], torch.inf)


def hard(squares: Tensor) -> Tensor:
    """All of it to the nearest part."""
    return F.one_hot(squares.argmin(1), squares.shape[1]).float()


def soft(squares: Tensor, spread: Tensor) -> Tensor:
    """By the softmax of -d^2 / (2 spread), spread (P,): what a mixture of equal round clouds would say."""
    return (-squares / (2 * spread.clamp(min=1e-12)[:, None])).softmax(1)


def reject(squares: Tensor, radius: Tensor) -> Tensor:
    """All to the nearest part; but to a last one, "other", where that is further away than its radius (P, k)."""
    near = squares.argmin(1, keepdim=True)
    outside = (squares.gather(1, near).sqrt() > radius.gather(1, near)).float()
    return torch.cat([hard(squares) * (1 - outside), outside], 1)


@dataclass(frozen=True)
class Logistic:
    """Multinomial logistic regressions of S units, from what the lower layer does to the part that the circuit says.

    Features are means over positions, divided by their sum of absolute values, then standardised.

    Attributes:
        mean: (C',) of the features.
        scale: (C',) their standard deviations.
        weight: (S, k, C') float32.
        bias: (S, k) float32; minus infinity where a unit has fewer parts.
    """

    mean: Tensor
    scale: Tensor
    weight: Tensor
    bias: Tensor

    def parts(self, lower: Tensor) -> Tensor:
        """From the lower layer's pooled activations (N, C') to the part of each unit: (N, S) int64."""
        x = (normalised(lower) - self.mean) / self.scale
        return (torch.einsum("nc,skc->nsk", x, self.weight) + self.bias).argmax(2)


def normalised(lower: Tensor) -> Tensor:
    """Pooled activations (N, C') divided by their sum of absolute values."""
    return lower / (lower.abs().sum(1, keepdim=True) + 1e-10)


def fit(lower: Tensor, labels: Tensor, there: Tensor, *, penalty: float = 1e-3, steps: int = 200) -> Logistic:
    """Fits all units at once: the mean log loss of each plus `penalty` times half its squared weights, by L-BFGS.

    Args:
        lower: (N, C') pooled activations of the lower layer.
        labels: (N, S) int64, the part that each image belongs to; -1 for images that do not count.
        there: (S, k) bool, which parts a unit has.
        penalty: Of the weights.
        steps: At most.
    """
    x = normalised(lower)
    mean, scale = x.mean(0), x.std(0).clamp(min=1e-12)
    x = (x - mean) / scale
    shape = len(there), there.shape[1]
    weight = torch.zeros(*shape, x.shape[1], device=x.device, requires_grad=True)
    bias = torch.zeros(shape, device=x.device, requires_grad=True)
    none = torch.zeros(shape, device=x.device).masked_fill(~there, -torch.inf)
    counted = (labels >= 0).float()
    share = counted / counted.sum(0).clamp(min=1)
    solver = torch.optim.LBFGS([weight, bias], max_iter=steps, line_search_fn="strong_wolfe", tolerance_grad=1e-6)

    def loss() -> Tensor:
        solver.zero_grad()
        logits = torch.einsum("nc,skc->nsk", x, weight) + (bias + none)
        log = -F.log_softmax(logits, 2).gather(2, labels.clamp(min=0)[:, :, None])[:, :, 0]
        value = (log * share).sum() + penalty / 2 * weight.square().sum()
        value.backward()
        return value

    with torch.inference_mode(False), torch.enable_grad():
        solver.step(loss)
    return Logistic(mean, scale, weight.detach(), bias.detach() + none)


@dataclass(frozen=True)
class SplitUnits:
    """The parts of the split units of one layer (`neuronx.types.Parts`).

    Parts of a unit are counted from 0, the largest first; with `reject` the last one is what belongs to no part. Where
    a unit does not fire (its pooled activation is not above 0), its parts have equal shares.

    Attributes:
        layer: Of the units.
        pool: By which a unit fires or not on an image.
        split: (S,) int64, the units that are split.
        centres: Of their parts.
        lower: The layer that circuits lead to.
        rule: Of circuits, as in `circuit_vectors`.
        positions: Likewise.
        options: Of gates.
    """

    layer: str
    pool: str
    split: Tensor
    centres: Centres
    lower: str
    rule: str
    positions: str
    options: GateOptions

    @cached_property
    def there(self) -> Tensor:
        """(S, k) bool, which parts there are; "other" among them."""
        there = self.centres.there
        return torch.cat([there, torch.ones_like(there[:, :1])], 1) if self.options.gate == "reject" else there

    @cached_property
    def units(self) -> tuple[Unit, ...]:
        """The V parts, unit by unit."""
        parts = self.there.cumsum(1) - 1
        return tuple(Unit(self.layer, int(self.split[s]), int(parts[s, c])) for s, c in self.there.nonzero().tolist())

    def gates(self, target: "Target", probe: "Probe", trainer: TrainerFactory) -> Tensor:
        """How much of its unit each part has on all images of a probe: (N, V) float32."""
        runner = trainer()
        key = identity(target, self.layer, probe, runner) | {"pool": self.pool, "split": self._digest}
        if self.options.gate == "distilled" or self.options.quantile:  # learnt on the train images
            key |= {"train": hashlib.sha256(probe.splits["train"].numpy().tobytes()).hexdigest()}
        gates = self._distilled if self.options.gate == "distilled" else self._exact

        def make() -> dict[str, Tensor]:
            return {"gates": gates(target, probe, trainer)[:, self.there]}

        return read_or_make(lambda: entry("gates", key), make, layer=self.layer, target=target.name)["gates"]

    @property
    def _even(self) -> Tensor:
        """(S, k) equal shares of the parts that there are."""
        return self.there / self.there.sum(1, keepdim=True)

    @property
    def _digest(self) -> str:
        found = hashlib.sha256(repr((self.lower, self.rule, self.positions, self.options)).encode())
        for part in (self.split, self.centres.points, self.centres.radius, self.centres.spread):
            found.update(part.contiguous().numpy().tobytes())
        return found.hexdigest()

    def _fires(self, target: "Target", probe: "Probe", trainer: TrainerFactory) -> Tensor:
        """(N, S) bool."""
        values = record(target, probe, trainer, {self.layer: self.pool})[target.canonical(self.layer)].values
        values, train = values[:, self.split], probe.splits["train"]
        quantile = self.options.quantile
        low = values[train].sort(0).values[int(quantile * (len(train) - 1))] if quantile else 0.0
        return (values > 0) & (values > low)

    def _exact(self, target: "Target", probe: "Probe", trainer: TrainerFactory) -> Tensor:
        """Gates (N, S, k) from the circuits of all images on which a unit fires."""
        fires = self._fires(target, probe, trainer)
        found = self._even.expand(len(fires), -1, -1).clone()
        for rows, own, squares in self._squares(fires, target, probe, trainer):
            if self.options.gate == "soft":
                found[rows, own] = soft(squares, self.centres.spread[own])
            elif self.options.gate == "reject":
                found[rows, own] = reject(squares, self.centres.radius[own])
            else:
                found[rows, own] = hard(squares)
        return found

    def _distilled(self, target: "Target", probe: "Probe", trainer: TrainerFactory) -> Tensor:
        """Gates (N, S, k) by regressions on the lower layer that learn from circuits of train images."""
        fires = self._fires(target, probe, trainer)
        train = probe.splits["train"]
        chosen = torch.zeros_like(fires)
        order = train[torch.randperm(len(train), generator=torch.Generator().manual_seed(0))]
        chosen[order] = fires[order] & (fires[order].cumsum(0) <= self.options.learns_from)
        labels = torch.full(fires.shape, -1)
        for rows, own, squares in self._squares(chosen, target, probe, trainer):
            labels[rows, own] = squares.argmin(1)
        lower = record(target, probe, trainer, {self.lower: mean_pool(target, self.lower)})[self.lower].values
        learnt = fit(lower[train], labels[train], self.there)
        shares = F.one_hot(learnt.parts(lower), self.there.shape[1]).float()
        return torch.where(fires[:, :, None], shares, self._even.expand_as(shares))

    def _squares(
        self, wanted: Tensor, target: "Target", probe: "Probe", trainer: TrainerFactory
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Rows (P,), split units (P,) and squared distances to their parts (P, k), of the pairs wanted (N, S)."""
        width = self.centres.points.shape[2]
        at_once = max(1, MOST // (width * max(1, int(wanted.sum(0).max())))) if wanted.numel() else 1
        for units in progress(torch.arange(wanted.shape[1]).split(at_once), "distances to parts"):
            rows, own = wanted[:, units].nonzero().T
            own = units[own]
            lower = None if self.rule == "adjacent" else self.lower
            circuits = circuit_vectors(
                *(target, probe, trainer, self.layer, rows, self.split[own]),
                lower=lower,
                rule=self.rule,
                positions=self.positions,
            )
            for some in torch.arange(len(rows)).split(2**14):
                squares = squared_distances(circuits.vectors[some], own[some], self.centres)
                yield rows[some], own[some], squares
