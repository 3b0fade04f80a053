"""The references of units and what their circuits tell: whether a unit is one thing, and if not, which parts it has."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from neuronx.errors import UserError, unknown
from neuronx.methods.pure.choosing import choose, silhouette
from neuronx.methods.pure.circuits import circuit_vectors
from neuronx.methods.pure.clusters import Clusters, distances, products
from neuronx.methods.pure.polysemantic import Verdicts, verdicts
from neuronx.methods.pure.relevant import RULES, find_relevant
from neuronx.recording.exemplars import find_exemplars
from neuronx.types import TrainerFactory

if TYPE_CHECKING:
    from neuronx.data.probe import Probe
    from neuronx.targets.target import Target


CHOSEN_BY = ("activation", *RULES)


@dataclass(frozen=True)
class References:
    """The images on which units fire most, and the circuits there.

    Attributes:
        units: (U,) int64, the units, columns of the layer.
        rows: (U, m) int64, the images, strongest first.
        vectors: (U, m, C') float32, the circuits.
        counted: (U, m) bool; false where the unit does not fire on the image, which happens to units that fire rarely.
        lower: The layer that circuits lead to.
    """

    units: Tensor
    rows: Tensor
    vectors: Tensor
    counted: Tensor
    lower: str


@dataclass(frozen=True)
class Findings:
    """What the circuits of U units tell.

    Attributes:
        references: Of the units.
        verdicts: Of the test.
        clusters: Of the references, for all units; a unit's parts, if it is split.
        silhouette: (U,) float64 of the clusters.
        split: (U,) bool, which units are split.
    """

    references: References
    verdicts: Verdicts
    clusters: Clusters
    silhouette: Tensor
    split: Tensor


def find_references(
    target: "Target",
    probe: "Probe",
    trainer: TrainerFactory,
    layer: str,
    units: Tensor,
    m: int,
    lower: str | None = None,
    chosen_by: str = "activation",
    **options: Any,
) -> References:
    """The m train images on which each unit (U,) is strongest at any position, and its circuits there.

    Args:
        target: The network.
        probe: The images.
        trainer: Makes trainers.
        layer: Of the units.
        units: (U,) int64.
        m: References of each unit.
        lower: Layer that circuits lead to; as `circuit_vectors` chooses by default.
        chosen_by: What is strongest: `activation`, or its relevance for the predicted class, by `lrp` or by `gradient`
            times activation (RelMax).
        options: Of `circuit_vectors`.

    Raises:
        UserError: More references than train images, and as `circuit_vectors`.
    """
    train = probe.splits["train"]
    if not 2 <= m <= len(train):
        raise UserError(
            f"references={m} of PURE: write a number from 2 to {len(train)}, the train images of {probe.name}."
        )
    if chosen_by not in CHOSEN_BY:
        raise unknown("way to choose references", chosen_by, CHOSEN_BY)
    if chosen_by == "activation":
        found = find_exemplars(target, probe, trainer, [layer], k=m, rows=train)[target.canonical(layer)]
    else:
        found = find_relevant(target, probe, trainer, layer, m, classes="predicted", rule=chosen_by, rows=train)
    rows, fires = found.rows[units], found.peaks[units] > 0
    pairs = rows[fires], units[:, None].expand_as(rows)[fires]
    circuits = circuit_vectors(target, probe, trainer, layer, *pairs, lower=lower, **options)
    vectors = torch.zeros(*rows.shape, circuits.vectors.shape[1])
    vectors[fires] = circuits.vectors
    return References(units, rows, vectors, fires & (vectors != 0).any(2), circuits.lower)


def find_parts(
    references: References,
    k: int | str,
    *,
    alpha: float | None = 0.001,
    most: int = 5,
    min_size: int = 5,
    n_init: int = 10,
    draws: int = 50,
    seed: int = 0,
) -> Findings:
    """Tests which units are polysemantic and clusters their references into parts.

    Args:
        references: Of the units.
        k: Number of parts, or how to choose it: see `choosing.choose`.
        alpha: A unit is split where one cloud would look as split with a smaller chance; None splits every unit whose
            references make at least two parts.
        most: Parts at most.
        min_size: References that a part needs.
        n_init: Restarts of k-means.
        draws: Clouds that the test draws for each unit.
        seed: Of centres and clouds.

    Raises:
        UserError: Fewer references than parts.
    """
    wanted = k if isinstance(k, int) else 2
    if references.rows.shape[1] < wanted * min_size:
        raise UserError(
            f"{references.rows.shape[1]} references make no {wanted} parts of at least {min_size} each: "
            "set more references, or a smaller min_size."
        )
    if alpha is not None and not 0 < alpha < 1:
        raise UserError(f"alpha={alpha} of PURE: write a number between 0 and 1, or null to split all units.")
    inner = products(references.vectors, references.counted)
    tested = verdicts(inner, references.counted, draws=draws, seed=seed, fewest=2 * min_size)
    found = choose(inner, references.counted, k, most=most, min_size=min_size, n_init=n_init, seed=seed)
    several = (found.sizes > 0).sum(1) > 1
    split = several if alpha is None else several & (tested.p < alpha)
    return Findings(references, tested, found, silhouette(distances(inner), found.labels, found.k), split)
