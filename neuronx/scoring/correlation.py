"""`sim=correlation`: the score of an explanation is how well its simulation correlates with the unit on test images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from neuronx.metrics.correlation import empty, merge, moments, pearson
from neuronx.options import Count
from neuronx.progress import progress
from neuronx.scoring.predictors import JudgedConcepts, Predictor, WeightedConcepts
from neuronx.scoring.rows import MethodRows
from neuronx.scoring.simulation import Simulation
from neuronx.types import Activations


@dataclass(frozen=True)
class Correlation(Simulation):
    """Simulates explanations on the test images and correlates them with the units, beside baselines and upper bound.

    A unit is inactive when it never changes on the test images, or its explanation is empty and it never changes on
    train and val; unjudged when its explanation has an atom that the judge does not know; untested when the test images
    do not differ in any concept of its explanation, as where none shows it; broken when it or its prediction is NaN or
    infinite on some image. None of these has a score. An empty explanation of any other unit predicts a constant and
    scores 0. Options are those of `TableOptions`.

    A unit that is explained in parts is predicted by their sum (`rows_of_sums`); the parts themselves, scored as units
    that the network might have, have rows of their own, `<method>-parts`.
    """

    def compared(
        self,
        methods: Sequence[MethodRows[Predictor]],
        concepts: JudgedConcepts,
        recorded: Mapping[str, Activations],
        test: Tensor,
    ) -> dict[str, list[Tensor]]:
        """The correlations of each method's rows, from one pass over the test images."""
        values = {layer: activations.values for layer, activations in recorded.items()}
        predictors = [
            method.predictor.scaled() if isinstance(method.predictor, WeightedConcepts) else method.predictor
            for method in methods
        ]
        return {"correlation": correlate(predictors, concepts, values, test, self.batch_size)}


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
