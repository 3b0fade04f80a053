"""`sim=panel`: explanations scored by every metric of the panel in one pass, beside floors and ceiling."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from neuronx.errors import UserError, unknown
from neuronx.metrics.panel import METRICS, Predictions, RankedUnits, compare_units, ranked
from neuronx.options import OpenShare, Share
from neuronx.scoring.correlation import Correlation
from neuronx.scoring.predictors import JudgedConcepts, Predictor, WeightedConcepts
from neuronx.scoring.rows import MethodRows
from neuronx.scoring.simulation import Simulation
from neuronx.types import Activations, Scorer


@dataclass(frozen=True)
class Panel(Simulation):
    """Simulates explanations on the test images and compares them with the units by several metrics.

    The prediction of an explanation of one word shows the word where the judge gives it at least one half; that of a
    word with a negative weight where it does not. A formula of several terms has no such scale: it counts as shown on
    the alpha N images that it predicts to be strongest. Correlations, cosine, AUC and AUPRC look at the prediction as
    it is. Statuses are those of `Correlation`; a metric that is not defined for a unit, such as an AUC over images that
    all show its concept, leaves it untested.

    Attributes:
        metrics: Names of `neuronx.metrics.panel.METRICS`; all where null.
        alpha: Share of the images, the strongest, on which a unit is active. As published .005 for hidden layers, of
            50,000 images.
        wpmi_lambda: How much WPMI takes off for concepts that many images show.
    """

    metrics: Sequence[str] | None = None
    alpha: OpenShare = 0.05
    wpmi_lambda: Share = 1.0
    undefined: ClassVar[str] = "untested"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.metrics or ():
            if name not in METRICS:
                raise unknown("metric", name, METRICS)
        if self.metrics is not None and not self.metrics:
            raise UserError("sim.panel.metrics=[] names no metric; leave it out for all of them.")

    def compared(
        self,
        methods: Sequence[MethodRows[Predictor]],
        concepts: JudgedConcepts,
        recorded: Mapping[str, Activations],
        test: Tensor,
    ) -> dict[str, list[Tensor]]:
        """Metric -> the scores of each method's rows, from one pass over the test images."""
        seen = concepts.all_scores(test, self.batch_size)
        units: dict[str, RankedUnits] = {}
        found: list[dict[str, Tensor]] = []
        for method in methods:
            if method.layer not in units:
                units = {method.layer: ranked(recorded[method.layer].values[test].T.contiguous(), self.alpha)}
            found.append(self.compare(method, units[method.layer], seen))
        return {name: [one[name] for one in found] for name in (found[0] if found else ())}

    @torch.no_grad()
    def compare(self, method: MethodRows[Predictor], units: RankedUnits, concepts: Tensor) -> dict[str, Tensor]:
        """Metric -> scores (P,) of the rows of a method that can be scored, from what the judge sees (C, N)."""
        return compare_units(
            units,
            predictions(method, concepts),
            self.metrics or tuple(METRICS),
            columns=method.predictor.columns,
            alpha=self.alpha,
            wpmi_lambda=self.wpmi_lambda,
            seed=self.seed,
        )


def predictions(method: MethodRows[Predictor], concepts: Tensor) -> Predictions:
    """What the rows of a method that can be scored predict from concepts (C, N), and where they count as shown.

    The concept of one word w times c + b is c where w is positive, else 1 - c; any other prediction is taken from its
    lowest to its highest value.
    """
    predictor = method.predictor
    said = predictor.scaled() if isinstance(predictor, WeightedConcepts) else predictor
    values = said.predict_all(concepts)
    k = len(values)
    weight, bias = torch.zeros(k, dtype=torch.float64), torch.zeros(k, dtype=torch.float64)
    if isinstance(said, WeightedConcepts) and said.concepts.ndim == 2 and said.concepts.shape[1]:
        terms = torch.tensor([len(row.explanation.terms) for row in method.rows if row.status == "ok"])
        weight, bias = torch.where(terms == 1, said.weights[:, 0], 0), said.bias
    one_word = weight != 0
    low, high = values.amin(1), values.amax(1)
    return Predictions(
        values,
        low=torch.where(one_word, bias + weight.clamp(max=0), low),
        high=torch.where(one_word, bias + weight.clamp(min=0), high),
        cut=torch.where(one_word, bias + weight / 2, torch.nan),
        negated=weight < 0,
    )


def in_one_pass(sims: Mapping[str, Scorer]) -> dict[str, Scorer]:
    """The ways to score, panels that differ in nothing but their metrics as one; correlation is scored once."""
    joined: dict[str, Scorer] = {}
    for name, sim in sims.items():
        same = next((one for one, other in joined.items() if _alike(sim, other)), None)
        if same is None:
            joined[name] = sim
        else:
            metrics = [*_metrics(joined[same]), *_metrics(sim)]
            joined[same] = replace(joined[same], metrics=tuple(dict.fromkeys(metrics)))  # type: ignore[type-var]
    if any(isinstance(sim, Correlation) for sim in joined.values()):
        for name, sim in joined.items():
            if isinstance(sim, Panel):
                rest = tuple(metric for metric in _metrics(sim) if metric != "correlation")
                joined[name] = replace(sim, metrics=rest or ("correlation",))
    return joined


def _alike(sim: Scorer, other: Scorer) -> bool:
    both = isinstance(sim, Panel) and isinstance(other, Panel)
    return both and replace(sim, metrics=None) == replace(other, metrics=None)  # type: ignore[type-var]


def _metrics(sim: Scorer) -> tuple[str, ...]:
    return tuple((sim.metrics if isinstance(sim, Panel) else None) or METRICS)
