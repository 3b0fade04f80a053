"""Are the parts of split units one kind of thing each? What labels say of references that only circuits have sorted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from neuronx.errors import UserError
from neuronx.experiments.entropy import Kinds, inside, kinds, reshuffled
from neuronx.experiments.given import Given
from neuronx.experiments.splitting import pure_of, shown
from neuronx.methods.pure.clusters import choose, products
from neuronx.methods.pure.method import Pure, study
from neuronx.methods.pure.references import Findings, mean_pool
from neuronx.metrics.bootstrap import interval
from neuronx.recording.record import record
from neuronx.tables.csv import write_csv
from neuronx.types import Cell, Table

if TYPE_CHECKING:
    from neuronx.concepts.clip import Clip
    from neuronx.data.probe import Probe
    from neuronx.targets.target import Target
    from neuronx.types import TrainerFactory

COLUMNS = ("layer", "unit", "split by", "level", "p", "parts", "sizes", "entropy", "random", "chance")
CHUNK = 2**24
"""Numbers at a time."""


@dataclass(frozen=True)
class Sorted:
    """References of U units of a layer, sorted into parts.

    Attributes:
        way: By what.
        units: (U,) int64.
        labels: (U, m) int64, -1 for references that do not count.
        rows: (U, m) int64, the images.
        p: (U,) float64, of the test that units are polysemantic.
    """

    way: str
    units: Tensor
    labels: Tensor
    rows: Tensor
    p: Tensor


@dataclass(frozen=True, kw_only=True)
class Superclasses:
    """The entropy of the superclasses of references inside parts, against random parts of the same sizes.

    Units are split by their circuits into `k` parts whether they are polysemantic or not, and also as `explain.pure`
    says, by its test; to compare, into `k` by the activations of the same layer, and by a CLIP's embeddings of the
    whole pictures.

    Attributes:
        references: Of each unit, in place of those of `explain.pure`.
        k: Parts of a unit.
        levels: Which superclasses count: a share of the classes, for the largest superclass of each class that covers
            no more; or `all`, the entropies of belonging or not to each superclass, summed.
        draws: Random parts of each unit.
        clip: Whose embeddings are clustered; None for none.
        seed: Of random parts and intervals.
    """

    references: int = 30
    k: int = 2
    levels: Sequence[float | str] = (0.3, 0.1, "all")
    draws: int = 1000
    clip: "Clip | None" = None
    seed: int = 0

    def run(self, given: Given) -> str:
        """Measures it; writes `superclass_units.csv` and `superclass_entropy.csv`.

        Raises:
            UserError: No labels, `explain` without PURE, fewer than two parts, no draws, a level that is none.
        """
        target, pure = given.one_target(), replace(pure_of(given), references=self.references)
        probe = given.images(target)
        if probe.labels is None or not probe.class_names:
            raise UserError(f"`{probe.name}` has no labels, which say what references show.")
        if self.k < 2 or self.draws < 1:
            raise UserError(f"k={self.k}, draws={self.draws} of experiment=superclasses: at least 2 and 1.")
        levels = [kinds(probe.class_names, probe.hierarchy, level) for level in self.levels]
        units: list[list[Cell]] = []
        looked = tested = 0
        for layer, found in study(target, probe, given.trainer, pure).items():
            looked, tested = looked + len(found.split), tested + int(found.split.sum())
            for one in self.ways(pure, found, target, probe, given.trainer, layer):
                for level in levels:
                    units += self._measure(one, level, probe.labels[one.rows], layer)
        table = summary(units, {level.name: level.count for level in levels}, self.seed)
        given.write(write_csv, "superclass_units.csv", COLUMNS, units)
        given.write(write_csv, "superclass_entropy.csv", *table)
        m, train = self.references, len(probe.splits["train"])
        title = f"Entropy, in bits, of superclasses in parts of {m} references out of {train} pictures of {probe.name}"
        fewest = f"units without two parts of at least {pure.min_size} references are left out"
        note = f"{looked} units, of which the test of explain.pure splits {tested}; {fewest}."
        return f"{shown(title, table)}\n{note}\n"

    def ways(
        self, pure: Pure, found: Findings, target: "Target", probe: "Probe", trainer: "TrainerFactory", layer: str
    ) -> list[Sorted]:
        """The references of a layer's units, sorted in all ways; units with fewer than two parts are left out."""
        own, options = found.references, replace(pure, k=self.k)
        values = record(target, probe, trainer, {layer: mean_pool(target, layer)})[target.canonical(layer)].values
        vectors = {"circuits": own.vectors, "activations": values[own.rows]}
        if self.clip is not None:
            vectors["embeddings"] = self.clip.embed_images(probe, trainer)[own.rows]
        sorts = {
            f"{way}, k={self.k}": choose(products(points, own.counted), own.counted, options).labels
            for way, points in vectors.items()
        }
        sorts["circuits, tested"] = found.clusters.labels.where(found.split[:, None], 0)
        made = []
        for way, labels in sorts.items():
            several = labels.amax(1) > 0
            p = found.verdicts.p[several]
            made.append(Sorted(way, own.units[several], labels[several], own.rows[several], p))
        return made

    def _measure(self, one: Sorted, level: Kinds, classes: Tensor, layer: str) -> list[list[Cell]]:
        """Rows of `superclass_units.csv`."""
        rows: list[list[Cell]] = []
        step = max(1, CHUNK // max(1, self.draws * level.table.shape[1] * classes.shape[1]))
        for some in torch.arange(len(classes)).split(step):
            labels, shows = one.labels[some], level.table[classes[some]]
            entropy = inside(labels[None], shows, level.exclusive)[0]
            drawn = inside(reshuffled(labels, self.draws, self.seed), shows, level.exclusive)
            chance = ((drawn <= entropy + 1e-9).sum(0) + 1) / (self.draws + 1)
            numbers = zip(entropy.tolist(), drawn.mean(0).tolist(), chance.tolist(), strict=True)
            for at, found in zip(some.tolist(), numbers, strict=True):
                own = one.labels[at]
                sizes = own[own >= 0].bincount().tolist()
                unit: list[Cell] = [layer, int(one.units[at]), one.way, level.name, float(one.p[at])]
                rows.append([*unit, len(sizes), ";".join(map(str, sizes)), *found])
        return rows


def summary(units: Sequence[Sequence[Cell]], levels: Mapping[str, int], seed: int = 0) -> Table:
    """Means over units by way and level, and the paired difference to random parts with its 95 % bootstrap interval.

    Args:
        units: Rows as `COLUMNS` says.
        levels: Their names, and how many superclasses each has.
        seed: Of the bootstrap.
    """
    columns = ("split by", "level", "superclasses", "units", "inside", "random", "difference", "low", "high", "below")
    rows: list[list[Cell]] = []
    for level, count in levels.items():
        for way in dict.fromkeys(str(row[2]) for row in units):
            mine = np.array([row[7:9] for row in units if (row[2], row[3]) == (way, level)], dtype=np.float64)
            if len(mine):
                less = mine[:, 0] - mine[:, 1]
                below = float((less < 0).mean())
                rows.append([way, level, count, len(mine), *mine.mean(0).tolist(), *interval(less, seed=seed), below])
    return columns, rows
