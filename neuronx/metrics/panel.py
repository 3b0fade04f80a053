"""A panel of metrics of explanations, from one pass over activations and what the explanations predict.

Definitions are those of Oikarinen et al., *Evaluating Neuron Explanations* (ICML 2025), and of CoSy (Kopf et al.,
NeurIPS 2024), with ties at their middle ranks. The activation a is the truth; the concept c in [0, 1], or the
prediction of a formula, is what predicts it. A unit is active on its ceil(alpha N) strongest pictures.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from neuronx.errors import UserError, unknown
from neuronx.metrics.correlation import Moments, moments, pearson
from neuronx.metrics.counts import LEAST, Counts, of_sets
from neuronx.metrics.ranks import Ties, ascending, auroc_and_precision, rank_correlation, spearman_rows, ties

METRICS = {
    "correlation": "Pearson(a, c)",
    "auprc": "average precision of c for the active pictures",
    "f1": "2 TP / (2 TP + FP + FN)",
    "iou": "TP / (active + shown - TP)",
    "cosine": "<a, c> / |a| |c|",
    "cosy_auc": "AUROC of a for the pictures that show the concept, as in CoSy",
    "cosy_mad": "(mean of a where shown - mean of a elsewhere) / deviation elsewhere, as in CoSy",
    "recall": "TP / active",
    "precision": "TP / shown",
    "accuracy": "(TP + TN) / N",
    "balanced_accuracy": "(TP / active + TN / inactive) / 2",
    "inverse_balanced_accuracy": "(TP / shown + TN / not shown) / 2",
    "auc": "AUROC of c for the active pictures",
    "inverse_auc": "AUROC of a for the pictures that show the concept",
    "inverse_auprc": "average precision of a for the pictures that show the concept",
    "spearman": "Pearson of middle ranks",
    "wpmi": "mean of ln c over the active pictures - lambda ln(mean of c)",
    "mad": "mean of a where shown - mean of a elsewhere",
    "correlation_top_random": "Pearson on 25 of the strongest .2 % and 25 random pictures",
    "spearman_top_random": "Spearman on the same pictures",
}
"""Name -> formula."""

TOP, SAMPLES = 0.002, 25
"""Share of the strongest pictures, and pictures drawn from these and from all, of the top-and-random metrics."""

AT_A_TIME = 2**18
"""Numbers that are looked at together: they stay in the processor's cache."""


@dataclass(frozen=True)
class RankedUnits:
    """Activations of K units on N pictures, sorted once for whatever is compared with them.

    Attributes:
        values: (K, N) float32 or float64.
        order: (K, N) int32, the pictures from the weakest to the strongest.
        least: (K,) activation from which on a unit is active; ties at it all are.
        n_active: (K,) int64, so many pictures.
    """

    values: Tensor
    order: Tensor
    least: Tensor
    n_active: Tensor

    def units(self, kept: Tensor) -> "RankedUnits":
        """Some of the units."""
        return RankedUnits(self.values[kept], self.order[kept], self.least[kept], self.n_active[kept])


@dataclass(frozen=True)
class Predictions:
    """What explanations of K units predict on N pictures, and where these count as showing the concept.

    Attributes:
        values: (K, N) float64.
        low: (K,) prediction that stands for a concept of 0.
        high: (K,) for a concept of 1.
        cut: (K,) prediction from which on a picture shows the concept; NaN for the ceil(alpha N) strongest predictions.
        negated: (K,) bool, whether the concept of one word is said to silence the unit; its pictures are then those
            that do not show it, and CoSy's control are those that do not show the word.
    """

    values: Tensor
    low: Tensor
    high: Tensor
    cut: Tensor
    negated: Tensor


def of_concepts(concepts: Tensor) -> Predictions:
    """Predictions that are concepts (K, N) in [0, 1], shown where they are at least one half."""
    one = torch.ones(len(concepts), dtype=torch.float64)
    return Predictions(concepts.double(), 0 * one, one, one / 2, torch.zeros(len(concepts), dtype=torch.bool))


def panel(
    activations: Tensor,
    concepts: Tensor,
    metrics: Collection[str] = tuple(METRICS),
    *,
    alpha: float = 0.05,
    wpmi_lambda: float = 1.0,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Scores of K pairs of a unit and a concept, each metric as in `METRICS`.

    Args:
        activations: (N, K).
        concepts: (N, K) in [0, 1]: labels, or probabilities of a judge.
        metrics: Names.
        alpha: Share of the pictures on which a unit is active.
        wpmi_lambda: Weight of how common the concept is, 0 to 1.
        seed: Of the pictures that top-and-random metrics draw.

    Returns:
        Name -> (K,) float64. NaN for a unit that never changes or is no number somewhere, and where a metric is not
        defined, such as AUROC over pictures that all show the concept.

    Raises:
        UserError: Other shapes, or an unknown metric.
    """
    if activations.ndim != 2 or activations.shape != concepts.shape or not activations.shape[0]:
        shapes = f"{tuple(activations.shape)} and {tuple(concepts.shape)}"
        raise UserError(f"Activations and concepts must be of one shape, pictures x units; they are {shapes}.")
    for name in metrics:
        if name not in METRICS:
            raise unknown("metric", name, METRICS)
    units, said = ranked(activations.T.contiguous(), alpha), of_concepts(concepts.T.contiguous())
    return compare_units(units, said, metrics, alpha=alpha, wpmi_lambda=wpmi_lambda, seed=seed)


def at_most(alpha: float, n: int) -> int:
    """ceil(alpha n), at least 1."""
    return max(1, math.ceil(round(alpha * n, 6)))


def active_from(rising: Tensor, k: int) -> Tensor:
    """The value (K,) from which on the k strongest of sorted rows (K, N) are taken; inf in a constant row.

    Ties all are, but never the lowest value: a rectified unit that fires on fewer pictures is active where it fires.
    """
    cut, lowest = rising[:, -k], rising[:, 0]
    if not (floored := cut == lowest).any():
        return cut
    above = torch.where(rising > lowest[:, None], rising, math.inf).amin(1)
    return torch.where(floored, above, cut)


def ranked(activations: Tensor, alpha: float = 0.05) -> RankedUnits:
    """Sorts activations (K, N)."""
    k = at_most(alpha, activations.shape[1])
    order = torch.empty(activations.shape, dtype=torch.int32)
    least, active = activations.new_empty(len(activations)), torch.empty(len(activations), dtype=torch.int64)
    for some in parts(activations):
        values = activations[some]
        by_value = ascending(values)
        rising = values.gather(1, by_value)
        order[some], least[some] = by_value.int(), active_from(rising, k)
        active[some] = activations.shape[1] - torch.searchsorted(rising, least[some, None])[:, 0]
    return RankedUnits(activations, order, least, active)


def parts(rows: Tensor) -> list[slice]:
    """Rows of (K, N) to look at together."""
    step = max(1, AT_A_TIME // max(1, rows.shape[1]))
    return [slice(start, start + step) for start in range(0, len(rows), step)]


def compare_units(
    units: RankedUnits,
    said: Predictions,
    metrics: Collection[str] = tuple(METRICS),
    *,
    columns: Tensor | None = None,
    alpha: float = 0.05,
    wpmi_lambda: float = 1.0,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Scores of P pairs of a unit and a prediction, as `panel`, whose other arguments these are.

    Args:
        units: K of them.
        said: P predictions.
        metrics: Names.
        columns: (P,) the unit of each prediction; all units in their order where it is None.
        alpha: As `units` were sorted with.
        wpmi_lambda: As in `panel`.
        seed: As in `panel`.
    """
    columns = torch.arange(len(units.values)) if columns is None else columns
    found = {name: torch.full((len(columns),), math.nan, dtype=torch.float64) for name in metrics}
    sample = TopAndRandom.drawn(units.values.shape[1], seed)
    for some in parts(said.values):
        of = units.units(columns[some])
        part = Predictions(said.values[some], *(one[some] for one in (said.low, said.high, said.cut, said.negated)))
        scores = _some(of, part, sample, set(metrics), alpha, wpmi_lambda)
        for name in metrics:
            found[name][some] = scores[name]
    return found


def _some(
    units: RankedUnits, said: Predictions, sample: "TopAndRandom", wanted: set[str], alpha: float, wpmi_lambda: float
) -> dict[str, Tensor]:
    """Scores of a few pairs. Pictures stand in the order of the activation, so that the active ones are the last."""
    n = units.values.shape[1]
    order = units.order.long()
    a, s = units.values.gather(1, order), said.values.gather(1, order)
    of_both = moments(s, a)
    tied = ties(a)
    found = {"correlation": pearson(of_both), "cosine": cosine(of_both)}
    if wanted & {"auc", "auprc", "spearman"} or said.cut.isnan().any():
        by_prediction = ascending(s)
        rising = s.gather(1, by_prediction)
        tied_s = ties(rising)
        found["auc"], found["auprc"] = auroc_and_precision(by_prediction >= (n - units.n_active)[:, None], tied_s)
        if "spearman" in wanted:  # a constant prediction knows nothing
            found["spearman"] = rank_correlation(by_prediction, tied_s, tied).nan_to_num(0)
        cut = torch.where(said.cut.isnan(), active_from(rising, at_most(alpha, n)), said.cut)
    else:
        cut = said.cut
    shown = s >= cut[:, None]
    found |= _sets(a, s, shown, units, said, of_both, wpmi_lambda)
    if wanted & {"cosy_auc", "inverse_auc", "inverse_auprc"}:
        found["inverse_auc"], found["inverse_auprc"] = auroc_and_precision(shown, tied)
        found["cosy_auc"] = found["inverse_auc"]
    if wanted & {"correlation_top_random", "spearman_top_random"}:
        found |= sample.scores(a, s, order, units.values, said.values, tied)
    undefined = ~(of_both.x + of_both.y).isfinite() | (of_both.yy == 0)
    return {name: torch.where(undefined, math.nan, found[name].double()) for name in wanted}


def cosine(m: Moments) -> Tensor:
    """Cosine (K,) of the vectors whose moments these are; norms are at least 1e-9."""
    product = m.xy + m.n * m.x * m.y
    return product / ((m.xx + m.n * m.x**2).sqrt().clamp(min=1e-9) * (m.yy + m.n * m.y**2).sqrt().clamp(min=1e-9))


def _sets(
    a: Tensor, s: Tensor, shown: Tensor, units: RankedUnits, said: Predictions, m: Moments, wpmi_lambda: float
) -> dict[str, Tensor]:
    """What follows from the pictures that are active and those that show the concept."""
    n = a.shape[1]
    most = int(units.n_active.max())
    is_active = torch.arange(n - most, n) >= (n - units.n_active)[:, None]  # of the last `most` pictures
    n_shown = shown.sum(1).double()
    both = (shown[:, n - most :] & is_active).sum(1).double()
    found = of_sets(Counts(both, units.n_active.double(), n_shown, float(n)))

    span = said.high - said.low
    span = torch.where(span > 0, span, 1)
    concept = ((s[:, n - most :] - said.low[:, None]) / span[:, None]).clamp(LEAST, 1).log()
    common = ((m.x - said.low) / span).clamp(LEAST, 1).log()
    found["wpmi"] = (concept * is_active).sum(1) / units.n_active - wpmi_lambda * common

    centred, where = a - m.y[:, None], shown.double()
    weighed = centred * where
    total, squares = weighed.sum(1), (weighed * centred).sum(1)
    where_shown, elsewhere = total / n_shown, -total / (n - n_shown)
    found["mad"] = torch.where((n_shown > 0) & (n_shown < n), where_shown - elsewhere, math.nan)
    size = torch.where(said.negated, n_shown, n - n_shown)
    left = (
        torch.where(said.negated, squares, m.yy - squares)
        - size * torch.where(said.negated, where_shown, elsewhere) ** 2
    )
    varies = (left > 1e-13 * m.yy) & (size > 1)  # above rounding
    deviation = torch.where(varies, left / (size - 1), 1).sqrt()
    found["cosy_mad"] = torch.where(varies | found["mad"].isnan(), found["mad"] / deviation, 0.0)
    return found


@dataclass(frozen=True)
class TopAndRandom:
    """The pictures that top-and-random metrics look at, the same for all units.

    Attributes:
        keys: (N,) a random number for each picture, which orders those that tie.
        places: (T,) of the strongest pictures, counted from the strongest.
        random: (R,) pictures among all.
    """

    keys: Tensor
    places: Tensor
    random: Tensor

    @classmethod
    def drawn(cls, n: int, seed: int) -> "TopAndRandom":
        """25 of the strongest ceil(.002 n) and 25 of all, or all of them where there are fewer."""
        draw = torch.Generator().manual_seed(seed)
        keys = torch.rand(n, generator=draw)
        top = torch.randperm(at_most(TOP, n), generator=draw)[:SAMPLES]
        return cls(keys, top, torch.randperm(n, generator=draw)[:SAMPLES])

    def scores(
        self, a: Tensor, s: Tensor, order: Tensor, activations: Tensor, predictions: Tensor, tied: Ties | None
    ) -> dict[str, Tensor]:
        """Pearson's and Spearman's correlations; `a` and `s` (K, N) stand in the order of the activation."""
        n, top = a.shape[1], at_most(TOP, a.shape[1])
        places = (n - 1 - self.places).expand(len(a), -1)
        if tied is not None and top < n:
            cut = a[:, n - top, None]
            some = (cut == a[:, n - top - 1, None])[:, 0].nonzero()[:, 0]
            if len(some):  # those that tie at the end of the strongest have equal chances
                level, keys = a[some], self.keys[order[some]]
                above = torch.where(level > cut[some], 1 + keys, torch.where(level == cut[some], keys, -1.0))
                places = places.clone()
                places[some] = above.topk(top).indices[:, self.places]
        x = torch.cat((s.gather(1, places), predictions[:, self.random]), 1)
        y = torch.cat((a.gather(1, places), activations[:, self.random]), 1).double()
        ranks = spearman_rows(x, y)
        pearson_found = pearson(moments(x, y))
        # A constant prediction knows nothing.
        ranks = torch.where(pearson_found.isfinite() & ranks.isnan(), 0.0, ranks)
        return {"correlation_top_random": pearson_found, "spearman_top_random": ranks}
