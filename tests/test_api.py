"""From Python: methods that need masks, and both ways to score."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import neuronx
from neuronx.concepts.labels import LabelConcepts
from neuronx.errors import UserError
from neuronx.report import shown
from neuronx.scoring.correlation import Correlation
from neuronx.tables.csv import write_scores
from neuronx.types import Explanation, Unit
from neuronx.world.networks import load
from neuronx.world.pictures.probe import ShapesProbe


@pytest.fixture(scope="module")
def job():
    return load("shapes_resnet", layers="layer4").select(units=[0, 7, 35]), ShapesProbe(300)


def test_masks_explain_and_ablation_scores(job, trainer):
    target, probe = job
    found = {name: neuronx.explain(target, probe, method=name, trainer=trainer) for name in ("net_dissect", "le_label")}
    assert {name: [one.unit.index for one in said] for name, said in found.items()} == {
        "net_dissect": [0, 7, 35],
        "le_label": [0, 7, 35],
    }
    scores = neuronx.score(found, target, probe, judge="masks", sim="ablation", trainer=trainer)
    methods = {(one.score, one.method) for one in scores}
    assert {(f"ablation_{mode}", name) for mode in ("optim", "norm") for name in (*found, "ceiling")} <= methods
    assert all(one.value <= 1 for one in scores if one.status == "ok")


def test_an_unknown_way_to_score_names_those_there_are(job):
    with pytest.raises(UserError, match="ablation"):
        neuronx.score([Explanation(Unit("layer4", 0), (("red", 1.0),))], *job, sim="ablate")


@pytest.fixture(scope="module")
def study(trainer):
    pictures = torch.randint(0, 256, (120, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = [i % 3 for i in range(120)]
    for row, label in enumerate(labels):  # a class is a colour
        pictures[row, label] = 255
    images = neuronx.probe_of(pictures, labels=labels, class_names=["red", "green", "blue"])
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    return neuronx.study(network, images, layer="1", transform=None, trainer=trainer)


def test_a_study_goes_from_network_to_files(study, tmp_path):
    explanations = study.explain("le_label", max_length=1)
    assert [explanation.unit.index for explanation in explanations] == [0, 1, 2, 3]
    assert all(len(explanation.terms) <= 1 and explanation.made_by == ("le_label",) for explanation in explanations)
    scores = study.score(ceiling=False)
    assert {score.method for score in scores} == {"le_label", "random-le_label", "shuffled-le_label"}
    assert study.leaderboard()[0].method == "le_label" and study.leaderboard()[0].mean > 0.5
    study.save(tmp_path / "run")
    assert (tmp_path / "run/scores.csv").read_bytes() == write_scores(tmp_path / "scores.csv", scores).read_bytes()
    assert neuronx.read_explanations(tmp_path / "run/explanations/Sequential_1_le_label.csv") == list(explanations)
    assert {"leaderboard.csv", "scores.html", "run.json"} <= {path.name for path in (tmp_path / "run").iterdir()}
    study.explain("le_label")
    assert not study.scores, "scores of explanations that were replaced are dropped"


def test_words_of_the_users_own_are_scored(study):
    said = {0: "red", "1:1": "green OR blue"}
    mine = [score for score in study.score(said, ceiling=False) if score.method == "yours"]
    assert [(score.unit.index, score.explanation) for score in mine] == [(0, "red"), (1, "green OR blue")]
    (alone,) = [score for score in study.score("red", unit=0, ceiling=False) if score.method == "yours"]
    assert alone.value == mine[0].value
    with pytest.raises(UserError, match=r"no word of the judge labels `gren`. Nearest: green"):
        study.score("gren", unit=1)


def test_results_are_tables_everywhere(study):
    explanations = study.explain("le_label", max_length=1)
    assert str(explanations).splitlines()[0] == "layer 1" and "explanation" in repr(explanations).splitlines()[1]
    frame = explanations.frame()
    assert list(frame.columns) == ["layer", "unit", "part", "explanation", "val correlation", "support"]
    assert len(frame) == 4 and all(text.count("/") == 1 for text in frame["support"] if text)
    assert explanations._repr_html_().count("<tr>") == 5
    assert study.score().frame()["value"].dtype == float


def test_what_is_printed_of_a_leaderboard_says_over_how_many_units_a_mean_is(study):
    study.explain("le_label", max_length=1)
    study.score(ceiling=False)
    assert "4 (few)" in str(study.leaderboard()) and "<td>4 (few)</td>" in study.leaderboard()._repr_html_()
    assert study.leaderboard().frame()["n_units"].tolist()[0] == 4


def test_words_for_units_outside_of_the_study_are_refused(study, trainer):
    some = neuronx.study(study.target, study.probe, units="0:2", trainer=trainer)
    assert some.score({1: "red"}, ceiling=False)
    with pytest.raises(UserError, match=r"1:3 is not among the units of this study"):
        some.score({1: "red", 3: "red"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"evidence": (0, 120)}, "by image 120, but there are 120 images, 0 to 119"),
        ({"unit": Unit("1", 0, 7)}, "explains 1:0/7, a part of a unit that is not split"),
    ],
)
def test_what_an_explanation_names_must_be_there(study, changes, message):
    with pytest.raises(UserError, match=message):
        study.score([replace(Explanation(Unit("1", 0), (("red", 1.0),)), **changes)])


def test_long_tables_say_how_many_rows_are_not_shown(study):
    scores = list(study.score({k: "red" for k in range(4)}))
    many = shown.scores(scores * 20)
    hidden = len(many) - shown.LINES
    assert f"... {hidden} more rows; .frame() has them all" == str(many).splitlines()[-1]
    assert f"<p>{hidden} more rows; .frame() has them all</p>" in many._repr_html_() and len(many.frame()) == len(many)


def test_a_unit_is_looked_at(study):
    exemplars = study.exemplars(2, k=4)
    means = exemplars.frame()["mean"].tolist()
    assert len(means) == 4 and means == sorted(means, reverse=True), "what is explained and scored"
    peaks = study.exemplars(2, k=4, by="peak").frame()["peak"].tolist()
    assert peaks == sorted(peaks, reverse=True) and peaks[0] > means[0]
    assert exemplars.picture.width > 100 and "data:image/png" in exemplars._repr_html_()


def test_an_own_judge_may_not_judge_what_it_made(study):
    class Mine(LabelConcepts):
        encoders = ("abc",)

    said = [Explanation(Unit("1", 0), (("red", 1.0),), made_by=("mine", "abc"))]
    with pytest.raises(UserError, match="The judge labels has made the explanations of mine"):
        study.score(said, judge=Mine())
    assert study.score(said, judge=LabelConcepts(), sim=Correlation(ceiling=False))
