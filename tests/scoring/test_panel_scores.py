import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from oracles_simulation import Rows, planted, recorded
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from neuronx.errors import UserError
from neuronx.metrics.panel import METRICS
from neuronx.report.evaluation import Evaluation, leaderboard, show
from neuronx.scoring.correlation import Correlation
from neuronx.scoring.panel import Panel, in_one_pass
from neuronx.types import Explanation, Unit


@pytest.fixture
def world():
    judge, layer, truth = planted()
    return Rows(1000), judge, layer, truth


def run(sim, explained, layer, probe, judge, trainer):
    return sim.score_recorded(explained, {"layer": layer}, "net", probe, judge, trainer).rows


def of(scores, method, metric):
    return np.array([one.value for one in scores if (one.method, one.score) == (method, metric)])


def test_correlation_is_that_of_its_own_scorer_and_every_metric_has_floors_and_a_ceiling(world, trainer):
    probe, judge, layer, truth = world
    scores = run(Panel(), {"true": truth}, layer, probe, judge, trainer)
    alone = run(Correlation(), {"true": truth}, layer, probe, judge, trainer)
    rows = [one for one in scores if one.score == "correlation"]
    for one, other in zip(rows, alone, strict=True):
        assert replace(one, value=0, sem=0) == replace(other, value=0, sem=0)
        assert math.isclose(one.value, other.value, abs_tol=1e-6) and math.isclose(one.sem, other.sem, abs_tol=1e-6)
    for name in METRICS:
        assert {one.method for one in scores if one.score == name} == {
            "true", "shuffled-true", "random-true", "ceiling"
        }  # fmt: skip
    for name in ("correlation", "auprc", "f1", "cosy_auc"):
        true, shuffled, bound = (of(scores, m, name).mean() for m in ("true", "shuffled-true", "ceiling"))
        assert true > shuffled + 0.1 and bound > shuffled + 0.1, name


def test_words_are_shown_where_the_judge_says_so_and_signs_turn_them(world, trainer):
    probe, judge, _, _ = world
    test, draw = probe.split("test"), np.random.default_rng(0)
    word = judge.scores[:, 0].double().numpy()
    values = np.stack([2 * word, -word], 1) + 0.4 * draw.standard_normal((1000, 2))
    layer = recorded(values)
    said = [Explanation(Unit("layer", k), (("c0", weight),), bias=0.3) for k, weight in ((0, 2.5), (1, -0.5))]
    scores = run(Panel(alpha=0.1, floors=False, ceiling=False), {"said": said}, layer, probe, judge, trainer)
    a, c = layer.values[test].double().numpy(), word[test]
    for k, sign in ((0, 1), (1, -1)):
        unit, concept = a[:, k], c if sign > 0 else 1 - c
        active, shown = unit >= np.sort(unit)[-20], concept >= 0.5
        expected = {
            "correlation": np.corrcoef(unit, concept)[0, 1],
            "auprc": average_precision_score(active, concept),
            "auc": roc_auc_score(active, concept),
            "f1": f1_score(active, shown),
            # CoSy shows pictures of the word itself, and the control are those without.
            "cosy_auc": roc_auc_score(c >= 0.5, sign * unit),
            "cosy_mad": sign * (unit[c >= 0.5].mean() - unit[c < 0.5].mean()) / unit[c < 0.5].std(ddof=1),
            "wpmi": np.log(concept.clip(1e-8))[active].mean() - np.log(concept.mean()),
        }
        for name, value in expected.items():
            assert math.isclose(of(scores, "said", name)[k], value, abs_tol=1e-6), (name, sign)


def test_formulas_are_shown_on_as_many_pictures_as_the_unit_is_active_on(world, trainer):
    probe, judge, layer, truth = world
    scores = run(Panel(alpha=0.1, floors=False, ceiling=False), {"true": truth}, layer, probe, judge, trainer)
    for name in ("precision", "f1"):
        np.testing.assert_allclose(of(scores, "true", name), of(scores, "true", "recall"), atol=1e-12)
    scaled = [replace(one, terms=tuple((c, 1e200 * w) for c, w in one.terms), bias=1e200 * one.bias) for one in truth]
    same = run(Panel(alpha=0.1, floors=False, ceiling=False), {"true": scaled}, layer, probe, judge, trainer)
    np.testing.assert_allclose([one.value for one in same], [one.value for one in scores], atol=1e-9)


def test_statuses_are_those_of_correlation_and_undefined_metrics_are_untested(world, trainer):
    probe, judge, layer, truth = world
    test = probe.split("test")
    changed = layer.values.clone()
    changed[:, 0] = 0.25
    judge.scores[:, 5] = torch.rand(1000) * 0.4  # never shown
    truth[1] = replace(truth[1], terms=(("unheard of", 1.0),))
    truth[2] = Explanation(Unit("layer", 2), (("c5", 1.0),))
    truth[3] = Explanation(Unit("layer", 3), ())
    judge.scores[test, 7] = 0
    truth[4] = Explanation(Unit("layer", 4), (("c7", 1.0),))
    layer = replace(layer, values=changed, broken=(6,))
    scores = run(Panel(floors=False, ceiling=False), {"true": truth}, layer, probe, judge, trainer)
    status = {(one.score, one.unit.index): one.status for one in scores}
    for name in METRICS:
        assert [status[name, k] for k in (0, 1, 4, 6, 8)] == ["inactive", "unjudged", "untested", "broken", "ok"]
    undefined = {"inverse_auc", "inverse_auprc", "cosy_auc", "cosy_mad", "mad"}
    for k in (2, 3):
        assert {name for name in METRICS if status[name, k] == "untested"} == undefined
    assert all(math.isfinite(one.value) == (one.status == "ok") for one in scores)
    (row,) = [row for row in leaderboard(scores) if row.score == "cosy_auc"]
    assert (row.n_untested, row.sanity) == (3, "fails missing")


def test_metrics_that_are_chosen_one_by_one_share_a_pass():
    chosen = {"correlation": Correlation(), "auprc": Panel(metrics=["auprc"]), "f1": Panel(metrics=["f1", "auprc"])}
    joined = in_one_pass(chosen)
    assert list(joined) == ["correlation", "auprc"] and joined["auprc"].metrics == ("auprc", "f1")
    assert in_one_pass({"correlation": Correlation(), "panel": Panel()})["panel"].metrics == tuple(METRICS)[1:]
    apart = {"auprc": Panel(metrics=["auprc"]), "f1": Panel(metrics=["f1"], alpha=0.01)}
    assert in_one_pass(apart) == apart


def test_tables_show_the_metrics_that_pass_first_and_say_which_fail(world, trainer, capsys):
    probe, judge, layer, truth = world
    scores = run(Panel(), {"true": truth}, layer, probe, judge, trainer)
    show(Evaluation({}, scores))
    printed = capsys.readouterr().out
    assert "passes both sanity checks" in printed
    table = printed[printed.index("pass both checks:") :]
    passing, missing, extra, both = (
        {line.split()[0] for line in part.splitlines()[1:] if line.strip()}
        for part in re.split(r"(?m)^(?=fail )", table)
    )
    assert passing == {"correlation", "auprc", "f1", "iou", "cosine"}
    assert "cosy_auc" in missing and "recall" in extra and "accuracy" in both
    assert passing | missing | extra | both == set(METRICS)
    assert max(map(len, table.splitlines())) <= 80
    show(Evaluation({}, [one for one in scores if one.score == "wpmi"]))
    assert "fails the sanity check of extra labels" in re.sub(r"\s+", " ", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 0}, "sim.panel.alpha=0 must be a number between 0 and 1"),
        ({"wpmi_lambda": 2}, "sim.panel.wpmi_lambda=2"),
        ({"metrics": ["auprcs"]}, "auprc"),
        ({"metrics": []}, "sim.panel.metrics=[]"),
    ],
)
def test_options_that_cannot_be(options, message):
    with pytest.raises(UserError, match=re.escape(message)):
        Panel(**options)
