from dataclasses import replace

import numpy as np
import pytest

from neuronx.errors import UserError
from neuronx.report.figures import (
    fit_scores,
    histogram_counts,
    histograms,
    pair_scores,
    score_fit_figure,
    write_figure,
    write_score_fit,
)
from neuronx.scoring.stored import Stored
from neuronx.tables.explanations import read_files
from neuronx.types import Score, Unit


def scores(n=50):
    return [
        Score(
            "net", "avg", Unit(layer, i), method, "correlation", i / n + shift, 0.1, 9, "ok", "dog", "judge", "a/test:9"
        )
        for layer in ("layer3", "layer4")
        for method, shift in (("le_clip", 0.2), ("shuffled-le_clip", -0.1))
        for i in range(n)
    ]


def test_every_unit_is_counted_once():
    figure = histograms(scores())
    assert [trace.name for trace in figure.data] == ["le_clip", "shuffled-le_clip"] * 2
    assert all(sum(trace.y[:-1]) == 50 for trace in figure.data)
    assert [note.text for note in figure.layout.annotations] == [
        "net · layer3 · correlation · judge",
        "net · layer4 · correlation · judge",
    ]


def test_a_panel_says_over_how_many_of_how_many_units_a_mean_is():
    some = [replace(one, status="unjudged", value=float("nan")) if one.unit.index == 3 else one for one in scores()]
    few = [score(index, "correlation", 0.1, "few", layer="layer3") for index in range(4)]
    assert [note.text for note in histograms([*some, *few]).layout.annotations] == [
        "net · layer3 · correlation · judge<br><span style='font-size:11px'>"
        "le_clip: 49 of 50 units, few: 4 (few) units</span>",
        "net · layer4 · correlation · judge<br><span style='font-size:11px'>le_clip: 49 of 50 units</span>",
    ]


def test_equal_scores_and_none_at_all_have_a_figure():
    counts, edges = histogram_counts([0.5, 0.5], 0.5, 0.5)
    assert counts.sum() == 2 and np.all(np.diff(edges) > 0)
    assert len(histograms(scores(1)).data) == 4
    assert len(histograms([]).data) == 0


def test_the_page_needs_no_network_and_is_the_same_each_time(tmp_path):
    path = write_figure(histograms(scores()), tmp_path / "scores.html")
    page = path.read_bytes()
    assert b'src="plotly.min.js"' in page and b"https://cdn" not in page
    assert (tmp_path / "plotly.min.js").stat().st_size > 1_000_000
    assert write_figure(histograms(scores()), path).read_bytes() == page


def score(index, kind, value, method="le_clip", judge="judge", status="ok", layer="layer4"):
    return Score("net", "avg", Unit(layer, index), method, kind, value, 0.1, 9, status, "dog", judge, "a/test:9")


def both(n=40, **more):
    found = []
    for i in range(n):
        r = i / n
        found += [score(i, "correlation", r, **more), score(i, "ablation_optim", 0.5 * r * r + 0.1, **more)]
    return found


def test_a_planted_parabola_is_found():
    r = np.linspace(-0.5, 0.9, 30)
    fit = fit_scores(r, 0.4 * r**2 - 0.02)
    assert fit.slope == pytest.approx(0.4, abs=1e-12) and fit.intercept == pytest.approx(-0.02, abs=1e-12)
    assert fit.r_squares == pytest.approx(1) and fit.r < 1 and fit.n == 30


def test_the_fit_is_that_of_numpy():
    generator = np.random.default_rng(0)
    r, y = generator.normal(size=50) * 0.3, generator.normal(size=50)
    fit = fit_scores(r, y)
    assert (fit.slope, fit.intercept) == pytest.approx(np.polyfit(r**2, y, 1))
    assert (fit.r, fit.r_squares) == pytest.approx((np.corrcoef(r, y)[0, 1], np.corrcoef(r**2, y)[0, 1]))


@pytest.mark.parametrize(
    ("r", "y", "what"),
    [([1, 2], [1, 2], "3 pairs"), ([1, 2, np.nan], [1, 2, 3], "finite"), ([0.5, -0.5, 0.5], [1, 2, 3], "differ")],
)
def test_what_cannot_be_fitted(r, y, what):
    with pytest.raises(UserError, match=what):
        fit_scores(r, y)


def test_scores_are_paired_by_target_unit_method_and_judge():
    scores = both(3) + both(3, method="ceiling") + both(3, method="shuffled-le_clip") + both(2, judge="labels")
    scores += [score(7, "correlation", 0.5), score(8, "ablation_norm", 0.5)]
    scores += [score(9, "correlation", 0.5, status="inactive"), score(9, "ablation_optim", 0.5)]
    pairs = pair_scores(scores)
    assert {key: len(found) for key, found in pairs.items()} == {
        ("net", "layer4", "ablation_optim", "judge"): 3,
        ("net", "layer4", "ablation_optim", "labels"): 2,
    }


def test_the_figure_has_a_panel_a_layer_and_every_point():
    scores = both() + both(layer="layer3") + both(layer="layer3", method="milan")
    figure = score_fit_figure(pair_scores(scores))
    points = [trace for trace in figure.data if trace.mode == "markers"]
    assert [(trace.name, len(trace.x)) for trace in points] == [("le_clip", 40), ("le_clip", 40), ("milan", 40)]
    assert [trace.name for trace in figure.data if trace.showlegend] == ["le_clip", "fit", "milan"]
    titles = [note.text for note in figure.layout.annotations]
    assert titles[0].startswith("net · layer4 · ablation_optim · judge<br>") and "0.500 r² + 0.100" in titles[0]


def test_far_worse_explanations_are_counted_and_not_shown():
    figure = score_fit_figure(pair_scores([*both(), score(99, "correlation", 0.1), score(99, "ablation_optim", -80)]))
    assert "41 explanations, 1 below the axis" in figure.layout.annotations[0].text
    assert figure.layout.yaxis.range[0] > -1


def test_two_points_have_no_curve():
    assert "too few" in score_fit_figure(pair_scores(both(2))).layout.annotations[0].text


def test_the_page_is_written_only_when_there_is_something_to_show(tmp_path):
    assert write_score_fit([score(0, "correlation", 0.5)], tmp_path) is None and not list(tmp_path.iterdir())
    path = write_score_fit(both(), tmp_path)
    page = path.read_bytes()
    assert path.name == "correlation_ablation.html" and write_score_fit(both(), tmp_path).read_bytes() == page
    assert not score_fit_figure({}).data


def test_the_published_figure_5(shared):
    folder = shared / "data" / "published" / "linear_explanations"
    methods = ("NetDissect", "MILAN", "CLIP_Dissect", "LE_label", "LE_siglip")
    files = read_files([{"file": str(folder / m / "resnet50_imagenet_layer4.csv"), "method": m} for m in methods])
    pairs = pair_scores(Stored().score(files).rows)["resnet50_imagenet", "layer4", "ablation_optim", "unknown"]
    fit = fit_scores([one.correlation for one in pairs], [one.ablation for one in pairs])
    assert fit.n == 10_240
    assert fit.slope == pytest.approx(0.42312855550621464, abs=1e-12)
    assert fit.intercept == pytest.approx(0.005740243867236899, abs=1e-12)
    assert (round(fit.r, 4), round(fit.r_squares, 4)) == (0.7959, 0.8572)
