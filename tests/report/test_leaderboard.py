import math
from dataclasses import replace

import pytest
import torch

from neuronx.report.evaluation import Evaluation, activity, dead_units, leaderboard
from neuronx.types import Activations, Score, Unit

NAN = float("nan")


def scored(method, values, layer="layer4", judge="siglip", target="net"):
    """Scores of units 0, 1, ...; a word in place of a number is the status."""
    return [
        Score(
            target=target,
            pool="avg",
            unit=Unit(layer, index),
            method=method,
            score="correlation",
            value=NAN if isinstance(value, str) else value,
            sem=NAN,
            n=10,
            status=value if isinstance(value, str) else "ok",
            explanation="dog",
            judge=judge,
            images="shapes/test:10",
        )
        for index, value in enumerate(values)
    ]


def test_means_and_errors_are_over_the_units_that_could_be_scored():
    (row,) = leaderboard(
        scored("le_clip", [0.1, 0.2, 0.6, "inactive", "unjudged", "unjudged", "no_effect", "broken", "untested"])
    )
    assert row.mean == pytest.approx(0.3)
    assert row.sem == pytest.approx(math.sqrt(((0.2**2) + 0.1**2 + 0.3**2) / 2 / 3))
    assert (row.n_units, row.n_inactive, row.n_unjudged, row.n_no_effect, row.n_broken, row.n_untested) == (
        3,
        1,
        2,
        1,
        1,
        1,
    )


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_no_finite_number_is_broken_whoever_made_it(value):
    (row,) = leaderboard([*scored("mine", [0.1, 0.3]), replace(scored("mine", [0.1])[0], value=value)])
    assert row.mean == pytest.approx(0.2) and (row.n_units, row.n_broken) == (2, 1)


def test_huge_scores_have_a_mean_and_an_error():
    (row,) = leaderboard(scored("mine", [1e308, 1.5e308, 1.7e308]))
    assert row.mean == pytest.approx(1.4e308) and row.sem == pytest.approx(0.2081666e308)


def test_one_unit_has_no_error_and_none_has_no_mean():
    one, none = leaderboard(scored("a", [0.5]) + scored("b", ["inactive"]))
    assert one.mean == 0.5 and math.isnan(one.sem)
    assert math.isnan(none.mean) and math.isnan(none.sem) and none.n_units == 0


def test_the_ceiling_comes_first_then_methods_then_floors():
    scores = scored("shuffled-b", [0.9]) + scored("a", [0.1]) + scored("empty", ["unjudged"]) + scored("b", [0.3])
    scores += scored("ceiling", [0.2]) + scored("random-a", [0.0])
    assert [row.method for row in leaderboard(scores)] == ["ceiling", "b", "a", "empty", "shuffled-b", "random-a"]


def test_networks_layers_and_judges_have_tables_of_their_own():
    scores = scored("a", [0.1]) + scored("a", [0.2], layer="layer3") + scored("a", [0.3], judge="labels")
    scores += scored("b", [0.4], target="vit") + scored("b", [0.5])
    rows = leaderboard(scores)
    assert [(row.target, row.layer, row.judge, row.method) for row in rows] == [
        ("net", "layer4", "siglip", "b"),
        ("net", "layer4", "siglip", "a"),
        ("net", "layer3", "siglip", "a"),
        ("net", "layer4", "labels", "a"),
        ("vit", "layer4", "siglip", "b"),
    ]


def test_the_summary_names_every_row_and_the_judge_where_there_are_several():
    scores = scored("a", [0.1]) + scored("a", [0.3], judge="labels") + scored("a", [0.5], layer="fc")
    assert Evaluation({}, scores).summary() == {
        "score/correlation/net/layer4/a/siglip": 0.1,
        "score/correlation/net/layer4/a/labels": 0.3,
        "score/correlation/net/fc/a": 0.5,
    }


def test_dead_units_never_reach_a_hundredth():
    values = torch.tensor([[0.0, 0.5, 0.009, -3.0], [0.0, 0.0, 0.0, 0.01]])
    activations = Activations(values, tuple(Unit("layer4", index) for index in range(4)), "avg")
    assert dead_units(activations) == {Unit("layer4", 0), Unit("layer4", 2)}
    found = activity("net", activations)
    assert (found.target, found.layer, found.n_units, found.share) == ("net", "layer4", 4, 0.5)
    evaluation = Evaluation({}, scored("a", [0.0, 0.4, 0.1, 0.6]), activity=[found])
    assert (evaluation.leaderboard[0].mean, evaluation.leaderboard_of_live_units[0].mean) == (0.275, 0.5)
    assert evaluation.summary()["dead/net/layer4"] == 0.5
