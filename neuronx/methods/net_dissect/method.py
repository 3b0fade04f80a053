"""Network Dissection as a method: each unit is called after the concept whose pixels it fires on."""

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from neuronx.errors import UserError, unknown
from neuronx.methods.net_dissect.dissect import Options, dissect
from neuronx.methods.net_dissect.table import cells, dissected
from neuronx.methods.net_dissect.tally import DENOMINATORS, Tally
from neuronx.types import Explanation, Found, Table, TrainerFactory

if TYPE_CHECKING:
    from neuronx.data.probe import Probe
    from neuronx.recording.exemplars import Exemplars
    from neuronx.targets.target import Target

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class NetDissect(Options):
    """Labels each unit with the concept whose pixels overlap most with where it fires (Bau et al., CVPR 2017).

    An explanation's one term is that concept, with weight 1; its notes are the `iou`, and `detector`, which is 1 for a
    unit whose IoU is above the threshold; its evidence the images of train and val where the unit peaks. A unit that
    never exceeds its own threshold, or meets no concept where it does, has no terms.

    Published variants: denominator="hit" is NetDissect-Lite (its quantile is 5/999, element 994 of 1,000);
    denominator="all" with quantile=.01 is the implementation of 2020. The tables published with CLIP-Dissect also count
    label 0, "nothing labelled", as a texture; here it is no concept.

    Attributes:
        denominator: Over which images a unit's own area is taken: annotated, hit or all (see `tally.py`).
        threshold: IoU above which a unit is a detector.
    """

    denominator: str = "annotated"
    threshold: float = 0.04

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.denominator not in DENOMINATORS:
            raise unknown("denominator of Network Dissection", self.denominator, DENOMINATORS)
        if not 0 <= self.threshold < 1:
            raise UserError(f"explain.net_dissect.threshold is {self.threshold}; an IoU is at least 0 and below 1.")

    def explain(self, target: "Target", probe: "Probe", trainer: TrainerFactory) -> Found:
        """Labels the units asked for, from the train and val images; the tables are published tallies, one a layer.

        Raises:
            UserError: For images without pixel labels, a layer without positions, a quantile out of range.
        """
        explanations: list[Explanation] = []
        tables: dict[str, Table] = {}
        for layer, (tally, exemplars) in self.dissect(target, probe, trainer).items():
            units, concepts = tally.best(self.denominator).detectors(self.threshold)
            log.info(
                "%s %s: %d of %d units are detectors (IoU > %g) of %d concepts",
                *(target.name, layer, units, len(tally.fires), self.threshold, concepts),
            )
            labelled = self.explain_layer(tally, exemplars)
            explanations += [explanation for explanation in labelled if target.asks_for(explanation.unit)]
            tables[f"tally_{target.name}_{layer}.csv"] = cells(dissected(tally, self.denominator))
        return Found(explanations, tables)

    def dissect(
        self, target: "Target", probe: "Probe", trainer: TrainerFactory
    ) -> "dict[str, tuple[Tally, Exemplars]]":
        """Layer -> the tally of all its units, and their exemplars; from the store where they are there."""
        return dissect(
            target,
            probe,
            trainer,
            quantile=self.quantile,
            grid=self.grid,
            categories=self.categories,
            whole_images=self.whole_images,
            k=self.n_evidence,
        )

    def explain_layer(self, tally: Tally, exemplars: "Exemplars") -> list[Explanation]:
        """Labels all units of one layer."""
        best = tally.best(self.denominator)
        return [
            Explanation(
                unit,
                ((tally.names[concept], 1.0),),
                evidence=tuple(rows),
                notes=(("iou", iou), ("detector", float(iou > self.threshold))),
            )
            if concept >= 0
            else Explanation(unit, ())
            for unit, concept, iou, rows in zip(
                exemplars.units, best.concept.tolist(), best.iou.tolist(), exemplars.rows.tolist(), strict=True
            )
        ]
