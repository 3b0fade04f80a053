"""How much of a unit's effect on the network lies in the images that it fires most for.

Section 2 and table 1 of Linear Explanations (Oikarinen and Weng, ICML 2024): explanations are mostly made from a unit's
top images, yet those carry little of what the unit does.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from lightning import Trainer
from torch import Tensor

from neuronx.errors import UserError
from neuronx.progress import progress
from neuronx.recording.record import record
from neuronx.recording.tally import lots
from neuronx.scoring.ablation.losses import Replacement, compared_with, few_images, find_linear_head, share_of, total_of
from neuronx.types import TrainerFactory, Unit

if TYPE_CHECKING:
    from neuronx.data.probe import Probe
    from neuronx.targets.target import Target

CUTOFFS = (0.0003, 0.002, 0.005, 0.02, 0.1, 0.5)
"""Shares of the images, as published."""

POINTS = 120
"""Of a curve, at most."""

ROUNDING = 1e-5
"""Of cross entropies in float32, by which copies of one network in batches of other sizes may differ."""

ORDERED = 2**25
"""How many activations are put in order at a time."""

CHUNK = 2**22
"""Numbers in the logits that are changed at a time."""


@dataclass(frozen=True)
class UnitImportance:
    """The share of each unit's effect that lies in its top images.

    Attributes:
        target: Name of the network.
        pool: Pooling of the layer, by which the images are ordered.
        units: The K units, of one layer.
        images: `<data>:<n>`.
        cutoffs: (X,) shares of the images, in (0, 1).
        shares: (K, X) float64 in [0, 1], of the unit's effect; NaN for a unit without any effect.
        at: (G,) float64, the shares of the images at which the curves are known, ascending, the last is 1.
        curves: (K, G) float64 in [0, 1], the share of the effect there.
    """

    target: str
    pool: str
    units: tuple[Unit, ...]
    images: str
    cutoffs: tuple[float, ...]
    shares: Tensor
    at: Tensor
    curves: Tensor

    @property
    def layer(self) -> str:
        """The layer that all of the units belong to."""
        return self.units[0].layer

    @property
    def n_no_effect(self) -> int:
        """How many units change nothing on any image."""
        return int(self.shares.isnan().any(1).sum())


def impacts(intact: Tensor, right: Tensor, loss: Tensor, still_right: Tensor) -> Tensor:
    """What each image loses when a unit is taken away: (K, N) float64.

    Half the change of accuracy over the images classified rightly, plus half the change of cross entropy over the
    summed cross entropy: ((a0 - a1) / sum a0 + (l1 - l0) / sum l0) / 2. A sum that is 0 leaves its half out. A unit
    whose losses change by no more than rounding does, on any image, has an impact of 0.

    Args:
        intact: (N,) cross entropy of the intact network.
        right: (N,) bool, whether it is right.
        loss: (K, N) cross entropy without the unit.
        still_right: (K, N) bool.
    """
    before, all_right = intact.double(), right.double()
    accuracy = (all_right - still_right.double()) / all_right.sum().clamp(min=1)
    total = before.sum()
    change = loss.double() - before
    silent = (change.abs() <= ROUNDING * (1 + before)).all(1) & (accuracy == 0).all(1)
    return ((accuracy + change / torch.where(total > 0, total, 1)) / 2).masked_fill(silent[:, None], 0)


def cumulative_shares(impact: Tensor, activations: Tensor, positions: Tensor) -> Tensor:
    """The share of each unit's absolute impact in the images down to a place in the order of its activations.

    Position p counts the p + 1 most activating images. Images with equal activations are ordered by lot.

    Args:
        impact: (K, N), of either sign.
        activations: (N, K).
        positions: (X,) int64 in [0, N - 1].

    Returns:
        (K, X) float64 in [0, 1]; NaN for a unit whose impact is 0 on all images.
    """
    parts, drawn = [], lots(torch.arange(len(activations)), torch.tensor(0)).argsort()
    for units in progress(torch.arange(len(impact)).split(max(1, ORDERED // len(activations))), "coverage of units"):
        # Stable, so that equals stay in the order of their lots.
        order = drawn[activations[:, units].T[:, drawn].argsort(dim=1, descending=True, stable=True)]
        running = impact[units].double().abs().gather(1, order).cumsum(1)
        parts.append((running[:, positions] / running[:, -1:]).clamp(max=1))
    return torch.cat(parts)


def importance_of(
    impact: Tensor,
    activations: Tensor,
    cutoffs: tuple[float, ...] = CUTOFFS,
) -> tuple[Tensor, Tensor, Tensor]:
    """Shares at the cutoffs (K, X), the places of the curves (G,) and the curves (K, G): see `UnitImportance`.

    A cutoff c is read at index int(c N), as published, which counts int(c N) + 1 images.

    Raises:
        UserError: Cutoffs outside (0, 1), or impacts (K, N) and activations (N, K) that do not fit together.
    """
    if wrong := [cutoff for cutoff in cutoffs if not 0 < cutoff < 1]:
        raise UserError(f"A cutoff is the share of the images that counts, between 0 and 1, not {wrong[0]:g}.")
    if impact.ndim != 2 or impact.shape != activations.T.shape or not impact.numel():
        raise UserError(
            f"Importance needs impacts (units, images) and activations (images, units), not {tuple(impact.shape)} and "
            f"{tuple(activations.shape)}."
        )
    n = len(activations)
    at = torch.logspace(0, torch.log10(torch.tensor(float(n))).item(), POINTS, dtype=torch.float64).round().long() - 1
    at = at.clamp(0, n - 1).unique()
    positions = torch.tensor([int(cutoff * n) for cutoff in cutoffs], dtype=torch.long)
    found = cumulative_shares(impact, activations, torch.cat([positions, at]))
    return found[:, : len(positions)], (at + 1) / n, found[:, len(positions) :]


def importance(
    target: "Target",
    probe: "Probe",
    trainer: TrainerFactory,
    rows: Tensor | None = None,
    cutoffs: tuple[float, ...] = CUTOFFS,
    *,
    temperature: float = 1.0,
    labels: str = "true",
) -> dict[str, UnitImportance]:
    """Measures the units asked for, layer by layer: each is set to 0 everywhere, and the images feel it or not.

    Args:
        target: The network, a classifier.
        probe: The images.
        trainer: Makes trainers.
        rows: (N,) the images to look at; all by default.
        cutoffs: Shares of the images.
        temperature: Logits are divided by it; published for ResNet-50 with 1.1.
        labels: `true`, or `predicted` where pictures have no labels.

    Returns:
        Layer -> importance of its units, in the order of `target.layers`.

    Raises:
        UserError: As `effects`, or a cutoff outside (0, 1).
    """
    rows = torch.arange(len(probe)) if rows is None else rows
    found = {}
    for layer, recorded in record(target, probe, trainer).items():
        felt = effects(target, probe, trainer, layer, rows, temperature, labels)
        impact = impacts(felt.intact, felt.right, felt.loss, felt.still_right)
        values = recorded.values[rows][:, felt.units]
        shares, at, curves = importance_of(impact, values, cutoffs)
        found[layer] = UnitImportance(
            target=target.name,
            pool=recorded.pool,
            units=tuple(recorded.units[k] for k in felt.units.tolist()),
            images=f"{probe.name}:{len(rows)}",
            cutoffs=tuple(cutoffs),
            shares=shares,
            at=at,
            curves=curves,
        )
    return found


@dataclass(frozen=True)
class Effects:
    """Losses of N images, intact and with each of K units replaced. Cross entropies are natural logarithms.

    Attributes:
        layer: Where the units are.
        units: (K,) int64, their indices.
        rows: (N,) int64, the images.
        intact: (N,) float32, cross entropy of the intact network.
        right: (N,) bool, whether its largest logit is the label's.
        loss: (K, N) float32, cross entropy with unit k replaced.
        still_right: (K, N) bool.
        path: `linear`, by the rank-one update of the logits; `tail`, by running what comes after the layer; or
            `network`, by running all of it.
    """

    layer: str
    units: Tensor
    rows: Tensor
    intact: Tensor
    right: Tensor
    loss: Tensor
    still_right: Tensor
    path: str


def effects(
    target: "Target",
    probe: "Probe",
    trainer: TrainerFactory,
    layer: str,
    rows: Tensor,
    temperature: float = 1.0,
    labels: str = "true",
) -> Effects:
    """Sets one unit after the other to 0, in every place of its map or every token, and measures the losses.

    Everything else keeps its true value. The result is the same on any number of processes, and on each of them.

    Args:
        target: The network; its outputs are logits (B, classes).
        probe: The images, with labels that count the network's classes.
        trainer: Makes the trainer whose `predict` runs the pass.
        layer: The layer.
        rows: (N,) the images.
        temperature: Logits are divided by it.
        labels: `true`, or `predicted` for the network's own most likely class, where pictures have no labels.

    Raises:
        UserError: An unknown layer, a network without class head, labels that are missing or of other classes.
    """
    images = few_images(target, probe)
    (row,) = target.layer_table(images[:1], [layer])
    pool = "none" if len(row.shape) == 1 else "avg"
    units = torch.tensor(target.units_of(layer, row.units), dtype=torch.int64)
    head = find_linear_head(target, layer, pool, images)
    recorded = record(target, probe, trainer, layers={"": "none"} if head is None else {"": "none", layer: pool})
    logits = recorded[""].values
    y = compared_with(target, probe, logits, labels)
    if head is not None:
        changes = -recorded[layer].values[rows][:, units]
        found = _linear_losses(logits[rows], changes, head.T[units], y[rows], temperature, trainer())
        return Effects(layer, units, rows, *found, "linear")
    how = Replacement(target, probe, layer, pool, y, temperature, combine="set", answers=True)
    done = how.losses(rows, units, torch.zeros(1, len(units)), trainer())
    path = "tail" if done.partial else "network"
    return Effects(layer, units, rows, done.intact, done.right, done.loss[0], done.still_right[0], path)


@torch.no_grad()
def _linear_losses(
    logits: Tensor, changes: Tensor, weight: Tensor, labels: Tensor, temperature: float, runner: Trainer
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Changes logits (N, C) by the changes (N, K) of each unit times its weights (K, C), some units in each process.

    Returns:
        As in `Effects`: intact, right, loss, still_right.
    """

    def judge(some: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        y, scaled = y.to(some.device), some / temperature
        loss = scaled.logsumexp(1) - scaled.gather(1, y[:, None])[:, 0]
        return loss.cpu(), (some.argmax(1) == y).cpu()

    loss = torch.zeros(len(weight), len(logits))
    still_right = torch.zeros(len(weight), len(logits), dtype=torch.bool)
    device = runner.strategy.root_device
    for (k,) in progress(share_of(torch.arange(len(weight)), 1), "effects of units"):
        for part in torch.arange(len(logits)).split(max(1, CHUNK // logits.shape[1])):
            by = changes[part, k].to(device)
            changed = torch.addcmul(logits[part].to(device), by[:, None], weight[k].to(device))
            loss[k, part], still_right[k, part] = judge(changed, labels[part])
    return *judge(logits, labels), total_of(loss, runner), total_of(still_right, runner)
