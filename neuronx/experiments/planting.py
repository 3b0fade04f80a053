"""Are units told apart that are known to mean two things? Planted ones are sums of two units of different meaning.

What is known of them: which of the two sources each reference is of, and what each part should do on any image. Planted
beside them are pure ones, of one source.
"""

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neuronx.errors import UserError
from neuronx.methods.pure.method import Pure, split_target, study
from neuronx.recording.record import record
from neuronx.targets.planted import planted, sums_of
from neuronx.types import TrainerFactory, Unit

if TYPE_CHECKING:
    from neuronx.data.probe import Probe
    from neuronx.targets.target import Target


@dataclass(frozen=True)
class Garden:
    """A network with planted units.

    Attributes:
        target: With the layer `<layer>.planted`.
        pairs: (M, 2) int64, the sources of each planted unit; the same twice for a pure one.
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
    """What became of one planted unit.

    Attributes:
        unit: The unit.
        sources: What it is made of.
        p: Of the test that it is polysemantic.
        split: Whether it was split.
        parts: Into how many parts.
        rand: Adjusted Rand index of the references' parts and the source that adds more there; NaN for pure units and
            those left whole.
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
        raise UserError(f"`{probe.name}` has no labels, which tell what the sources of planted units mean.")
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

    findings = study(garden.target, probe, trainer, pure)
    found = findings[garden.layer]
    recorded = record(split_target(garden.target, findings, pure), probe, trainer)[garden.layer]
    test = probe.split("test")
    values = recorded.values[test]
    columns: dict[int, list[int]] = {}
    for column, unit in enumerate(recorded.units):
        columns.setdefault(unit.index, []).append(column)
    made = []
    for at, pair in enumerate(garden.pairs.tolist()):
        whole, *parts = columns[at]
        sources = list(dict.fromkeys(pair))
        share = garden.shares[test, at, : len(sources)]
        rows = found.references.rows[at]
        labels = found.clusters.labels[at]
        true = garden.shares[rows, at].argmax(1)
        two = len(sources) == 2 and bool(parts)
        r = _correlations(values[:, [whole, *parts]], share)
        made.append(
            Recovery(
                Unit(garden.layer, at),
                tuple(garden.names[source] for source in sources),
                float(found.verdicts.p[at]),
                bool(parts),
                max(1, len(parts)),
                float(adjusted_rand_score(true[labels >= 0], labels[labels >= 0])) if two else torch.nan,
                float(r[1:].amax(0).mean()) if parts else torch.nan,
                float(r[0].mean()),
            )
        )
    return made


def _correlations(a: Tensor, b: Tensor) -> Tensor:
    """Correlations (A, B) of columns of a (N, A) and b (N, B); 0 where one never changes."""
    a, b = (x.double() - x.double().mean(0) for x in (a, b))
    norms = a.norm(dim=0)[:, None] * b.norm(dim=0)
    return torch.where(norms > 0, a.T @ b / norms.clamp(min=1e-300), 0.0)


def summary(found: Sequence[Recovery]) -> dict[str, float]:
    """Means over planted units, by name."""
    double = [one for one in found if len(one.sources) == 2]
    single = [one for one in found if len(one.sources) == 1]
    split = [one for one in double if one.split]

    def mean(values: Sequence[float]) -> float:
        return sum(values) / len(values) if values else float("nan")

    return {
        "share of double units that are split": mean([one.split for one in double]),
        "share of single units that are left whole": mean([not one.split for one in single]),
        "adjusted Rand index of parts and sources": mean([one.rand for one in split]),
        "correlation of parts with sources on test images": mean([one.part for one in split]),
        "correlation of whole units with sources on test images": mean([one.whole for one in split]),
    }
