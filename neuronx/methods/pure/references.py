"""The references of units, their circuits, and what follows: is a unit polysemantic, and which parts has it?"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neuronx.errors import UserError, unknown
from neuronx.methods.pure.circuits import circuit_vectors
from neuronx.methods.pure.clusters import Clusters, PartOptions, choose, distances, products, silhouette
from neuronx.methods.pure.heat import check_heat
from neuronx.methods.pure.patches import CROPS
from neuronx.methods.pure.polysemantic import Level, Verdicts, verdicts
from neuronx.methods.pure.relevant import RULES, find_relevant
from neuronx.options import Count
from neuronx.recording.exemplars import Exemplars, find_exemplars
from neuronx.types import TrainerFactory

if TYPE_CHECKING:
    from neuronx.data.probe import Probe
    from neuronx.targets.target import Target

CHOSEN_BY = ("activation", "pool", *RULES)


@dataclass(frozen=True, kw_only=True)
class ReferenceOptions:
    """Which images are the references of a unit, what their circuits are, and what of them is shown.

    Attributes:
        references: Train images of each unit.
        chosen_by: What makes a reference: the unit's largest `activation` at any position (as published), its
            activation as the layer is pooled (`pool`), or its relevance for the predicted class, by `lrp` or by
            `gradient` times activation (RelMax). With pool=first it is the class token's, and so are circuits.
        lower: Layer that circuits lead to; the one before by default.
        rule: Of relevance: gradient (as published), lrp or adjacent.
        positions: Which positions of a map count: activation (all, as published), peak or one.
        crop: Of pictures: `mask` (the square around where the unit's map is above its threshold), `peak` (half of the
            picture, around the peak), `heat` (what drives the peak) or `none` (whole pictures).
        heat: Of `crop=heat`: `lrp` (as published; needs zennit), `gradient` (times pixel), or `auto`: lrp where zennit
            is installed and its rules cover the network, gradient elsewhere.
    """

    references: Count = 100
    chosen_by: str = "activation"
    lower: str | None = None
    rule: str = "gradient"
    positions: str = "activation"
    crop: str = "mask"
    heat: str = "auto"

    def __post_init__(self) -> None:
        if self.crop not in CROPS:
            raise unknown("way to crop", self.crop, CROPS)
        if self.chosen_by not in CHOSEN_BY:
            raise unknown("way to choose references", self.chosen_by, CHOSEN_BY)
        check_heat(self.heat)


@dataclass(frozen=True)
class References:
    """The images on which the units of one layer fire most, and the circuits there.

    Attributes:
        units: (U,) int64, the units, columns of the layer.
        exemplars: The images of all units of the layer, with thresholds of activation.
        vectors: (U, m, C') float32, the circuits.
        counted: (U, m) bool; false where the unit does not fire on the image, which happens to units that fire rarely.
        lower: The layer that circuits lead to.
    """

    units: Tensor
    exemplars: Exemplars
    vectors: Tensor
    counted: Tensor
    lower: str

    @property
    def rows(self) -> Tensor:
        """(U, m) int64, the images, strongest first."""
        return self.exemplars.rows[self.units]


@dataclass(frozen=True)
class Findings:
    """What the test and the clustering of circuits say of U units of one layer.

    Attributes:
        references: Of the units.
        verdicts: Of the test.
        clusters: Of the references, for all units; a unit's parts, if it is split.
        silhouette: (U,) float64 of the clusters.
        level: At which the test calls a unit polysemantic.
        all: Whether all units of several clusters are split, and not only those.
    """

    references: References
    verdicts: Verdicts
    clusters: Clusters
    silhouette: Tensor
    level: Level
    all: bool = False

    @property
    def polysemantic(self) -> Tensor:
        """(U,) bool, the units that the test finds."""
        return self.level.found(self.verdicts)

    @property
    def split(self) -> Tensor:
        """(U,) bool, which units are split."""
        several = (self.clusters.sizes > 0).sum(1) > 1
        return several if self.all else several & self.polysemantic

    @property
    def forced(self) -> "Findings":
        """The same with all units of several clusters split."""
        return replace(self, all=True)


def asked_units(target: "Target", layer: str) -> Tensor:
    """The units of a layer that were asked for: (U,) int64."""
    (row,) = target.layer_table(layers=[layer])
    return torch.tensor(target.units_of(layer, row.units), dtype=torch.int64)


def mean_pool(target: "Target", layer: str) -> str:
    """The pooling of a layer that is a mean over positions; `first` where its class token is what is explained."""
    if target.layers.get(target.canonical(layer)) == "first":
        return "first"
    return "none" if "none" in target.layer_table(layers=[layer])[0].poolings else "avg"


def counting(target: "Target", layer: str, positions: str) -> str:
    """Which positions of a unit count in its circuits: where the class token is explained, it alone."""
    return "first" if target.layers.get(target.canonical(layer)) == "first" else positions


def find_references(
    target: "Target", probe: "Probe", trainer: TrainerFactory, layer: str, units: Tensor, options: ReferenceOptions
) -> References:
    """The train images on which each unit (U,) is strongest, as `chosen_by` says, and its circuits there.

    Raises:
        UserError: More references than train images, and as `circuit_vectors`.
    """
    m, train = options.references, probe.splits["train"]
    if not 2 <= m <= len(train):
        raise UserError(
            f"references={m} of PURE: write a number from 2 to {len(train)}, the train images of {probe.name}."
        )
    by = "pool" if options.chosen_by == "pool" else "peak"
    exemplars = find_exemplars(target, probe, trainer, [layer], k=m, by=by, rows=train)[target.canonical(layer)]
    if options.chosen_by in RULES:
        relevant = find_relevant(target, probe, trainer, layer, m, options.chosen_by, train)
        exemplars = replace(relevant, thresholds=exemplars.thresholds, quantile=exemplars.quantile)
    rows, fires = exemplars.rows[units], exemplars.peaks[units] > 0
    pairs = rows[fires], units[:, None].expand_as(rows)[fires]
    positions = counting(target, layer, options.positions)
    circuits = circuit_vectors(
        *(target, probe, trainer, layer, *pairs), lower=options.lower, rule=options.rule, positions=positions
    )
    vectors = torch.zeros(*rows.shape, circuits.vectors.shape[1])
    vectors[fires] = circuits.vectors
    return References(units, exemplars, vectors, fires & (vectors != 0).any(2), circuits.lower)


def find_parts(references: References, options: PartOptions) -> Findings:
    """Tests which units are polysemantic and clusters their references into parts.

    Raises:
        UserError: Fewer references than parts.
    """
    fewest = (options.k if isinstance(options.k, int) else 2) * options.min_size
    if references.rows.shape[1] < fewest:
        raise UserError(
            f"{references.rows.shape[1]} references make no {fewest // options.min_size} parts of at least "
            f"{options.min_size} each: set more references, or a smaller min_size."
        )
    level = Level.of(options.alpha)
    inner = products(references.vectors, references.counted)
    tested = verdicts(inner, references.counted, halves=options.halves, seed=options.seed)
    clusters = choose(inner, references.counted, options)
    found = Findings(references, tested, clusters, silhouette(distances(inner), clusters.labels, clusters.k), level)
    return found if options.alpha is not None else found.forced
