"""Does PURE find the parts of units that are known to mean two things? Planted units are sums of two other units.

For each of them it is known which of its two sources each reference is of, and what each part should do on any image.
Units of one source are planted beside them, which should stay whole.
"""

import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neuronx.errors import UserError
from neuronx.methods.pure.method import Pure, part_columns, split_target, study
from neuronx.recording.record import record
from neuronx.targets.planted import planted, sums_of
from neuronx.types import Cell, TrainerFactory, Unit

if TYPE_CHECKING:
    from neuronx.data.probe import Probe
    from neuronx.targets.target import Target

RECOVERY = ("unit", "sources", "p", "split", "parts", "rand", "part", "whole")


@dataclass(frozen=True)
class Garden:
    """A network with planted units.

    Attributes:
        target: With the layer `<layer>.planted`.
        pairs: (M, 2) int64, the sources of each planted unit; the same twice for one of a single source.
        shares: (N, M, 2) float32, what each source adds to the unit on each image.
        names: What the sources mean, by unit of the layer.
    """

    target: "Target"
    pairs: Tensor
    shares: Tensor
    names: tuple[str, ...]

    @property
    def layer(self) -> str:
        """Of the planted units."""
        return next(iter(self.target.layers))

    def units(self, double: bool) -> list[Unit]:
        """The units of two sources, or of one."""
        two = self.pairs[:, 0] != self.pairs[:, 1]
        return [Unit(self.layer, at) for at in (two == double).nonzero().flatten().tolist()]


@dataclass(frozen=True)
class Recovery:
    """What PURE made of one planted unit.

    Attributes:
        unit: The unit.
        sources: What it is made of.
        p: Of the test that it is polysemantic.
        split: Whether it was split.
        parts: Into how many parts.
        rand: Adjusted Rand index of the references' parts and the source that adds more there; NaN for units of one
            source and those left whole.
        part: Mean over the sources of the correlation, on test images, of the source and the part that is most like it.
        whole: The same of the source and the whole unit.
    """

    unit: Unit
    sources: tuple[str, ...]
    p: float
    split: bool
    parts: int
    rand: float
    part: float
    whole: float

    @property
    def row(self) -> tuple[Cell, ...]:
        """Of `planted.csv`."""
        numbers = self.p, int(self.split), self.parts, self.rand, self.part, self.whole
        return self.unit.index, " + ".join(self.sources), *numbers


def plant(
    target: "Target", probe: "Probe", trainer: TrainerFactory, layer: str, double: int, single: int, seed: int = 0
) -> Garden:
    """Plants units in a layer: sums of two units of different meaning at equal scale, and single units.

    A unit means the class whose train images excite it most on average; two meanings differ when the names of the
    classes have no word in common.

    Args:
        target: The network.
        probe: The images, labelled.
        trainer: Makes trainers.
        layer: Whose units are the sources.
        double: Number of planted units of two sources.
        single: Of one.
        seed: Of the choice.

    Raises:
        UserError: No labels, or too few units that fire or differ.
    """
    if probe.labels is None or not probe.class_names:
        raise UserError(f"`{probe.name}` has no labels, which say what the sources of planted units mean.")
    layer = target.canonical(layer)
    pool = target.layers.get(layer) or target.layer_table(layers=[layer])[0].poolings[0]
    fires = record(target, probe, trainer, {layer: pool})[layer].values.clamp(min=0)
    train = probe.splits["train"]
    labels, scale = probe.labels[train], fires[train].std(0)
    means = torch.zeros(len(probe.class_names), fires.shape[1]).index_add_(0, labels, fires[train])
    means /= torch.bincount(labels, minlength=len(means)).clamp(min=1)[:, None]
    names = tuple(probe.class_names[best] for best in means.argmax(0).tolist())
    live = (scale > 0).nonzero().flatten().tolist()
    draw = random.Random(seed)
    unlike = [
        pair
        for pair in itertools.combinations(live, 2)
        if not set(names[pair[0]].split()) & set(names[pair[1]].split())
    ]
    if len(unlike) < double or len(live) < single:
        raise UserError(f"`{layer}` has {len(unlike)} pairs of units that differ, and {len(live)} units that fire.")
    chosen = [*draw.sample(unlike, double), *((unit, unit) for unit in draw.sample(live, single))]
    pairs = torch.tensor(chosen, dtype=torch.int64)
    shares = fires[:, pairs] / scale[pairs]
    made = planted(replace(target, layers={layer: pool}, units=None), layer, sums_of(pairs, scale.clamp(min=1e-12)))
    return Garden(made, pairs, shares, names)


def recover(garden: Garden, pure: Pure, probe: "Probe", trainer: TrainerFactory) -> list[Recovery]:
    """Splits the planted units and holds parts against sources.

    Args:
        garden: The planted units.
        pure: Splits them; its `lower` must be a layer before that of the sources.
        probe: The images on which they were planted.
        trainer: Makes trainers.
    """
    from sklearn.metrics import adjusted_rand_score

    layer, findings = garden.layer, study(garden.target, probe, trainer, pure)
    split = split_target(garden.target, findings, pure)
    columns = part_columns(split, layer)
    test = probe.split("test")
    values = record(split, probe, trainer)[layer].values[test]
    found = findings[layer]
    recovered = []
    for unit, pair in enumerate(garden.pairs.tolist()):
        sources, parts = list(dict.fromkeys(pair)), columns.get(unit, [])
        labels = found.clusters.labels[unit]
        counted = labels >= 0
        stronger = garden.shares[found.references.rows[unit], unit].argmax(1)
        whole, *own = _correlations(values[:, [unit, *parts]], garden.shares[test, unit, : len(sources)])
        recovered.append(
            Recovery(
                unit=Unit(layer, unit),
                sources=tuple(garden.names[source] for source in sources),
                p=float(found.verdicts.p[unit]),
                split=bool(parts),
                parts=max(1, len(parts)),
                rand=adjusted_rand_score(stronger[counted], labels[counted]) if parts and sources[1:] else math.nan,
                part=float(torch.stack(own).amax(0).mean()) if parts else math.nan,
                whole=float(whole.mean()),
            )
        )
    return recovered


def _correlations(a: Tensor, b: Tensor) -> Tensor:
    """Correlations (A, B) of columns of a (N, A) and b (N, B); 0 where one never changes."""
    a, b = (x.double() - x.double().mean(0) for x in (a, b))
    norms = a.norm(dim=0)[:, None] * b.norm(dim=0)
    return torch.where(norms > 0, a.T @ b / norms.clamp(min=1e-300), 0.0)


def summary(recovered: Sequence[Recovery]) -> dict[str, float]:
    """Means over planted units, by name."""
    double = [unit for unit in recovered if len(unit.sources) == 2]
    single = [unit for unit in recovered if len(unit.sources) == 1]
    split = [unit for unit in double if unit.split]

    def mean(values: Sequence[float]) -> float:
        return sum(values) / len(values) if values else math.nan

    return {
        "share of double units that are split": mean([unit.split for unit in double]),
        "share of single units that are left whole": mean([not unit.split for unit in single]),
        "adjusted Rand index of parts and sources": mean([unit.rand for unit in split]),
        "correlation of parts with sources on test images": mean([unit.part for unit in split]),
        "correlation of whole units with sources on test images": mean([unit.whole for unit in split]),
    }
