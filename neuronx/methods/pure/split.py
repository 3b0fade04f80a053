"""Split units as virtual units: gates for every image of a probe, exact or distilled, kept in the store."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from neuronx.errors import UserError, unknown
from neuronx.methods.pure import distilled
from neuronx.methods.pure.circuits import circuit_vectors
from neuronx.methods.pure.gates import KINDS, Centres, hard, reject, soft, squared_distances
from neuronx.recording.record import identity, record
from neuronx.recording.walk import on_first
from neuronx.store.cache import Entry, entry
from neuronx.store.shards import on_disk
from neuronx.types import TrainerFactory, Unit

if TYPE_CHECKING:
    from neuronx.data.probe import Probe
    from neuronx.targets.target import Target

FILE = "gates.safetensors"
MOST = 2**25
"""Numbers in the circuits that are in memory at a time."""


@dataclass(frozen=True)
class Split:
    """The parts of the split units of one layer (`neuronx.types.Parts`).

    Parts of a unit are counted from 0, the largest first; with `reject` the last one is what belongs to no part. Where
    a unit does not fire (its pooled activation is not above 0), its parts have equal shares.

    Attributes:
        layer: Of the units.
        pool: By which a unit fires or not on an image.
        split: (S,) int64, the units that are split.
        centres: Of their parts.
        gate: `hard` (the nearest part), `soft`, `reject` (nearest, but to a part of its own what is further off than
            the references) or `distilled` (told from the lower layer's activations by regressions that learnt the
            nearest part on train images).
        lower: The layer that circuits lead to.
        options: Of `circuit_vectors`.
        most: Train images of each unit that the distilled gate learns from.
        quantile: Of a unit's train activations; up to it a unit counts as not firing, which saves circuits.
    """

    layer: str
    pool: str
    split: Tensor
    centres: Centres
    gate: str
    lower: str
    options: Mapping[str, Any] = field(default_factory=dict)
    most: int = 1500
    quantile: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.quantile < 1:
            raise UserError(f"quantile={self.quantile} of PURE's gates: write a number from 0 to below 1.")
        if self.gate not in KINDS:
            raise unknown("gate", self.gate, KINDS)

    @cached_property
    def there(self) -> Tensor:
        """(S, k) bool, which parts there are; "other" among them."""
        there = self.centres.there
        return torch.cat([there, torch.ones_like(there[:, :1])], 1) if self.gate == "reject" else there

    @cached_property
    def units(self) -> tuple[Unit, ...]:
        """The V parts, unit by unit."""
        parts = self.there.cumsum(1) - 1
        return tuple(Unit(self.layer, int(self.split[s]), int(parts[s, c])) for s, c in self.there.nonzero().tolist())

    def gates(self, target: "Target", probe: "Probe", trainer: TrainerFactory) -> Tensor:
        """How much of its unit each part has on all images of a probe: (N, V) float32."""
        runner = trainer()
        key = identity(target, self.layer, probe, runner) | {"pool": self.pool, "split": self._digest}
        if self.gate == "distilled" or self.quantile:  # learnt on the train images
            key |= {"train": hashlib.sha256(probe.splits["train"].numpy().tobytes()).hexdigest()}
        place = entry("gates", key)
        if not (place.complete and (place.path / FILE).is_file()):
            make = self._distilled if self.gate == "distilled" else self._exact
            found = make(target, probe, trainer)
            on_first(runner, lambda: _write(place, found[:, self.there].contiguous(), self.layer, target.name))
        return load_file(place.path / FILE)["gates"]

    @property
    def _digest(self) -> str:
        found = hashlib.sha256(
            repr((self.gate, self.lower, sorted(self.options.items()), self.most, self.quantile)).encode()
        )
        for part in (self.split, self.centres.points, self.centres.radius, self.centres.spread):
            found.update(part.contiguous().numpy().tobytes())
        return found.hexdigest()

    def _fires(self, target: "Target", probe: "Probe", trainer: TrainerFactory) -> Tensor:
        """(N, S) bool."""
        values = record(target, probe, trainer, {self.layer: self.pool})[target.canonical(self.layer)].values
        values, train = values[:, self.split], probe.splits["train"]
        low = values[train].sort(0).values[int(self.quantile * (len(train) - 1))] if self.quantile else 0.0
        return (values > 0) & (values > low)

    def _exact(self, target: "Target", probe: "Probe", trainer: TrainerFactory) -> Tensor:
        """Gates (N, S, k) from the circuits of all images on which a unit fires."""
        fires = self._fires(target, probe, trainer)
        found = (self.there / self.there.sum(1, keepdim=True)).expand(len(fires), -1, -1).clone()
        for rows, own, squares in self._squares(fires, target, probe, trainer):
            if self.gate == "soft":
                found[rows, own] = soft(squares, self.centres.spread[own])
            elif self.gate == "reject":
                found[rows, own] = reject(squares, self.centres.radius[own])
            else:
                found[rows, own] = hard(squares)
        return found

    def _distilled(self, target: "Target", probe: "Probe", trainer: TrainerFactory) -> Tensor:
        """Gates (N, S, k) that were learnt from the circuits of some train images on which a unit fires."""
        fires = self._fires(target, probe, trainer)
        train = probe.splits["train"]
        chosen = torch.zeros_like(fires)
        order = train[torch.randperm(len(train), generator=torch.Generator().manual_seed(0))]
        chosen[order] = fires[order] & (fires[order].cumsum(0) <= self.most)
        labels = torch.full(fires.shape, -1)
        for rows, own, squares in self._squares(chosen, target, probe, trainer):
            labels[rows, own] = squares.argmin(1)
        lower = record(target, probe, trainer, {self.lower: _mean(target, self.lower)})[self.lower].values
        learnt = distilled.fit(lower[train], labels[train], self.there)
        shares = torch.nn.functional.one_hot(learnt.parts(lower), self.there.shape[1]).float()
        even = (self.there / self.there.sum(1, keepdim=True)).expand_as(shares)
        return torch.where(fires[:, :, None], shares, even)

    def _squares(
        self, wanted: Tensor, target: "Target", probe: "Probe", trainer: TrainerFactory
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Rows (P,), split units (P,) and squared distances to their parts (P, k), of the pairs wanted (N, S)."""
        width = self.centres.points.shape[2]
        at_once = max(1, MOST // (width * max(1, int(wanted.sum(0).max())))) if wanted.numel() else 1
        for units in torch.arange(wanted.shape[1]).split(at_once):
            rows, own = wanted[:, units].nonzero().T
            own = units[own]
            lower = None if self.options.get("rule") == "adjacent" else self.lower
            circuits = circuit_vectors(
                target, probe, trainer, self.layer, rows, self.split[own], lower=lower, **self.options
            )
            for some in torch.arange(len(rows)).split(2**14):
                squares = squared_distances(circuits.vectors[some], own[some], self.centres)
                yield rows[some], own[some], squares


def _mean(target: "Target", layer: str) -> str:
    """The pooling of a layer that is a mean over positions."""
    return "none" if "none" in target.layer_table(layers=[layer])[0].poolings else "avg"


def _write(place: Entry, gates: Tensor, layer: str, target: str) -> None:
    with on_disk(place.path):
        place.write(FILE, save({"gates": gates}))
        place.publish(target=target, layer=layer)
