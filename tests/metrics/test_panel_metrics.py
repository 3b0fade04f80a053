import json
import math

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score, roc_auc_score

from neuronx.errors import UserError
from neuronx.metrics.counts import Counts, of_binary
from neuronx.metrics.panel import METRICS, compare_units, of_concepts, panel, ranked
from neuronx.metrics.ranks import spearman_rows
from neuronx.metrics.sanity import PUBLISHED, verdict

SAMPLED = ("correlation_top_random", "spearman_top_random")
THEIRS = {
    "recall": "recall",
    "precision": "precision",
    "f1": "f1_score",
    "iou": "iou",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced_accuracy",
    "inverse_balanced_accuracy": "inverse_balanced_accuracy",
    "auprc": "auprc",
    "wpmi": "wpmi_lam1",
    "correlation": "pearson_exact",
    "cosine": "cos_sim",
    "mad": "mad",
    "inverse_auprc": "inverse_auprc",
    "inverse_auc": "inverse_auc",
    "auc": "auc_midrank",
    "spearman": "spearman_midrank",
}


def random_pairs(n=400, k=12, seed=0, digits=None):
    """Activations (n, k), some rectified, and concepts (n, k) that follow them; rounded they tie."""
    draw = torch.Generator().manual_seed(seed)
    a = torch.randn(n, k, generator=draw)
    c = torch.sigmoid(2 * a + torch.randn(n, k, generator=draw) - 1)
    a[:, ::2] = a[:, ::2].clamp(min=0)
    return (a, c) if digits is None else (a.round(decimals=digits), c.round(decimals=digits))


@pytest.mark.parametrize("kind", ["prob", "binary"])
def test_golden_values_of_the_published_code(shared, kind):
    golden = json.loads((shared / "fixtures" / "neuron_eval_metrics.json").read_text())
    a = torch.tensor(golden["neuron_act_NxK"]).double()
    c = torch.tensor(golden[f"concept_{kind}_NxC"]).double()
    pairs = a.repeat_interleave(c.shape[1], 1), c.repeat(1, a.shape[1])
    found = panel(*pairs, alpha=golden["alpha"])
    for name, theirs in THEIRS.items():
        expected = golden[f"results_on_concept_{kind}"][theirs]
        np.testing.assert_allclose(found[name].view(a.shape[1], -1), expected, atol=1e-6, err_msg=name)


def test_golden_values_of_cosy(shared):
    golden = json.loads((shared / "fixtures" / "cosy_metrics.json").read_text())
    control, synthetic = golden["control"], golden["synthetic"]
    a = torch.tensor([*control, *synthetic], dtype=torch.float64)[:, None]
    c = torch.tensor([0.0] * len(control) + [1.0] * len(synthetic))[:, None]
    found = panel(a, c)
    assert math.isclose(found["cosy_auc"], golden["AUC"], abs_tol=1e-9)
    assert math.isclose(found["cosy_mad"], golden["MAD_unbiased_std"], abs_tol=1e-9)


@pytest.mark.parametrize("digits", [None, 1])
def test_ranks_are_those_of_plain_libraries(digits):
    a, c = random_pairs(digits=digits)
    found = panel(a, c, alpha=0.1)
    for k in range(a.shape[1]):
        unit, concept = a[:, k].numpy(), c[:, k].numpy()
        cut = np.sort(unit)[-40]
        active, shown = (unit >= cut) & (unit > unit.min()), concept >= 0.5
        assert math.isclose(found["auc"][k], roc_auc_score(active, concept), abs_tol=1e-9)
        assert math.isclose(found["auprc"][k], average_precision_score(active, concept), abs_tol=1e-9)
        assert math.isclose(found["inverse_auc"][k], roc_auc_score(shown, unit), abs_tol=1e-9)
        assert math.isclose(found["inverse_auprc"][k], average_precision_score(shown, unit), abs_tol=1e-9)
        assert math.isclose(found["spearman"][k], spearmanr(unit, concept).statistic, abs_tol=1e-9)
        assert math.isclose(found["correlation"][k], np.corrcoef(unit, concept)[0, 1], abs_tol=1e-6)


def test_the_order_of_the_pictures_does_not_matter_but_for_samples():
    a, c = random_pairs(digits=1)
    other = torch.randperm(len(a), generator=torch.Generator().manual_seed(1))
    first, second = panel(a, c), panel(a[other], c[other])
    for name in METRICS:
        if name not in SAMPLED:
            np.testing.assert_allclose(first[name], second[name], atol=1e-9, err_msg=name)


def test_units_alone_are_as_among_others_and_metrics_alone_as_in_the_panel():
    a, c = random_pairs(n=3000, k=200)
    together = panel(a, c)
    one = panel(a[:, 150:151], c[:, 150:151])
    for name in METRICS:
        assert math.isclose(together[name][150], one[name], abs_tol=1e-9), name
        np.testing.assert_array_equal(panel(a, c, [name])[name], together[name], err_msg=name)
    picked = compare_units(ranked(a.T.contiguous()), of_concepts(c.T[[7, 3]]), ["auprc"], columns=torch.tensor([7, 3]))
    np.testing.assert_array_equal(picked["auprc"], together["auprc"][[7, 3]])


MISSING = {
    "recall": lambda g: -1 / 2,
    "precision": lambda g: 0,
    "f1": lambda g: -1 / 3,
    "iou": lambda g: -1 / 2,
    "accuracy": lambda g: -g / 2,
    "balanced_accuracy": lambda g: -1 / 4,
    "inverse_balanced_accuracy": lambda g: -g / (2 * (2 - g)),
    "auc": lambda g: -1 / 4,
    "inverse_auc": lambda g: -g / (2 * (2 - g)),
    "correlation": lambda g: math.sqrt((1 - g) / (2 - g)) - 1,
    "spearman": lambda g: math.sqrt((1 - g) / (2 - g)) - 1,
    "cosine": lambda g: 1 / math.sqrt(2) - 1,
    "mad": lambda g: -g / (2 - g),
    "auprc": lambda g: -(1 - g) / 2,
    "inverse_auprc": lambda g: -1 / 2,
}
EXTRA = {
    "recall": lambda g: 0,
    "precision": lambda g: -1 / 2,
    "f1": lambda g: -1 / 3,
    "iou": lambda g: -1 / 2,
    "accuracy": lambda g: -g,
    "balanced_accuracy": lambda g: -g / (2 * (1 - g)),
    "inverse_balanced_accuracy": lambda g: -1 / 4,
    "auc": lambda g: -g / (2 * (1 - g)),
    "inverse_auc": lambda g: -1 / 4,
    "correlation": lambda g: math.sqrt((1 - 2 * g) / (2 * (1 - g))) - 1,
    "spearman": lambda g: math.sqrt((1 - 2 * g) / (2 * (1 - g))) - 1,
    "cosine": lambda g: 1 / math.sqrt(2) - 1,
    "mad": lambda g: -1 / 2,
    "auprc": lambda g: -1 / 2,
    "inverse_auprc": lambda g: -1 / 2 + g,
}


@pytest.mark.parametrize("gamma", [0.49, 0.1, 0.01])
@pytest.mark.parametrize(("check", "change"), [("missing", MISSING), ("extra", EXTRA)])
def test_closed_forms_of_the_sanity_checks(gamma, check, change):
    """An ideal unit, half of its concept's pictures missing, or as many others extra: of pictures and of counts."""
    n, on = 20000, round(20000 * gamma)
    a = torch.zeros(n, 2)
    a[:on] = 1
    c = a.clone()
    if check == "missing":
        c[: on // 2, 1] = 0
    else:
        c[on : 2 * on, 1] = 1
    ideal, degraded = ({name: float(values[k]) for name, values in panel(a, c, alpha=gamma).items()} for k in range(2))
    counted = of_binary(Counts(*(column.double() for column in ((a * c).sum(0), a.sum(0), c.sum(0))), float(n)))
    for name, closed in change.items():
        assert math.isclose(degraded[name] - ideal[name], closed(gamma), abs_tol=1e-6), name
    for name, values in counted.items():
        np.testing.assert_allclose(values, [ideal[name], degraded[name]], atol=1e-9, err_msg=name)


def test_spearman_of_a_unit_with_itself_is_1_however_many_values_tie():
    a = torch.zeros(1000, 1)
    a[:3] = 1
    assert math.isclose(panel(a, a)["spearman"], 1, abs_tol=1e-12)
    assert math.isclose(spearman_rows(a.T, a.T), 1, abs_tol=1e-12)


def test_a_unit_that_fires_on_fewer_pictures_than_alpha_is_active_where_it_fires():
    a = torch.zeros(1000, 1)
    a[:7] = torch.rand(7, 1) + 1
    assert int(ranked(a.T.contiguous(), 0.05).n_active) == 7
    a[:100] = 1  # ties at the cut-off are all active
    assert int(ranked(a.T.contiguous(), 0.05).n_active) == 100


def test_what_is_not_defined_is_nan_and_poisons_nothing():
    a, c = random_pairs(k=6)
    before = panel(a, c)
    a[:, 0], a[5, 1], c[9, 2] = 3.0, math.nan, math.inf
    c[:, 3], c[:, 4] = 0.1, 0.9
    found = panel(a, c)
    for name in METRICS:
        assert found[name][:3].isnan().all(), name
        assert found[name][5] == before[name][5], name
    one_kind = {"inverse_auc", "inverse_auprc", "cosy_auc", "cosy_mad", "mad"}
    for k in (3, 4):
        assert {name for name in METRICS if math.isnan(found[name][k])} == one_kind
    assert (found["correlation"][3], found["spearman"][3], found["auc"][3]) == (0, 0, 0.5)
    assert found["recall"][3] == found["precision"][3] == found["f1"][3] == 0


def test_top_and_random_pictures_are_drawn_by_a_seed_and_ties_at_the_top_have_equal_chances():
    a, c = random_pairs(n=20000, k=4)
    assert torch.equal(panel(a, c, SAMPLED, seed=1)[SAMPLED[0]], panel(a, c, SAMPLED, seed=1)[SAMPLED[0]])
    assert not torch.equal(panel(a, c, SAMPLED, seed=1)[SAMPLED[0]], panel(a, c, SAMPLED, seed=2)[SAMPLED[0]])
    tied = torch.zeros(20000, 1)
    tied[:8000] = 1
    place = (torch.arange(20000) < 4000).float()[:, None]  # half of those that tie
    found = torch.tensor([float(panel(tied, place, SAMPLED, seed=seed)[SAMPLED[0]]) for seed in range(20)])
    assert 0.3 < found.mean() < 0.7 and found.std() > 0.02


def test_shapes_and_names_that_cannot_be():
    with pytest.raises(UserError, match="pictures x units"):
        panel(torch.zeros(3, 2), torch.zeros(2, 3))
    with pytest.raises(UserError, match="auprc"):
        panel(torch.zeros(3, 2), torch.zeros(3, 2), ["auprcs"])


def test_every_metric_of_the_published_table_is_marked():
    assert set(PUBLISHED) <= set(METRICS)
    assert {name for name in METRICS if verdict(name) == "passes"} == {"correlation", "auprc", "f1", "iou", "cosine"}
    assert [verdict(name) for name in ("recall", "precision", "accuracy", "inverse_auprc", "cosy_auc", "mine")] == [
        "fails extra",
        "fails missing",
        "fails missing and extra",
        "fails extra",
        "fails missing",
        "",
    ]
