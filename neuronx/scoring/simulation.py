"""Explanations simulated on the test images and compared with the units, by correlation or by the panel."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from neuronx.metrics.correlation import correlation_sem
from neuronx.recording.record import record
from neuronx.scoring.predictors import JudgedConcepts, Predictor
from neuronx.scoring.rows import MethodRows, TableOptions, layers_of, parts_apart, rows_of_sums
from neuronx.types import Activations, Explanation, Judge, Score, Scores, TrainerFactory

if TYPE_CHECKING:
    from neuronx.data.probe import Probe
    from neuronx.targets.target import Target


@dataclass(frozen=True)
class Simulation(TableOptions):
    """Compares what explanations predict on the test images with what the units do, by metrics that a subclass names.

    Attributes:
        undefined: The status of a score that is no finite number; `ok` leaves it to `Score`, which calls it broken.
    """

    undefined: ClassVar[str] = "ok"

    @abstractmethod
    def compared(
        self,
        methods: Sequence[MethodRows[Predictor]],
        concepts: JudgedConcepts,
        recorded: Mapping[str, Activations],
        test: Tensor,
    ) -> dict[str, list[Tensor]]:
        """Metric -> for each method the scores (P,) of the rows that can be scored, NaN where undefined.

        Args:
            methods: Rows and what they predict.
            concepts: As the judge sees them.
            recorded: Activations by layer.
            test: Rows of the test images.
        """

    def score(
        self,
        explained: Mapping[str, Sequence[Explanation]],
        target: "Target",
        probe: "Probe",
        judge: Judge,
        trainer: TrainerFactory,
        words: Sequence[str] = (),
    ) -> Scores:
        """Scores explanations of several methods, of any layers of the target, as `Scorer.score` says.

        Test images give the scores, train and val fit the upper bound.

        Raises:
            UserError: Explanations of an unknown layer or unit, two for one unit, or broken formulas.
        """
        recorded = record(target, probe, trainer, layers=layers_of(explained, target))
        return self.score_recorded(explained, recorded, target.name, probe, judge, trainer, words)

    def score_recorded(
        self,
        explained: Mapping[str, Sequence[Explanation]],
        recorded: Mapping[str, Activations],
        target: str,
        probe: "Probe",
        judge: Judge,
        trainer: TrainerFactory,
        words: Sequence[str] = (),
    ) -> Scores:
        """Scores as `score` does, from activations by layer; `target` is the network's name."""
        test = probe.split("test")
        table = self.table(parts_apart(explained), recorded, probe, judge, trainer, words)
        sums = rows_of_sums(table, recorded, probe.split("train", "val"), self.batch_size)
        methods: list[MethodRows[Predictor]] = [*table.methods, *sums]
        images = f"{probe.name}/test:{len(test)}"
        scores: list[Score] = []
        for metric, found in self.compared(methods, table.concepts, recorded, test).items():
            for method, values in zip(methods, found, strict=True):
                sems = correlation_sem(values, len(test)) if metric == "correlation" else values * torch.nan
                status = ["ok" if defined else self.undefined for defined in values.isfinite().tolist()]
                results = zip(values.tolist(), sems.tolist(), status, strict=True)
                scores += method.scores(results, metric, target, recorded[method.layer].pool, judge.name, images)
        return Scores(scores)
