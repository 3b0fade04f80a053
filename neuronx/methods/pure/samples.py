"""The references of a layer's units as `sim=purity` compares them: patches to look at, and vectors to cluster by."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from neuronx.errors import UserError, unknown
from neuronx.methods.pure.choosing import choose
from neuronx.methods.pure.clusters import products
from neuronx.methods.pure.heat import check_heat
from neuronx.methods.pure.method import recorded_units
from neuronx.methods.pure.patches import CROPS, Patches, find_boxes, side_of
from neuronx.methods.pure.pictured import samples_of
from neuronx.methods.pure.references import find_references
from neuronx.recording.exemplars import find_exemplars
from neuronx.recording.record import record
from neuronx.recording.virtual import without_parts
from neuronx.types import PartSamples, TrainerFactory

if TYPE_CHECKING:
    from neuronx.data.probe import Probe
    from neuronx.targets.target import Target


@dataclass(frozen=True)
class Sample:
    """The references of U units of one layer, m of each.

    Attributes:
        units: (U,) int64, columns of the layer.
        rows: (U, m) int64, the images, strongest first.
        counted: (U, m) bool; false where the unit does not fire.
        patches: The crops of the references.
        at: (U, m) int64, the crop of each reference.
        vectors: What to cluster by: name -> a table (n, D), and which of its rows (U, m) each reference has.
    """

    units: Tensor
    rows: Tensor
    counted: Tensor
    patches: Patches
    at: Tensor
    vectors: Mapping[str, tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Samples:
    """Finds references, their circuits and their crops, and clusters vectors of any kind by k-means.

    Attributes:
        references: Train images of each unit.
        crop: `mask` (the square around where the unit's map is above its threshold), `peak` (half of the picture,
            around the peak), `heat` (what drives the peak) or `none` (whole pictures).
        heat: Of `crop=heat`: `lrp` (as published; needs zennit), `gradient` (times pixel), or `auto`: lrp where zennit
            is installed and its rules cover the network, gradient elsewhere.
        lower: Layer that circuits lead to; the one before by default.
        rule: Of relevance: gradient (as published), lrp or adjacent.
        positions: Which positions of a map count: activation (all, as published), peak or one.
        n_init: Restarts of k-means.
        seed: Of k-means.
    """

    references: int = 100
    crop: str = "mask"
    heat: str = "auto"
    lower: str | None = None
    rule: str = "gradient"
    positions: str = "activation"
    n_init: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        if self.crop not in CROPS:
            raise unknown("way to crop", self.crop, CROPS)
        check_heat(self.heat)

    def sample(self, target: "Target", probe: "Probe", trainer: TrainerFactory, layer: str) -> Sample:
        """The references of the units asked for, with the vectors `pure` and `activations`.

        Activations are those of all units of the same layer, averaged over positions, as published.

        Raises:
            UserError: As `find_references`.
        """
        target = without_parts(target)
        row = target.layer_table(layers=[layer])[0]
        units = torch.tensor(recorded_units(target, layer, row.units), dtype=torch.int64)
        options: dict[str, Any] = {"rule": self.rule, "seed": self.positions}
        found = find_references(target, probe, trainer, layer, units, self.references, self.lower, **options)
        train = probe.splits["train"]
        exemplars = find_exemplars(target, probe, trainer, [layer], k=self.references, rows=train)
        side = side_of(target, probe)
        own = exemplars[target.canonical(layer)]
        where = find_boxes(own, units, target, probe, trainer, self.crop, side, self.heat)
        order = found.rows.flatten().argsort(stable=True)
        patches = Patches(probe, target.transform, found.rows.flatten()[order], where.flatten(0, 1)[order], side)
        pool = "none" if "none" in row.poolings else "avg"
        values = record(target, probe, trainer, {layer: pool})[target.canonical(layer)].values
        places = torch.arange(found.rows.numel()).view_as(found.rows)
        vectors = {"pure": (found.vectors.flatten(0, 1), places), "activations": (values, found.rows)}
        return Sample(units, found.rows, found.counted, patches, order.argsort().view_as(found.rows), vectors)

    def cluster(self, vectors: Tensor, counted: Tensor, k: int) -> Tensor:
        """k-means of each unit's vectors (U, m, D) that count (U, m): labels (U, m) int64, -1 for those that do not.

        Raises:
            UserError: k below 1.
        """
        if k < 1:
            raise UserError(f"{k} clusters: it must be at least 1.")
        inner = products(vectors, counted)
        return choose(inner, counted, k, min_size=1, n_init=self.n_init, seed=self.seed).labels

    def show(
        self,
        target: "Target",
        probe: "Probe",
        trainer: TrainerFactory,
        layer: str,
        sample: Sample,
        which: Tensor,
        k: int,
    ) -> list[PartSamples]:
        """The references of some of a sample's units (V,), by k clusters of their circuits, to be pictured."""
        table, at = sample.vectors["pure"]
        vectors = table[at[which]]
        labels = self.cluster(vectors, sample.counted[which], k)
        units, rows = sample.units[which], sample.rows[which]
        names = [("",) * k] * len(which)
        return samples_of(target, probe, trainer, layer, units, rows, vectors, labels, names, self.crop, self.heat)
