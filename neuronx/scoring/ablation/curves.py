"""How the loss of an image changes with the amount of one unit, as a Chebyshev series: cheap to evaluate anywhere.

The change is smooth (its absolute value is not), so that few nodes give it to many digits; slopes come along for fits.
Where units feed the class head, the series is exact; elsewhere the network runs with the unit at a few amounts.
"""

import hashlib
import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from lightning import Trainer
from torch import Tensor

from neuronx.scoring.ablation.losses import LinearHead, Losses, cross_entropy, losses
from neuronx.store.cache import entry, read_or_make
from neuronx.targets.identity import transform_digest
from neuronx.types import Plain

if TYPE_CHECKING:
    from neuronx.data.probe import Probe
    from neuronx.targets.target import Target

log = logging.getLogger(__name__)

ROUNDING = 1e-6
FEWEST, MOST = 8, 96
LARGE = 300.0
"""Changes of a logit beyond which exponentials might overflow."""

MARGIN = 0.25
"""The loss is measured on the observed range of activations, widened by this share of it at both ends."""

TRIED, TRIAL_UNITS, TRIAL_IMAGES, REFERENCE = (3, 4, 5, 6, 8, 10, 12, 16, 20), 8, 48, 24
ENOUGH = 0.01
"""Of the damage that the mean does: so much may an interpolated effect be wrong, summed over images regardless of sign;
errors of both signs then leave about a tenth of it in a score."""


@dataclass(frozen=True)
class Curves:
    """Changes of the loss of N images with each of K units.

    Attributes:
        coefficients: (n, K, N) float64 of the series in t = (amount - origin - centre) / half.
        centre: (K, 1).
        half: (K, 1), half the range; beyond it curves go on straight.
        origin: (K, N) activations, where the range is one of changes; (1, 1) zero, where it is one of amounts.
    """

    coefficients: Tensor
    centre: Tensor
    half: Tensor
    origin: Tensor

    def of(self, units: Tensor | slice, images: slice) -> "Curves":
        """Those of some units (places among K) and images."""
        origin = self.origin if self.origin.numel() == 1 else self.origin[units, images]
        return Curves(self.coefficients[:, units, images], self.centre[units], self.half[units], origin)

    def at(self, amounts: Tensor) -> tuple[Tensor, Tensor]:
        """Changes of the loss at amounts (K, N), and their slopes in the amount; both (K, N). By Clenshaw's rule."""
        free = (amounts - self.origin - self.centre) / self.half
        t = free.clamp(-1, 1)
        twice = 2 * t
        zero = torch.zeros_like(t)
        a, b, da, db = zero, zero, zero, zero
        for j in range(len(self.coefficients) - 1, 0, -1):
            c = self.coefficients[j]
            a, b, da, db = torch.addcmul(c, twice, a).sub_(b), a, (2 * a).addcmul_(twice, da).sub_(db), da
        value = torch.addcmul(self.coefficients[0], t, a).sub_(b)
        slope = torch.addcmul(a, t, da).sub_(db)
        return value + slope * (free - t), slope / self.half

    def reach(self, amounts: Tensor) -> Tensor:
        """How far amounts (K, N) go, (K,): 1 is the end of the range."""
        return ((amounts - self.origin - self.centre) / self.half).abs().amax(1)


def nodes(n: int) -> Tensor:
    """(n,) float64 zeros of the n-th Chebyshev polynomial, in (-1, 1)."""
    return torch.cos(math.pi * (torch.arange(n, dtype=torch.float64) + 0.5) / n)


def series(values: Tensor) -> Tensor:
    """Coefficients (n, ...) of the interpolating Chebyshev series from values (n, ...) at `nodes(n)`, float64."""
    n = len(values)
    angles = math.pi * (torch.arange(n, dtype=torch.float64) + 0.5) / n
    transform = torch.cos(torch.arange(n, dtype=torch.float64)[:, None] * angles) * 2 / n
    transform[0] /= 2
    return (transform.to(values.device) @ values.double().flatten(1)).view(values.shape)


def measured_curves(changes: Tensor, low: Tensor, high: Tensor) -> Curves:
    """Curves through measured changes of the loss.

    Args:
        changes: (n, K, N), with unit k at low + (high - low) * (1 + nodes(n)) / 2.
        low: (K,) the smallest amount.
        high: (K,) the largest.
    """
    centre, half = (low + high)[:, None] / 2, ((high - low)[:, None] / 2).clamp(min=1e-12)
    return Curves(series(changes), centre, half, torch.zeros(1, 1, dtype=torch.float64, device=changes.device))


class LossChange(Protocol):
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


@dataclass(frozen=True)
class LinearLossChange:
    """Of units whose pooled activations feed the logits linearly.

    With p = softmax(logits), raising a unit by x changes the cross entropy by log sum_c p_c exp(x w_c) - x w_y. At
    nodes x that all images share, the exponentials belong to unit and class only, and the sum over classes is a matrix
    product for all images. The number of nodes follows from the nearest singularity that two classes can cause, at
    i pi / (their difference in weight), such that even the worst image is right to six digits of its largest change.

    Attributes:
        head: The weights.
        columns: (K,) the units.
        logits: (N, C).
        labels: (N,).
        temperature: Logits are divided by it.
    """

    head: LinearHead
    columns: Tensor
    logits: Tensor
    labels: Tensor
    temperature: float
    exact: bool = True
    rounding: float = 1e-12

    def curves(self, units: Tensor, z: Tensor, low: Tensor, high: Tensor) -> Curves:
        """Of some of the units, places among K, over any range."""
        device = z.device
        logits, labels, temperature = self.logits, self.labels, self.temperature
        w = self.head.weight.T[self.columns[units]].double().to(device) / temperature  # (K, C)
        centre, half = (low + high)[:, None] / 2, ((high - low)[:, None] / 2).clamp(min=1e-12)
        distance = float((math.pi / (half[:, 0] * (w.amax(1) - w.amin(1)).clamp(min=1e-300))).min())
        n = min(MOST, max(FEWEST, math.ceil(-math.log(ROUNDING) / math.asinh(distance))))
        x = centre + half * nodes(n).to(device)  # (K, n)
        change = (x.T[..., None] * w).flatten(0, 1)  # (n * K, C)
        steep = bool(change.abs().amax() > LARGE)
        raised = change if steep else torch.expm1(change)
        values = torch.empty(n, len(units), len(logits), dtype=torch.float64, device=device)
        for part in torch.arange(len(logits)).split(32 if steep else 1024):
            some, y = logits[part].double().to(device), labels[part].to(device)
            if steep:
                spread = (some / temperature + raised[:, None]).flatten(0, 1)
                loss = cross_entropy(spread, y.repeat(len(raised))).view(len(raised), -1)
                values[:, :, part] = (loss - cross_entropy(some, y, temperature)).view(n, len(units), -1)
            else:
                shares = (some / temperature).softmax(1)
                values[:, :, part] = torch.log1p(raised @ shares.T).view(n, len(units), -1) - x.T[..., None] * w[:, y]
        return Curves(series(values), centre, half, z)


@dataclass(frozen=True)
class MeasuredLossChange:
    """Of any units, measured at Chebyshev nodes between two amounts; beyond them curves go on straight.

    Attributes:
        changes: (n, K, N) float32 changes of the loss.
        low: (K,) float64.
        high: (K,) float64.
        rounding: Mean absolute changes up to this are the networks' float32.
    """

    changes: Tensor
    low: Tensor
    high: Tensor
    rounding: float
    exact: bool = False

    def curves(self, units: Tensor, z: Tensor, low: Tensor, high: Tensor) -> Curves:
        """Of some of the units, places among K."""
        some = self.changes[:, units].to(z.device)
        return measured_curves(some, self.low[units].to(z.device), self.high[units].to(z.device))


@dataclass(frozen=True)
class Measurement:
    """How changes of the loss are measured where the network has to run.

    Attributes:
        target: The network.
        probe: The images.
        runner: Its `predict` runs the passes.
        layer: Where the units are.
        labels: (N of the probe,) what the cross entropy is taken against.
        temperature: Logits are divided by it.
        combine: `shift` or `scale`.
    """

    target: "Target"
    probe: "Probe"
    runner: Trainer
    layer: str
    labels: Tensor
    temperature: float
    combine: str

    def measure(
        self, columns: Tensor, z: Tensor, rows: Tensor, logits: Tensor, count: int | None, most: int
    ) -> MeasuredLossChange:
        """Measures all units at `count` amounts, or as many as a few of them need; or reads it from the store.

        Args:
            columns: (K,) the units.
            z: (K, N) their activations.
            rows: (N,) the images.
            logits: (N, C) of the images.
            count: Of amounts; None finds it.
            most: At most so many then.
        """
        z = z.double()
        spread = MARGIN * (z.amax(1) - z.amin(1))
        low, high = z.amin(1) - spread, z.amax(1) + spread
        rounding = 2e-7 * float(logits.abs().amax(1).mean()) / self.temperature

        def make() -> dict[str, Tensor]:
            n = count or self._enough(columns, z, rows, low, high, most)
            return {"changes": self._changes(columns, rows, low, high, n)}

        kept = read_or_make(lambda: entry("effects", self._key(columns, rows, low, high, count, most)), make)
        return MeasuredLossChange(kept["changes"], low, high, rounding)

    def _changes(self, columns: Tensor, rows: Tensor, low: Tensor, high: Tensor, n: int) -> Tensor:
        """(n, K, N) float32 changes of the loss at n nodes."""
        amounts = low + (high - low) * (1 + nodes(n)[:, None]) / 2
        task = Losses(
            self.target,
            self.probe,
            self.layer,
            self.target.layers[self.layer],
            rows,
            self.labels,
            columns,
            amounts,
            combine=self.combine,
            temperature=self.temperature,
        )
        done = losses(self.runner, task)
        return done.loss.sub_(done.intact)

    def _enough(self, columns: Tensor, z: Tensor, rows: Tensor, low: Tensor, high: Tensor, most: int) -> int:
        """How many nodes it takes, seen on a few units and images that are measured at many."""
        units = torch.linspace(0, len(columns) - 1, min(TRIAL_UNITS, len(columns))).long()
        some = torch.linspace(0, len(rows) - 1, min(TRIAL_IMAGES, len(rows))).long()
        low, high = low[units], high[units]
        curves = measured_curves(self._changes(columns[units], rows[some], low, high, REFERENCE), low, high)
        own = z[units][:, some]
        damage = curves.at(own.mean(1, keepdim=True).expand_as(own))[0].abs().sum()
        others = own.roll(1, 1)
        for n in TRIED:
            amounts = low[:, None] + (high - low)[:, None] * (1 + nodes(n)) / 2
            values = torch.stack([curves.at(amounts[:, j, None].expand_as(own))[0] for j in range(n)])
            wrong = measured_curves(values, low, high).at(others)[0] - curves.at(others)[0]
            error = float(wrong.abs().sum() / damage.clamp(min=1e-30))
            if error <= ENOUGH or n >= most:
                break
        name = f"{self.target.name} {self.layer}"
        log.info("%s: effects at %d amounts, wrong by %.1g of the damage of the mean", name, n, error)
        return n

    def _key(
        self, columns: Tensor, rows: Tensor, low: Tensor, high: Tensor, count: int | None, most: int
    ) -> dict[str, Plain]:
        content = hashlib.sha256()
        for part in (columns, rows, self.labels[rows], low, high):
            content.update(part.contiguous().numpy().tobytes())
        target = self.target
        return {
            "target": target.digest,
            "layer": self.layer,
            "pool": target.layers[self.layer],
            "prefix": target.prefix_tokens,
            "channels": target.channels,
            "transform": transform_digest(target.transform),
            "probe": self.probe.fingerprint,
            "content": content.hexdigest(),
            "temperature": self.temperature,
            "combine": self.combine,
            "nodes": count,
            "most": most,
            "precision": str(self.runner.precision),
        }
