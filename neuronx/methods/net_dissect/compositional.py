"""Compositional explanations: each unit as a formula of concepts, `red AND NOT square`."""

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neuronx.concepts.judged import recalled, with_support
from neuronx.data.segmentation import Segmentation
from neuronx.errors import UserError
from neuronx.methods.net_dissect.method import Options, content_key, scan, segmentation_of, thresholds
from neuronx.methods.net_dissect.search import Gathering, Patterns, as_published, formula, search
from neuronx.methods.net_dissect.tally import DIGITS
from neuronx.options import Count, NotNegative
from neuronx.store.cache import Entry, entry, open_or_draft, packed
from neuronx.store.processes import on_first
from neuronx.types import Cell, Concepts, Explanation, Found, Table, TrainerFactory

if TYPE_CHECKING:
    from neuronx.data.probe import Probe
    from neuronx.recording.exemplars import Exemplars
    from neuronx.targets.target import Target

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Composed:
    """The best formula of each of K units, up to L concepts long.

    Attributes:
        concepts: (K, L) int64, -1 where there is none.
        operators: (K, L) int64, what joins each concept to those before it (see `chains`).
        iou: (K,) float64 of the formula.
        score: (K,) float64, the same times the penalty.
        single: (K,) int64, the best concept alone; -1 for a unit that meets none.
        single_iou: (K,) float64 of that concept.
    """

    concepts: Tensor
    operators: Tensor
    iou: Tensor
    score: Tensor
    single: Tensor
    single_iou: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Compositional(Options):
    """Explains each unit by the formula whose cells overlap most with where it fires (Mu and Andreas, NeurIPS 2020).

    An explanation's one term is the formula, with weight 1; its notes are the `iou`, the `length`, and the `single_iou`
    of the best concept alone. A unit's own area is over all images, as published. A unit that never exceeds its own
    threshold, or meets no concept where it does, has no terms.

    Unlike the published search, this one tries all concepts, also those absent from the images where the unit fires,
    and keeps no formula whose last concept changes nothing.

    Attributes:
        length: Largest number of concepts in a formula.
        beam: Formulas kept from one length to the next.
        penalty: Each concept after the first multiplies the IoU by it; in (0, 1], and 1 is none.
        published_length: Let NOT count as one concept more in the penalty, as the published code does.
    """

    length: Count = 3
    beam: Count = 10
    penalty: NotNegative = 1.0
    published_length: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, fine, right in (
            ("length", self.length >= 1, "at least 1"),
            ("beam", self.beam >= 1, "at least 1"),
            ("penalty", 0 < self.penalty <= 1, "above 0 and at most 1"),
        ):
            if not fine:
                raise UserError(f"explain.compositional.{name} is {getattr(self, name)}; it must be {right}.")

    def explain(self, target: "Target", probe: "Probe", trainer: TrainerFactory) -> Found:
        """Explains the units asked for, from the train and val images; the tables are the published ones, one a layer.

        Raises:
            UserError: For images without pixel labels, a layer without positions, a quantile out of range.
        """
        segmentation = segmentation_of(probe, self.categories)
        explanations: list[Explanation] = []
        tables: dict[str, Table] = {}
        for layer, (composed, exemplars) in self.compose(target, probe, trainer).items():
            explained = self.explain_layer(composed, exemplars, segmentation.names)
            explanations += [explanation for explanation in explained if target.asks_for(explanation.unit)]
            tables[f"compositional_{target.name}_{layer}.csv"] = cells(composed, segmentation)
            log.info(
                "%s %s: mean IoU %.4f with formulas, %.4f with single concepts",
                *(target.name, layer, composed.iou.mean(), composed.single_iou.mean()),
            )
        if probe.truth is not None:
            known = Concepts(*probe.truth)
            explanations = with_support(explanations, lambda names: recalled(known, names), probe)
        return Found(explanations, tables)

    def explain_layer(self, found: Composed, exemplars: "Exemplars", names: tuple[str, ...]) -> list[Explanation]:
        """Explains all units of one layer."""
        return [
            Explanation(
                unit,
                ((str(formula(concepts, operators, names)), 1.0),),
                evidence=tuple(rows),
                notes=(("iou", iou), ("length", float(sum(c >= 0 for c in concepts))), ("single_iou", single)),
            )
            if concepts[0] >= 0
            else Explanation(unit, ())
            for unit, concepts, operators, iou, single, rows in zip(
                exemplars.units,
                found.concepts.tolist(),
                found.operators.tolist(),
                found.iou.tolist(),
                found.single_iou.tolist(),
                exemplars.rows.tolist(),
                strict=True,
            )
        ]

    def compose(
        self, target: "Target", probe: "Probe", trainer: TrainerFactory
    ) -> "dict[str, tuple[Composed, Exemplars]]":
        """Layer -> the best formula of all its units, and their exemplars; from the store where they are there."""
        segmentation = segmentation_of(probe, self.categories)
        tails = thresholds(target, probe, trainer, self.quantile, k=self.n_evidence, whole_images=self.whole_images)
        rows, runner = probe.split("train", "val"), trainer()
        how = [self.length, self.beam, self.penalty, self.published_length]

        def places() -> dict[str, Entry]:
            keys = {
                layer: content_key(target, layer, probe, runner, one, segmentation, self.grid, rows)
                for layer, one in tails.items()
            }
            return {layer: entry("formulas", {**key, "search": how}) for layer, key in keys.items()}

        published, drafts = open_or_draft(places)
        if drafts:
            todo = {layer: tails[layer] for layer in drafts}
            patterns = self._gather(target, probe, trainer, todo, segmentation)
            published |= on_first(
                lambda: {
                    layer: draft.publish(packed(vars(self.best(patterns[layer])))) for layer, draft in drafts.items()
                }
            )
        return {layer: (Composed(**published[layer].tensors()), one) for layer, one in tails.items()}

    def best(self, patterns: Patterns) -> Composed:
        """The best formula of each unit, and its best concept."""
        beams = search(patterns, self.length, self.beam, self.penalty, self.published_length)
        first, last = beams[0], beams[-1]
        return Composed(
            concepts=last.concepts[:, 0],
            operators=last.operators[:, 0],
            iou=last.iou(patterns.fires)[:, 0].where(last.score[:, 0] > 0, 0.0),
            score=last.score[:, 0],
            single=first.concepts[:, 0, 0],
            single_iou=first.score[:, 0],
        )

    def _gather(
        self,
        target: "Target",
        probe: "Probe",
        trainer: TrainerFactory,
        tails: "dict[str, Exemplars]",
        segmentation: Segmentation,
    ) -> dict[str, Patterns]:
        made = {layer: Gathering(len(one.units), len(segmentation.names)) for layer, one in tails.items()}
        runner = scan(
            target,
            probe,
            trainer,
            tails,
            segmentation,
            lambda layer, counts, regions: made[layer].add(counts, regions),
            grid=self.grid,
        )
        return {layer: one.result(runner) for layer, one in made.items()}


def cells(found: Composed, segmentation: Segmentation) -> tuple[list[str], list[list[Cell]]]:
    """Columns and cells of the published layout, units from 0, best first; a category is the first concept's."""
    columns = ["unit", "category", "label", "score", "length"]
    columns += [f"{name}_noncomp" for name in ("category", "label", "score")]
    labels, kinds = segmentation.labels, [segmentation.categories[g] for g in segmentation.category.tolist()]
    body: list[list[Cell]] = []
    for unit in torch.sort(found.score, descending=True, stable=True).indices.tolist():
        concepts, operators = found.concepts[unit].tolist(), found.operators[unit].tolist()
        scores = round(float(found.score[unit]), DIGITS), round(float(found.single_iou[unit]), DIGITS)
        if concepts[0] < 0:
            body.append([unit, None, None, 0.0, 0, None, None, 0.0])
            continue
        single, length = int(found.single[unit]), sum(c >= 0 for c in concepts)
        text = as_published(concepts, operators, labels)
        body.append([unit, kinds[concepts[0]], text, scores[0], length, kinds[single], labels[single], scores[1]])
    return columns, body
