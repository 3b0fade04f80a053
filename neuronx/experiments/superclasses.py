"""Entropy of superclasses within clusters of reference images, where clustering used circuits only, not labels."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from neuronx.errors import UserError
from neuronx.experiments.given import Given
from neuronx.experiments.splitting import pure_of, shown
from neuronx.methods.pure.clusters import choose, products
from neuronx.methods.pure.method import Pure, study
from neuronx.methods.pure.references import Findings, mean_pool
from neuronx.metrics.correlation import interval
from neuronx.metrics.purity import members
from neuronx.options import Count, Seed, TwoOrMore
from neuronx.progress import progress
from neuronx.recording.record import record
from neuronx.tables.csv import write_csv
from neuronx.types import Cell, Table

if TYPE_CHECKING:
    from neuronx.concepts.clip import Clip
    from neuronx.data.probe import Probe
    from neuronx.targets.target import Target
    from neuronx.types import TrainerFactory

UNITS = ("layer", "unit", "split by", "level", "p", "parts", "sizes", "entropy", "random", "chance")
SUMMARY = ("split by", "level", "superclasses", "units", "inside", "random", "difference", "low", "high", "below")
ALL = "all"
CHUNK = 2**24
"""Numbers at a time."""


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

    references: Count = 30
    k: TwoOrMore = 2
    levels: Sequence[float | str] = (0.3, 0.1, ALL)
    draws: Count = 1000
    clip: "Clip | None" = None
    seed: Seed = 0

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
        rows: list[list[Cell]] = []
        units = tested = 0
        for layer, found in study(target, probe, given.trainer, pure).items():
            units, tested = units + len(found.split), tested + int(found.split.sum())
            for way, labels in self._labels(pure, found, target, probe, given.trainer, layer).items():
                for level in levels:
                    rows += self._rows(way, labels, found, level, probe.labels)
        table = summary(rows, {level.name: level.count for level in levels}, self.seed)
        given.write(write_csv, "superclass_units.csv", UNITS, rows)
        given.write(write_csv, "superclass_entropy.csv", *table)
        m, train = self.references, len(probe.splits["train"])
        title = f"Entropy, in bits, of superclasses in parts of {m} references out of {train} pictures of {probe.name}"
        fewest = f"units without two parts of at least {pure.min_size} references are left out"
        note = f"{units} units, of which the test of explain.pure splits {tested}; {fewest}."
        return f"{shown(title, table)}\n{note}\n"

    def _labels(
        self, pure: Pure, found: Findings, target: "Target", probe: "Probe", trainer: "TrainerFactory", layer: str
    ) -> dict[str, Tensor]:
        """What was clustered -> the part of each reference of the units: (U, m) int64, -1 if it does not count."""
        own, options = found.references, replace(pure, k=self.k)
        values = record(target, probe, trainer, {layer: mean_pool(target, layer)})[target.canonical(layer)].values
        vectors = {"circuits": own.vectors, "activations": values[own.rows]}
        if self.clip is not None:
            vectors["embeddings"] = self.clip.embed_images(probe, trainer)[own.rows]
        labels = {
            f"{way}, k={self.k}": choose(products(points, own.counted), own.counted, options).labels
            for way, points in vectors.items()
        }
        return labels | {"circuits, tested": found.clusters.labels.where(found.split[:, None], 0)}

    def _rows(self, way: str, labels: Tensor, found: Findings, level: "Kinds", classes: Tensor) -> list[list[Cell]]:
        """Rows of `superclass_units.csv` of the units with at least two parts."""
        rows: list[list[Cell]] = []
        references, p = found.references, found.verdicts.p
        several = (labels.amax(1) > 0).nonzero().squeeze(1)
        parts = several.split(max(1, CHUNK // max(1, self.draws * level.table.shape[1] * labels.shape[1])))
        for units in progress(parts, "classes within parts"):
            shows = level.table[classes[references.rows[units]]]
            entropy = inside(labels[units][None], shows, level.exclusive)[0]
            drawn = inside(reshuffled(labels[units], self.draws, self.seed), shows, level.exclusive)
            chance = ((drawn <= entropy + 1e-9).sum(0) + 1) / (self.draws + 1)
            numbers = zip(entropy.tolist(), drawn.mean(0).tolist(), chance.tolist(), strict=True)
            for at, measured in zip(units.tolist(), numbers, strict=True):
                sizes = labels[at][labels[at] >= 0].bincount().tolist()
                unit: list[Cell] = [
                    references.exemplars.layer,
                    int(references.units[at]),
                    way,
                    level.name,
                    float(p[at]),
                ]
                rows.append([*unit, len(sizes), ";".join(map(str, sizes)), *measured])
        return rows


def summary(units: Sequence[Sequence[Cell]], levels: Mapping[str, int], seed: Seed = 0) -> Table:
    """Means over units by way and level, and the paired difference to random parts with its 95 % bootstrap interval.

    Args:
        units: Rows as `UNITS` says.
        levels: Their names, and how many superclasses each has.
        seed: Of the bootstrap.
    """
    rows: list[list[Cell]] = []
    for level, count in levels.items():
        for way in dict.fromkeys(str(row[2]) for row in units):
            own = np.array([row[7:9] for row in units if (row[2], row[3]) == (way, level)], dtype=np.float64)
            if len(own):
                less = own[:, 0] - own[:, 1]
                below = float((less < 0).mean())
                rows.append([way, level, count, len(own), *own.mean(0).tolist(), *interval(less, seed=seed), below])
    return SUMMARY, rows


@dataclass(frozen=True)
class Kinds:
    """Which kinds of things there are at one level of a hierarchy.

    Attributes:
        name: Of the level.
        table: (classes, S) float64 of 0 and 1, which kinds a class belongs to.
        exclusive: Whether each class belongs to exactly one.
        count: Number of superclasses among the kinds.
    """

    name: str
    table: Tensor
    exclusive: bool
    count: int


def kinds(class_names: Sequence[str], hierarchy: Mapping[str, Sequence[int]], level: float | str) -> Kinds:
    """The kinds of things at a level.

    Args:
        class_names: The C classes.
        hierarchy: Superclass -> its classes; they may overlap and hold each other.
        level: A share of the classes in (0, 1]: each class is of the largest superclass that has it and covers no more,
            of equals the first; a class without one is a kind of its own. Or `all`: of every superclass that has it.

    Raises:
        UserError: A level that is neither, or one at which there are no superclasses.
    """
    total = len(class_names)
    if level == ALL:
        table = torch.zeros(total, len(hierarchy), dtype=torch.float64)
        for column, classes in enumerate(hierarchy.values()):
            table[list(classes), column] = 1.0
        count, name = len(hierarchy), ALL
    else:
        if isinstance(level, str) or not 0 < level <= 1:
            raise UserError(f"levels: `{level}` is no level of superclasses; write `{ALL}` or a share of the classes.")
        kind = [-1] * total
        fitting = [classes for classes in hierarchy.values() if len(set(classes)) <= level * total]
        ordered = sorted(fitting, key=lambda classes: -len(set(classes)))
        for number, classes in enumerate(ordered):
            for index in classes:
                kind[index] = number if kind[index] < 0 else kind[index]
        count = len({number for number in kind if number >= 0})
        kind = [len(ordered) + index if number < 0 else number for index, number in enumerate(kind)]
        table = torch.nn.functional.one_hot(torch.tensor(kind).unique(return_inverse=True)[1]).double()
        name = f"up to {level:.0%} of classes"
    if not count:
        raise UserError(f"levels: no superclass at level `{level}`; give superclasses with data.hierarchy=.")
    return Kinds(name, table, level != ALL, count)


def inside(labels: Tensor, shows: Tensor, exclusive: bool) -> Tensor:
    """Entropy (D, U) in bits of the kinds inside the parts of units, the mean over parts weighted by their sizes.

    Args:
        labels: (D, U, m) int64, the part of each of m points, -1 for points that do not count; D labellings.
        shows: (U, m, S) float64 of 0 and 1, the kinds of each point.
        exclusive: Each point has one kind, and the entropy is that of the kind; else the sum over kinds of the entropy
            of having it or not.
    """
    k = int(labels.max()) + 1 if labels.numel() else 1
    # One matrix product for all labellings of a unit.
    D, U, m = labels.shape
    parts = members(labels.flatten(0, 1), k).view(D, U, m, k)
    counts = (parts.permute(1, 0, 3, 2).reshape(U, D * k, m) @ shows).view(U, D, k, shows.shape[2])
    sizes = parts.sum(2).transpose(0, 1)  # (U, D, k)
    share = counts / sizes.clamp(min=1)[..., None]
    entropy = _plogp(share) if exclusive else _plogp(share) + _plogp(1 - share)
    return ((entropy.sum(3) * sizes).sum(2) / sizes.sum(2).clamp(min=1)).T


def reshuffled(labels: Tensor, draws: Count, seed: Seed = 0) -> Tensor:
    """Labels (U, m) dealt anew among the points that count, `draws` times: (D, U, m); points with -1 keep it."""
    keys = torch.rand(draws, 1, labels.shape[1], generator=torch.Generator().manual_seed(seed))
    counted = labels >= 0
    order = keys.masked_fill(~counted, 2.0).argsort(2)
    dealt = labels.gather(1, (~counted).int().argsort(dim=1, stable=True))
    return torch.empty_like(order).scatter_(2, order, dealt.expand_as(order))


def _plogp(share: Tensor) -> Tensor:
    return -torch.xlogy(share, share) / math.log(2)
