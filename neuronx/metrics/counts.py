"""Metrics of two sets of pictures, those where a unit is active and those that show its concept, from their counts.

The activation is the truth and the concept is what predicts it (Oikarinen et al., *Evaluating Neuron Explanations*,
ICML 2025): recall is the share of active pictures that show the concept.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

LEAST = 1e-8
"""Of a concept, in the logarithm of WPMI."""


@dataclass(frozen=True)
class Counts:
    """How many pictures are active and show the concept, for K pairs; all float64 of one shape.

    Attributes:
        both: Pictures that are active and show the concept.
        active: Pictures that are active.
        shown: Pictures that show the concept.
        n: All pictures.
    """

    both: Tensor
    active: Tensor
    shown: Tensor
    n: Tensor | float

    @property
    def neither(self) -> Tensor:
        """Pictures that are not active and do not show the concept."""
        return self.n - self.active - self.shown + self.both


def of_sets(c: Counts) -> dict[str, Tensor]:
    """Recall, precision, F1, IoU, accuracy, balanced and inverse balanced accuracy, as published; recall 0/0 is NaN."""
    tp, tn, inactive, absent = c.both, c.neither, c.n - c.active, c.n - c.shown
    either = c.active + c.shown
    return {
        "recall": tp / torch.where(c.active > 0, c.active, math.nan),
        "precision": tp / c.shown.clamp(min=1),
        "f1": 2 * tp / torch.where(either > 0, either, math.nan),
        "iou": tp / torch.where(either > 0, either - tp, math.nan),
        "accuracy": (tp + tn) / c.n,
        "balanced_accuracy": (tp / c.active.clamp(min=1) + tn / inactive.clamp(min=1)) / 2,
        "inverse_balanced_accuracy": (tp / c.shown.clamp(min=1) + tn / absent.clamp(min=1)) / 2,
    }


def of_binary(c: Counts, wpmi_lambda: float = 1.0) -> dict[str, Tensor]:
    """Every metric of `panel.METRICS` without samples, of an activation and a concept that are 0 or 1 on each picture.

    With ties at their middle ranks AUROC is balanced accuracy, and Spearman's correlation is Pearson's. Correlations of
    a constant concept are 0, as in `correlation.pearson`.
    """
    found = of_sets(c)
    tp, ratio = c.both, c.active / c.n
    spread = (c.active * (c.n - c.active)).sqrt() * (c.shown * (c.n - c.shown)).sqrt()
    constant = torch.where((c.active > 0) & (c.active < c.n), 0.0, math.nan)
    phi = torch.where(spread > 0, (c.n * tp - c.active * c.shown) / spread.clamp(min=1e-300), constant)
    one_kind = torch.where((c.shown > 0) & (c.shown < c.n), 0.0, math.nan)
    present, absent = tp / c.shown.clamp(min=1), (c.active - tp) / (c.n - c.shown).clamp(min=1)
    deviation = (absent * (1 - absent) * (c.n - c.shown) / (c.n - c.shown - 1).clamp(min=1)).clamp(min=0).sqrt()
    mad = present - absent + one_kind
    auc, inverse_auc = found["balanced_accuracy"] + constant, found["inverse_balanced_accuracy"] + one_kind
    recall, precision = found["recall"], found["precision"]
    missed = (c.active - tp) / c.active.clamp(min=1)
    return found | {
        "auc": auc,
        "inverse_auc": inverse_auc,
        "cosy_auc": inverse_auc,
        "auprc": recall * precision + (1 - recall) * ratio + constant,
        "inverse_auprc": precision * recall + (1 - precision) * c.shown / c.n + one_kind,
        "correlation": phi,
        "spearman": phi,
        "cosine": tp / (c.active.sqrt() * c.shown.sqrt()).clamp(min=1e-9),
        "wpmi": missed * math.log(LEAST) - wpmi_lambda * (c.shown / c.n).clamp(min=LEAST).log(),
        "mad": mad,
        "cosy_mad": torch.where(deviation > 0, mad / deviation.clamp(min=1e-300), 0.0 + one_kind),
    }
