"""Sanity checks of metrics: a score must fall where labels are missing, and where there are labels too many.

Both checks, and what they found, are those of Oikarinen et al., *Evaluating Neuron Explanations* (ICML 2025): a concept
c loses each of its pictures with probability 1/2, or gains others at random until their number has doubled. A metric
passes when at least 90 % of units score lower by more than a thousandth of its range.
"""

from collections.abc import Mapping

PASSES = 90.0
"""Percent of units that must score lower, in each check."""

PUBLISHED: Mapping[str, tuple[float, float, float, float]] = {
    "recall": (98.66, 100, 0, 0),
    "precision": (45.73, 0, 99.81, 100),
    "f1": (93.68, 100, 99.82, 100),
    "iou": (93.62, 100, 99.81, 100),
    "accuracy": (23.79, 60, 70.37, 69.68),
    "balanced_accuracy": (98.65, 100, 53.67, 60),
    "inverse_balanced_accuracy": (64.18, 60, 99.50, 100),
    "auc": (94.96, 100, 59.18, 60),
    "inverse_auc": (52.81, 60, 99.99, 100),
    "correlation": (99.41, 100, 99.92, 100),
    "correlation_top_random": (87.83, 100, 60.26, 43.64),
    "spearman": (64.05, 67.20, 49.21, 44.08),
    "spearman_top_random": (80.04, 100, 59.81, 19.68),
    "cosine": (99.45, 100, 99.26, 100),
    "wpmi": (95.89, 100, 58.84, 100),
    "mad": (59.81, 60, 99.34, 100),
    "auprc": (95.61, 100, 99.46, 100),
    "inverse_auprc": (99.15, 100, 95.58, 89.54),
}
"""Percent of units that score lower: missing labels, in eight experiments and in theory; extra labels, likewise."""

SAME_AS = {"cosy_auc": "inverse_auc", "cosy_mad": "mad"}
"""CoSy's metrics by the name under which they were checked; its MAD there has no deviation to divide by."""


def failed(metric: str) -> tuple[str, ...] | None:
    """The checks that a metric fails as published, missing labels or extra labels; None for one that was not checked.

    Spearman's theoretical cells are an artefact of ties broken at random, but its experimental ones fail as well.
    """
    cells = PUBLISHED.get(SAME_AS.get(metric, metric))
    if cells is None:
        return None
    return tuple(check for check, some in (("missing", cells[:2]), ("extra", cells[2:])) if min(some) < PASSES)


def verdict(metric: str) -> str:
    """Whether a metric passes the sanity checks, as tables say it: `passes`, `fails missing`, ...; "" if unchecked."""
    checks = failed(metric)
    if checks is None:
        return ""
    return "fails " + " and ".join(checks) if checks else "passes"
