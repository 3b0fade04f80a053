"""`sim=purity`: do the references of a unit fall into parts that look different? The published evaluation of PURE.

No activation is predicted, and explanations play no part: the score compares mean distances in and between clusters of
a unit's references, in the embedding space of a network that had no part in making the clusters.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from neuronx.concepts.clip import Clip, mean_tokens
from neuronx.errors import UserError
from neuronx.metrics.purity import Alignment, alignment, nearest, pair_distances, separation, shuffled
from neuronx.options import Count, Natural, Seed, TwoOrMore
from neuronx.progress import progress
from neuronx.recording.record import record
from neuronx.scoring.clustering.purity_tables import (
    ClusterDistances,
    LayerPurity,
    alignment_table,
    purity_table,
    score_rows,
)
from neuronx.scoring.rows import CEILING
from neuronx.targets.target import Target
from neuronx.types import Explanation, Judge, PartSamples, Scores, TrainerFactory

if TYPE_CHECKING:
    from neuronx.data.probe import Probe

UNITS = 64
"""Units at a time."""
Vectors = tuple[Tensor, Tensor]
"""A table (n, D), and which of its rows (U, m) the references have."""


class ReferenceSource(Protocol):
    """Finds and clusters references: `neuronx.methods.pure.samples.Samples`."""

    @property
    def references(self) -> int:
        """How many of each unit, m."""
        ...

    @property
    def crop(self) -> str:
        """How their pictures are cropped."""
        ...

    def sample(self, target: Target, probe: "Probe", trainer: TrainerFactory, layer: str) -> Any:
        """Units (U,), counted and at (U, m), patches and vectors, as `ReferenceSample` says."""
        ...

    def cluster(self, vectors: Tensor, counted: Tensor, k: int) -> Tensor:
        """Labels (U, m) of vectors (U, m, D)."""
        ...

    def show(
        self, target: Target, probe: "Probe", trainer: TrainerFactory, sample: Any, which: Tensor, k: int
    ) -> Sequence[PartSamples]:
        """The references of some of a sample's units, by clusters of their circuits."""
        ...


@dataclass(frozen=True)
class Purity:
    """Distances of reference patches inside and between clusters, by circuits and by what they are compared with.

    Clusters are made by PURE's circuit vectors, by the activations of the same layer, and by the embeddings of the CLIP
    that explains; a floor has the same clusters with their labels shuffled, the ceiling those that are made in the very
    space in which distances are measured. The score of a unit is the mean over k of its gap, the mean distance between
    clusters less that inside: `purity` on the references that were clustered, as published, and `purity_held_out` on
    every other one, clusters being made of the rest, and each reference going to the nearest centroid.

    A unit that fires on fewer references than twice the largest k is inactive.

    Attributes:
        references: Finds and clusters them.
        embeddings: The CLIP whose embeddings are clustered, or any network; None for none.
        space: Where distances are measured: a CLIP or any network, such as a DINOv2; the judge by default.
        tokens: Embeddings are the mean over a tower's last tokens, as published, rather than projected and normalised.
        ks: Numbers of clusters.
        draws: Shuffles of each labelling, averaged.
        shown: Units of a layer whose references are pictured, those of the largest gap for the smallest k.
        seed: Of shuffles and intervals.
    """

    references: ReferenceSource
    embeddings: "Clip | Target | None" = None
    space: "Clip | Target | None" = None
    tokens: bool = False
    ks: Sequence[TwoOrMore] = (2, 3, 4, 5)
    draws: Count = 10
    shown: Natural = 5
    seed: Seed = 0

    def __post_init__(self) -> None:
        if not self.ks or min(self.ks) < 2 or self.draws < 1:
            raise UserError("sim.purity.ks needs numbers of clusters from 2 on, and draws at least 1.")
        if self.references.references < 2 * max(self.ks):
            raise UserError(
                f"{self.references.references} references are too few for {max(self.ks)} clusters: "
                f"at least {2 * max(self.ks)} are needed."
            )

    def score(
        self,
        explained: Mapping[str, Sequence[Explanation]],
        target: Target,
        probe: "Probe",
        judge: Judge,
        trainer: TrainerFactory,
        words: Sequence[str] = (),
    ) -> Scores:
        """Scores the units asked for; explanations and words play no part.

        Returns:
            Beside scores, the tables `purity.csv` and `alignment.csv`, and references of the units that split best.

        Raises:
            UserError: A judge that embeds no pictures, or that is the CLIP whose embeddings are clustered; too few
                train images; layers without a lower one.
        """
        space = self._space(judge)
        layers: list[LayerPurity] = []
        samples: list[PartSamples] = []
        for layer, pool in target.layers.items():
            sample = self.references.sample(target, probe, trainer, layer)
            vectors: dict[str, Vectors] = dict(sample.vectors)
            if self.embeddings is not None:
                vectors["embeddings"] = self._embed(self.embeddings, sample.patches, trainer), sample.at
            vectors[CEILING] = self._embed(space, sample.patches, trainer), sample.at
            live = sample.counted.sum(1) >= 2 * max(self.ks)
            purity = LayerPurity(
                target=target.name,
                layer=target.canonical(layer),
                pool=pool,
                units=tuple(sample.units.tolist()),
                counted=sample.counted.sum(1),
                live=live,
                space=space.name,
                crop=self.references.crop,
                images=f"{probe.name}/train:{len(probe.splits['train'])}",
                distances=self._distances(vectors, sample.counted, live),
                aligned=self._align(vectors, sample.counted, live),
            )
            layers.append(purity)
            if self.shown:
                samples += self.references.show(target, probe, trainer, sample, self._clearest(purity), min(self.ks))
        rows = [row for purity in layers for row in score_rows(purity, self.ks)]
        tables = {"purity.csv": purity_table(layers, self.seed), "alignment.csv": alignment_table(layers, self.seed)}
        return Scores(rows, tables, samples)

    def _clearest(self, purity: LayerPurity) -> Tensor:
        """Which units are pictured: places among those asked for."""
        live, smallest = purity.live.nonzero().squeeze(1), ("pure", min(self.ks), False)
        gaps = [own.gap for own in purity.distances if (own.method, own.k, own.held_out) == smallest]
        return live[gaps[0].argsort(descending=True, stable=True)[: self.shown]] if gaps else live

    def _space(self, judge: Judge) -> "Clip | Target":
        space = judge if self.space is None else self.space
        if not isinstance(space, Clip | Target):
            raise UserError(
                f"sim=purity measures distances between pictures, and judge={judge.name} embeds none: take a CLIP as "
                "judge=, or name a network as sim.purity.space."
            )
        own = self.embeddings
        if own is not None and _identity(own) == _identity(space):
            raise UserError(
                f"sim=purity clusters by {own.name} and measures distances in the same space: take another judge=, "
                "or sim.purity.embeddings=null."
            )
        return space

    def _embed(self, by: "Clip | Target", patches: "Probe", trainer: TrainerFactory) -> Tensor:
        """(n, D) float32."""
        if isinstance(by, Target):
            return record(by, patches, trainer)[next(iter(by.layers))].values
        return mean_tokens(by, patches, trainer) if self.tokens else by.embed_images(patches, trainer)

    def _distances(self, vectors: Mapping[str, Vectors], counted: Tensor, live: Tensor) -> list[ClusterDistances]:
        """Of the live units: by each kind of vectors, each k, all references and held out."""
        table, at = vectors[CEILING]
        means: dict[tuple[str, int, bool], list[tuple[Tensor, ...]]] = {}
        for units in progress(live.nonzero().squeeze(1).split(UNITS), "purity of parts"):
            own = counted[units]
            far = pair_distances(table[at[units]])
            # Every other reference, counted by rank, so that both halves fire alike.
            fits = own & (own.cumsum(1) % 2 == 1)
            for method, (values, where) in vectors.items():
                points = values[where[units]]
                for k in self.ks:
                    labels = self.references.cluster(points, own, k)
                    others = nearest(points, self.references.cluster(points, fits, k), own & ~fits)
                    seed = self.seed + 10_000 * int(units[0]) + 1000 * k
                    means.setdefault((method, k, False), []).append(self._means(far, labels, seed))
                    means.setdefault((method, k, True), []).append(self._means(far, others, seed))
        return [ClusterDistances(*key, *map(torch.cat, zip(*some, strict=True))) for key, some in means.items()]

    def _means(self, far: Tensor, labels: Tensor, seed: int) -> tuple[Tensor, ...]:
        """Intra and inter of clusters, and of the same with shuffled labels."""
        own, drawn = separation(far, labels), [separation(far, shuffled(labels, seed + n)) for n in range(self.draws)]
        intra, inter = torch.stack([each.intra for each in drawn]), torch.stack([each.inter for each in drawn])
        return own.intra, own.inter, intra.mean(0), inter.mean(0)

    def _align(self, vectors: Mapping[str, Vectors], counted: Tensor, live: Tensor) -> dict[str, Alignment]:
        """How distances of each kind of vectors follow those in the space."""
        units = live.nonzero().squeeze(1)
        far = {method: pair_distances(values[where[units]]) for method, (values, where) in vectors.items()}
        space = far.pop(CEILING)
        return {method: alignment(own, space, counted[units], seed=self.seed) for method, own in far.items()}


def _identity(network: "Clip | Target") -> str:
    return network.encoder.identity if isinstance(network, Clip) else network.digest
