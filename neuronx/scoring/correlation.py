"""`sim=correlation`: the score of an explanation is how well its simulation correlates with the unit on test images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neuronx.metrics.correlation import correlation_sem, empty, merge, moments, pearson
from neuronx.options import Count
from neuronx.progress import progress
from neuronx.recording.record import record
from neuronx.scoring.predictors import JudgedConcepts, Predictor, WeightedConcepts
from neuronx.scoring.rows import MethodRows, TableOptions, layers_of, parts_apart, rows_of_sums
from neuronx.types import Activations, Explanation, Judge, Score, Scores, TrainerFactory

if TYPE_CHECKING:
    from neuronx.data.probe import Probe
    from neuronx.targets.target import Target


@dataclass(frozen=True)
class Correlation(TableOptions):
    """Simulates explanations on the test images and correlates them with the units, beside baselines and upper bound.

    A unit is inactive when it never changes on the test images, or its explanation is empty and it never changes on
    train and val; unjudged when its explanation has an atom that the judge does not know; untested when the test images
    do not differ in any concept of its explanation, as where none shows it; broken when it or its prediction is NaN or
    infinite on some image. None of these has a score. An empty explanation of any other unit predicts a constant and
    scores 0. Options are those of `TableOptions`.

    A unit that is explained in parts is predicted by their sum (`rows_of_sums`); the parts themselves, scored as units
    that the network might have, have rows of their own, `<method>-parts`.
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
        values = {layer: activations.values for layer, activations in recorded.items()}
        predictors = [
            method.predictor.scaled() if isinstance(method.predictor, WeightedConcepts) else method.predictor
            for method in methods
        ]
        images = f"{probe.name}/test:{len(test)}"
        scores: list[Score] = []
        for method, r in zip(
            methods, correlate(predictors, table.concepts, values, test, self.batch_size), strict=True
        ):
            results = zip(r.tolist(), correlation_sem(r, len(test)).tolist(), ["ok"] * len(r), strict=True)
            pool = recorded[method.layer].pool
            scores += method.scores(results, "correlation", target, pool, judge.name, images)
        return Scores(scores)


@torch.no_grad()
def correlate(
    predictors: Sequence[Predictor],
    concepts: JudgedConcepts,
    activations: Mapping[str, Tensor],
    rows: Tensor,
    batch_size: Count = 128,
) -> list[Tensor]:
    """Correlates predictions with activations in one pass over some images: the judge sees each concept once.

    All numbers are recorded already, so each process goes through all images, and all find the same.

    Args:
        predictors: Their concepts count in `concepts`.
        concepts: As the judge sees them.
        activations: Layer -> (N, K) float32, of all images.
        rows: The images to look at.
        batch_size: Images at a time.

    Returns:
        For each predictor the correlation of each unit, (K,) float64; NaN for a unit that never changed.
    """
    total = [empty(len(predictor.columns)) for predictor in predictors]
    for batch, scores in progress(concepts.batches(rows, batch_size), "simulating units", -(-len(rows) // batch_size)):
        actual = {
            layer: activations[layer][batch].T.double().contiguous()
            for layer in dict.fromkeys(predictor.layer for predictor in predictors)
        }
        for k, predictor in enumerate(predictors):
            simulated, units = predictor.predict(scores), actual[predictor.layer][predictor.columns]
            total[k] = merge(total[k], moments(simulated, units))
    return [pearson(found) for found in total]
