"""What the units of a layer do to the loss: exactly where they feed the class head, else measured at a few amounts."""

import hashlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neuronx.scoring.ablation.curves import Curves, linear_curves, nodes, tail_curves
from neuronx.scoring.ablation.head import LinearHead
from neuronx.scoring.ablation.replacing import Losses, losses
from neuronx.store.cache import entry, read_or_make
from neuronx.targets.identity import transform_digest
from neuronx.types import Plain, TrainerFactory

if TYPE_CHECKING:
    from neuronx.data.probe import Probe
    from neuronx.targets.target import Target

log = logging.getLogger(__name__)

MARGIN = 0.25
"""Beyond the smallest and largest activation amounts are measured so much of their range further."""

TRIED, TRIAL_UNITS, TRIAL_IMAGES, REFERENCE = (3, 4, 5, 6, 8, 10, 12, 16, 20), 8, 48, 24
ENOUGH = 0.01
"""Of the damage that the mean does: so much may an interpolated effect be wrong, summed over images regardless of sign;
errors of both signs then leave about a tenth of it in a score."""


@dataclass(frozen=True)
class LinearEffect:
    """Of units whose pooled activations feed the logits linearly.

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
        which = self.columns[units]
        return linear_curves(self.head, which, self.logits, self.labels, self.temperature, z, low, high)


@dataclass(frozen=True)
class MeasuredEffect:
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
        return tail_curves(some, self.low[units].to(z.device), self.high[units].to(z.device))


@dataclass(frozen=True)
class Measuring:
    """How effects are measured where the network has to run.

    Attributes:
        target: The network.
        probe: The images.
        trainer: Makes the trainers whose `predict` runs the passes.
        layer: Where the units are.
        labels: (N of the probe,) what the cross entropy is taken against.
        temperature: Logits are divided by it.
        combine: `shift` or `scale`.
    """

    target: "Target"
    probe: "Probe"
    trainer: TrainerFactory
    layer: str
    labels: Tensor
    temperature: float
    combine: str

    def effect(
        self, columns: Tensor, z: Tensor, rows: Tensor, logits: Tensor, count: int | None, most: int
    ) -> MeasuredEffect:
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
        return MeasuredEffect(kept["changes"], low, high, rounding)

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
        done = losses(self.trainer, task)
        return done.loss.sub_(done.intact)

    def _enough(self, columns: Tensor, z: Tensor, rows: Tensor, low: Tensor, high: Tensor, most: int) -> int:
        """How many nodes it takes, seen on a few units and images that are measured at many."""
        units = torch.linspace(0, len(columns) - 1, min(TRIAL_UNITS, len(columns))).long()
        some = torch.linspace(0, len(rows) - 1, min(TRIAL_IMAGES, len(rows))).long()
        low, high = low[units], high[units]
        curves = tail_curves(self._changes(columns[units], rows[some], low, high, REFERENCE), low, high)
        own = z[units][:, some]
        damage = curves.at(own.mean(1, keepdim=True).expand_as(own))[0].abs().sum()
        others = own.roll(1, 1)
        for n in TRIED:
            amounts = low[:, None] + (high - low)[:, None] * (1 + nodes(n)) / 2
            values = torch.stack([curves.at(amounts[:, j, None].expand_as(own))[0] for j in range(n)])
            wrong = tail_curves(values, low, high).at(others)[0] - curves.at(others)[0]
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
            "precision": str(self.trainer().precision),
        }
