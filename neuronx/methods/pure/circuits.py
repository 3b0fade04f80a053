"""Circuits: which channels of a lower layer a unit's activation on an image comes from, for many pairs at once."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from safetensors.torch import load_file, save
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from neuronx.data.probe import Batches, Probe
from neuronx.errors import UserError, unknown
from neuronx.methods.pure.closed_form import Adjacent
from neuronx.methods.pure.gradient import POSITIONS, Gradient, Lrp
from neuronx.recording.forward_pass import SAVE_SECONDS, predict, untouched
from neuronx.recording.record import identity
from neuronx.store.cache import Entry, collection, is_sound
from neuronx.store.pairs import find_pairs, write_pairs
from neuronx.store.processes import on_first, start
from neuronx.targets.calling import Inputs
from neuronx.targets.segment import Segment, lower_layer
from neuronx.targets.target import Target
from neuronx.types import Plain, TrainerFactory

PAIRS = 32
"""Pairs that go through the segment at a time."""
BLOCK = 1024
"""Pairs in a file of the store."""
SPACE_GB = 8.0
"""Disk for the features of one layer on one set of images; what does not fit is made again when it is needed."""
RULES = ("gradient", "lrp", "adjacent")


@dataclass(frozen=True)
class Circuits:
    """The circuits of pairs of image and unit.

    Attributes:
        vectors: (P, C') float32, the relevance of each lower channel, signed; absolute values sum to 1, or are all 0
            where the unit does not fire.
        lower: The lower layer.
    """

    vectors: Tensor
    lower: str


class Attribution(Protocol):
    """How the relevance of a unit is shared out among lower channels."""

    @property
    def lower(self) -> str:
        """The lower layer."""
        ...

    @property
    def key(self) -> Plain:
        """What the relevance depends on besides the layers."""
        ...

    @property
    def reads(self) -> Plain:
        """What the features of an image are made of; known after `trace`."""
        ...

    @property
    def width(self) -> int:
        """Number of lower channels C'; known after `trace`."""
        ...

    @property
    def units(self) -> int:
        """Number of units of the layer; known after `trace`."""
        ...

    def trace(self, inputs: Inputs) -> None:
        """Runs the network on two images; UserError where there can be no circuit."""
        ...

    def features(self, inputs: Inputs) -> list[Tensor]:
        """What is kept of some images, images on the first axis."""
        ...

    def relevance(self, features: list[Tensor], at: Tensor, units: Tensor) -> Tensor:
        """The relevance (P, C') of pairs: features of B images, and for each pair its image `at` (P,) and its unit."""
        ...


def circuit_vectors(
    target: Target,
    probe: Probe,
    trainer: TrainerFactory,
    layer: str,
    rows: Tensor,
    units: Tensor,
    *,
    lower: str | None = None,
    rule: str = "gradient",
    positions: str = "activation",
    norm: bool = True,
    batch_size: int | None = None,
) -> Circuits:
    """How much each channel of a lower layer contributes to units' activations, for pairs of image and unit.

    The network runs once for each distinct image, and up to the lower layer only; then one backward pass for a batch of
    pairs goes through what lies between the layers. Everything is kept in the store: pairs that any earlier call has
    computed, or that an interrupted run did, are not computed again, and features serve all units, rules and positions.
    Under DDP each process makes the pairs of its share of the images.

    The vectors are R / (sum_j |R_j| + 1e-10), R as the rule says: `gradient.py`, `lrp.py`, `closed_form.py`.

    Args:
        target: The network.
        probe: The images.
        trainer: Makes the trainer whose `predict` runs the pass.
        layer: Of the units.
        rows: (P,) int64, the image of each pair.
        units: (P,) int64, the unit of each pair, its column in the layer.
        lower: The lower layer; by default the one before, see `lower_layer`. Not for the rule `adjacent`.
        rule: `gradient` (gradient times activation, as published), `lrp` (needs zennit), or `adjacent` (the closed form
            for the inputs of the unit's own last linear operation).
        positions: Which of the unit's map count: `activation` (each with its activation, as published), `peak` (the
            largest only), `one` (all where it fires alike) or `first` (a class token).
        norm: False gives R itself.
        batch_size: Pairs at a time.

    Raises:
        UserError: A first layer, layers without a path, unknown layers, rules or positions, rows or units that do not
            exist, a network that cannot be differentiated or that a rule does not cover, relevance that is not finite.
    """
    if positions not in POSITIONS:
        raise unknown("choice of positions", positions, POSITIONS)
    runner = trainer()
    target, layer = untouched(target, runner), target.canonical(layer)
    attribution = _rule(target, layer, lower, rule, positions)
    rows, units = rows.cpu().long(), units.cpu().long()
    _check(rows, units, len(probe))
    start(runner)

    def look_up() -> tuple[Entry, Tensor]:
        key = identity(target, layer, probe, runner) | {"lower": attribution.lower, "rule": attribution.key}
        place = collection("circuits", key, target=target.name)
        return place, ~find_pairs(place, rows, units).have(rows, units)

    place, missing = on_first(look_up)
    if bool(missing.any()) or not len(rows):
        first = rows[missing].unique()[:2] if len(rows) else torch.zeros(1, dtype=torch.int64)
        attribution.trace(next(iter(probe.loader(target.transform, first, batch_size=2)))[0])
        if len(rows) and int(units.max()) >= attribution.units:
            raise UserError(
                f"There is no unit {int(units.max())}: layer `{layer}` has units 0 to {attribution.units - 1}."
            )
        of = identity(target, attribution.lower, probe, runner) | {"reads": attribution.reads}
        kept = on_first(lambda: collection("circuit-features", of, target=target.name))
        pairs = torch.stack([rows[missing], units[missing]], 1).unique(dim=0)
        work = _Vectors(target, attribution, probe, pairs, place, _Features(kept), batch_size or PAIRS)
        # Another rounding switches a few ReLUs near zero, which vectors show at 1e-4; and backwards it is no faster.
        predict(work, runner, f"circuits of {target.name}, layer {layer}", fast_layout=False)
    runner.strategy.barrier()
    vectors = find_pairs(place, rows, units).vectors(rows, units) if len(rows) else torch.zeros(0, attribution.width)
    if not bool(vectors.isfinite().all()):
        pair = int((~vectors.isfinite()).any(1).nonzero()[0, 0])
        where = f"unit {int(units[pair])} of `{layer}` on image {int(rows[pair])}"
        raise UserError(f"The circuit of {where} is NaN or infinite; check the weights and transform of {target.name}.")
    return Circuits(normalised(vectors) if norm else vectors, attribution.lower)


def normalised(relevance: Tensor) -> Tensor:
    """Relevance (P, C') with absolute values that sum to 1 in each row; rows of zeros stay."""
    return relevance / (relevance.abs().sum(1, keepdim=True) + 1e-10)


def _rule(target: Target, layer: str, lower: str | None, rule: str, positions: str) -> Attribution:
    if rule == "adjacent":
        if lower is not None:
            raise UserError(
                "rule=adjacent finds the lower layer itself: the input of the unit's last linear operation."
            )
        return Adjacent(target, layer, positions)
    if rule not in RULES:
        raise unknown("rule", rule, RULES)
    segment = Segment(target, lower_layer(target, layer) if lower is None else lower, layer)
    return Gradient(segment, positions) if rule == "gradient" else Lrp(segment, positions)


def _check(rows: Tensor, units: Tensor, images: int) -> None:
    if rows.ndim != 1 or rows.shape != units.shape:
        shapes = f"{tuple(rows.shape)} and {tuple(units.shape)}"
        raise UserError(f"Pairs are given by rows (P,) and units (P,), not by shapes {shapes}.")
    if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < images:
        raise UserError(f"rows {int(rows.min())} to {int(rows.max())} are asked for, but the data has {images} images.")
    if len(units) and int(units.min()) < 0:
        raise UserError(f"There is no unit {int(units.min())}.")


class _Features:
    """The features of images at a lower layer on disk, one file an image, for all units, rules and positions.

    They are kept in the precision in which they were made: in float16 about one in a thousand ReLUs close to zero would
    switch, and vectors would differ by more than the 1e-5 that they are held to.
    """

    def __init__(self, place: Entry, space_gb: float = SPACE_GB) -> None:
        self.place, self.there = place, place.blocks("image-")
        self.space = space_gb * 1e9 - sum(path.stat().st_size for path in self.there.values())

    def read(self, row: int) -> list[Tensor]:
        """The features of one image, without an axis of images; nothing where they are not there, or damaged."""
        path = self.there.get(f"image-{row:08d}.safetensors")
        if path is None or not is_sound(path):
            return []
        tensors = load_file(path)
        return [tensors[str(number)] for number in range(len(tensors))]

    def write(self, row: int, features: list[Tensor]) -> None:
        """Keeps the features of one image, if there is space."""
        data = save({str(number): feature.contiguous().cpu() for number, feature in enumerate(features)})
        self.space -= len(data)
        if self.space >= 0:
            self.place.write(f"image-{row:08d}.safetensors", data)


class _Vectors:
    """Computes the vectors of all pairs of each image."""

    def __init__(
        self,
        target: Target,
        attribution: Attribution,
        probe: Probe,
        pairs: Tensor,
        place: Entry,
        features: _Features,
        batch_size: int,
    ) -> None:
        self.network = target.module
        self.target, self.attribution, self.probe, self.pairs = target, attribution, probe, pairs
        self.place, self.kept, self.batch_size = place, features, batch_size
        self.waiting: list[tuple[Tensor, Tensor]] = []
        self.written = time.monotonic()

    def batches(self, rank: int, world: int) -> DataLoader:
        """The images of one process, and their inputs where their features are not in the store."""
        rows = self.pairs[:, 0].unique()
        # Which images are a process's own does not depend on what the others have made meanwhile.
        own = rows[rows % world == rank]
        pictures = self.probe.loader(self.target.transform).dataset
        sampler = Batches(own, self.probe.batch_size)
        data = _Missing(pictures, self.kept)
        return DataLoader(data, sampler=sampler, batch_size=None, num_workers=self.probe.num_workers)

    def run(self, batch: tuple[Tensor, list[list[Tensor]], Any]) -> None:
        """Makes the vectors of all pairs of some images."""
        with torch.inference_mode(False), torch.enable_grad():
            self._make(batch[0].cpu(), self._features(*batch))

    def _make(self, rows: Tensor, features: list[Tensor]) -> None:
        own = self.pairs[torch.isin(self.pairs[:, 0], rows)]
        for pairs in own.split(self.batch_size):
            at = torch.searchsorted(rows, pairs[:, 0].contiguous()).to(self._device)
            found = self.attribution.relevance(features, at, pairs[:, 1].to(self._device))
            self.waiting.append((pairs, found.detach().cpu()))
            # The pairs of one batch of images may take long.
            late = time.monotonic() - self.written >= SAVE_SECONDS
            if late or len(self.waiting) * self.batch_size >= BLOCK:
                self.save()

    @property
    def _device(self) -> torch.device:
        return next((weight.device for weight in self.network.parameters()), torch.device("cpu"))

    def _features(self, rows: Tensor, known: list[list[Tensor]], inputs: Any) -> list[Tensor]:
        """The features of a batch of images, those that were not in the store made and kept."""
        made = self.attribution.features(inputs) if inputs is not None else []
        fresh = iter(zip(*made, strict=True))
        found = [features or list(next(fresh)) for features in known]
        for row, features, before in zip(rows.tolist(), found, known, strict=True):
            if not before:
                self.kept.write(row, features)
        return [torch.stack(parts).to(self._device) for parts in zip(*found, strict=True)]

    def save(self) -> None:
        """Writes the vectors that are in memory."""
        if self.waiting:
            pairs, vectors = (torch.cat(parts) for parts in zip(*self.waiting, strict=True))
            write_pairs(self.place, pairs[:, 0].contiguous(), pairs[:, 1].contiguous(), vectors)
            self.waiting, self.written = [], time.monotonic()


class _Missing(Dataset):
    """Images by their rows: (rows (B,), features on disk or nothing for each, inputs of those without features)."""

    def __init__(self, pictures: Dataset, kept: _Features) -> None:
        self.pictures, self.kept = pictures, kept

    def __getitem__(self, rows: Sequence[int]) -> tuple[Tensor, list[list[Tensor]], Inputs | None]:
        known = [self.kept.read(row) for row in rows]
        missing = [row for row, features in zip(rows, known, strict=True) if not features]
        return torch.tensor(rows), known, self.pictures[missing][0] if missing else None
