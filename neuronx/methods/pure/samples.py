"""References as pictures, cropped to where the unit fires, and with the vectors that `sim=purity` clusters."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neuronx.methods.pure.clusters import PartOptions, choose, products
from neuronx.methods.pure.patches import LEAST, WINDOW, Patches, boxes, cropped, find_masks, seen, side_of
from neuronx.methods.pure.references import ReferenceOptions, References, asked_units, find_references, mean_pool
from neuronx.options import Count, Seed
from neuronx.recording.pictures import view
from neuronx.recording.record import record, without_parts
from neuronx.types import PartSamples, TrainerFactory, Unit

if TYPE_CHECKING:
    from neuronx.data.probe import Probe
    from neuronx.targets.target import Target


def samples_of(
    target: "Target",
    probe: "Probe",
    trainer: TrainerFactory,
    references: References,
    which: Tensor,
    labels: Tensor,
    names: Sequence[tuple[str, ...]],
    options: ReferenceOptions,
) -> list[PartSamples]:
    """Crops the references of some units to where these fire.

    Args:
        target: The network.
        probe: The images.
        trainer: Makes trainers.
        references: Of units.
        which: (V,) int64, places of units among those.
        labels: (V, m) int64, the part of each reference; those of -1 are not shown.
        names: Explanations of the parts of each unit, in words.
        options: Of crops.
    """
    target, exemplars = without_parts(target), references.exemplars
    side, units, whole = side_of(target, probe), references.units[which], exemplars.grid is None
    shown, made = view(target.transform, side), []
    masks = find_masks(exemplars, units, target, probe, trainer, side, options.crop, options.heat)
    for at, unit, own, inside, name in zip(which, units.tolist(), labels, masks, names, strict=True):
        counted = own >= 0
        inside = inside[counted]
        crops = seen(probe, references.rows[at][counted], shown)
        shape: Tensor | None = None
        if not whole and options.crop != "none":
            where = boxes(inside, WINDOW)
            crops = cropped(crops, where, side).round().clamp(0, 255).byte()
            shape = (cropped(inside[:, None], where, side) > 0.5).byte() if options.crop != "peak" else None
        what = Unit(exemplars.layer, unit)
        made.append(PartSamples(target.name, what, name, own[counted], crops, shape, references.vectors[at][counted]))
    return made


@dataclass(frozen=True)
class ReferenceSample:
    """The references of U units of one layer, m of each.

    Attributes:
        references: With circuits.
        patches: Their crops.
        at: (U, m) int64, the crop of each reference.
        vectors: What to cluster by: name -> a table (n, D), and which of its rows (U, m) each reference has.
    """

    references: References
    patches: Patches
    at: Tensor
    vectors: Mapping[str, tuple[Tensor, Tensor]]

    @property
    def units(self) -> Tensor:
        """(U,) int64, columns of the layer."""
        return self.references.units

    @property
    def counted(self) -> Tensor:
        """(U, m) bool; false where the unit does not fire."""
        return self.references.counted


@dataclass(frozen=True, kw_only=True)
class Samples(ReferenceOptions):
    """The references of layers as `sim=purity` compares them, and clusters of vectors of any kind by k-means.

    Attributes:
        n_init: Restarts of k-means.
        seed: Of k-means.
    """

    n_init: Count = 10
    seed: Seed = 0

    def sample(self, target: "Target", probe: "Probe", trainer: TrainerFactory, layer: str) -> ReferenceSample:
        """The references of the units asked for, with the vectors `pure` and `activations`.

        Activations are those of all units of the same layer, averaged over positions, as published, or the class
        token's.

        Raises:
            UserError: As `find_references`.
        """
        target = without_parts(target)
        found = find_references(target, probe, trainer, layer, asked_units(target, layer), self)
        side, least = side_of(target, probe), WINDOW if self.crop == "peak" else LEAST
        masks = find_masks(found.exemplars, found.units, target, probe, trainer, side, self.crop, self.heat)
        rows, where = found.rows.flatten(), torch.cat([boxes(inside, least) for inside in masks])
        order = rows.argsort(stable=True)
        patches = Patches(probe, target.transform, rows[order], where[order], side)
        pool = mean_pool(target, layer)
        values = record(target, probe, trainer, {layer: pool})[target.canonical(layer)].values
        places = torch.arange(len(rows)).view_as(found.rows)
        vectors = {"pure": (found.vectors.flatten(0, 1), places), "activations": (values, found.rows)}
        return ReferenceSample(found, patches, order.argsort().view_as(found.rows), vectors)

    def cluster(self, vectors: Tensor, counted: Tensor, k: int) -> Tensor:
        """k-means of each unit's vectors (U, m, D) that count (U, m): labels (U, m) int64, -1 for those that do not.

        Raises:
            UserError: k below 1.
        """
        options = PartOptions(k=k, min_size=1, n_init=self.n_init, seed=self.seed)
        return choose(products(vectors, counted), counted, options).labels

    def show(
        self, target: "Target", probe: "Probe", trainer: TrainerFactory, sample: ReferenceSample, which: Tensor, k: int
    ) -> list[PartSamples]:
        """The references of some of a sample's units (V,), by k clusters of their circuits, to be pictured."""
        own = sample.references
        labels = self.cluster(own.vectors[which], own.counted[which], k)
        return samples_of(target, probe, trainer, own, which, labels, [("",) * k] * len(which), self)
