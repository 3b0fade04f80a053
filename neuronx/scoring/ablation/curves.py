"""How the loss of an image changes with the amount of one unit, as a Chebyshev series: cheap to evaluate anywhere.

The change is smooth (its absolute value is not), so that few nodes give it to many digits; slopes come along for fits.
Where units feed the class head, the series is exact; elsewhere the network runs with the unit at a few amounts.
"""

import hashlib
import logging
import math
from dataclasses import dataclass

import torch
from lightning import Trainer
from torch import Tensor

from neuronx.scoring.ablation.losses import Replacement, cross_entropy
from neuronx.store.cache import entry, read_or_make
from neuronx.targets.identity import transform_digest
from neuronx.types import Plain

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


@dataclass(frozen=True)
class LinearLossChange:
    """What units do to the loss whose pooled activations feed the logits linearly: exact for any range.

    With p = softmax(logits), raising a unit by x changes the cross entropy by log sum_c p_c exp(x w_c) - x w_y. At
    nodes x that all images share, the exponentials belong to unit and class only, and the sum over classes is a matrix
    product for all images. The number of nodes follows from the nearest singularity that two classes can cause, at
    i pi / (their difference in weight), such that even the worst image is right to six digits of its largest change.

    Attributes:
        head: (C, K of the layer) the weights.
        columns: (K,) the units.
        logits: (N, C).
        labels: (N,).
        temperature: Logits are divided by it.
        rounding: Mean absolute changes of the loss up to this are none.
    """

    head: Tensor
    columns: Tensor
    logits: Tensor
    labels: Tensor
    temperature: float
    exact: bool = True
    rounding: float = 1e-12

    def curves(self, units: Tensor, z: Tensor, low: Tensor, high: Tensor) -> Curves:
        """Of some units (places among K) with activations z (K, N), for changes of these between low and high (K,)."""
        device = z.device
        logits, labels, temperature = self.logits, self.labels, self.temperature
        w = self.head.T[self.columns[units]].double().to(device) / temperature  # (K, C)
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
    """What any units do to the loss, measured at Chebyshev nodes between two amounts; beyond, curves go on straight.

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
        """Of some of the units (places among K), whatever the range."""
        some = self.changes[:, units].to(z.device)
        return measured_curves(some, self.low[units].to(z.device), self.high[units].to(z.device))


LossChange = LinearLossChange | MeasuredLossChange


@dataclass(frozen=True)
class Measurement:
    """Measures changes of the loss where the network has to run.

    Attributes:
        how: Amounts get into the layer.
        runner: Its `predict` runs the passes.
    """

    how: Replacement
    runner: Trainer

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
        rounding = 2e-7 * float(logits.abs().amax(1).mean()) / self.how.temperature

        def make() -> dict[str, Tensor]:
            n = count or self._enough(columns, z, rows, low, high, most)
            return {"changes": self._changes(columns, rows, low, high, n)}

        kept = read_or_make(lambda: entry("effects", self._key(columns, rows, low, high, count, most)), make)
        return MeasuredLossChange(kept["changes"], low, high, rounding)

    def _changes(self, columns: Tensor, rows: Tensor, low: Tensor, high: Tensor, n: int) -> Tensor:
        """(n, K, N) float32 changes of the loss at n nodes."""
        amounts = low + (high - low) * (1 + nodes(n)[:, None]) / 2
        done = self.how.losses(rows, columns, amounts, self.runner)
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
        name = f"{self.how.target.name} {self.how.layer}"
        log.info("%s: effects at %d amounts, wrong by %.1g of the damage of the mean", name, n, error)
        return n

    def _key(
        self, columns: Tensor, rows: Tensor, low: Tensor, high: Tensor, count: int | None, most: int
    ) -> dict[str, Plain]:
        content = hashlib.sha256()
        for part in (columns, rows, self.how.labels[rows], low, high):
            content.update(part.contiguous().numpy().tobytes())
        how, target = self.how, self.how.target
        return {
            "target": target.digest,
            "layer": how.layer,
            "pool": how.pool,
            "prefix": target.prefix_tokens,
            "channels": f"{target.channels} by the network's input",
            "transform": transform_digest(target.transform),
            "probe": how.probe.fingerprint,
            "content": content.hexdigest(),
            "temperature": how.temperature,
            "combine": how.combine,
            "nodes": count,
            "most": most,
            "precision": str(self.runner.precision),
        }
