"""The main job: methods that images do not suit, files of several networks, judges."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from neuronx import probe_of
from neuronx.command import pipeline
from neuronx.concepts.labels import LabelConcepts
from neuronx.errors import Unsuitable, UserError
from neuronx.report.evaluation import Evaluation
from neuronx.tables.explanations import ExplanationFile
from neuronx.targets.target import Target
from neuronx.types import Explanation, Found, PartSamples, Score, Scores, Unit


class Suits:
    def explain(self, target, probe, trainer):
        return Found([Explanation(Unit("0", 0), (("bright", 1.0),))], {"more.csv": (["unit"], [[0]])})


class DoesNotSuit:
    def explain(self, target, probe, trainer):
        raise Unsuitable("There are no labels.")


class Doubts(Suits):
    def check(self, probe):
        raise Unsuitable("It knows other pictures.")


@pytest.fixture
def job(trainer):
    network = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU())
    target = Target("net", network, nn.Identity(), {"0": "avg"})
    pictures = probe_of(torch.rand(40, 3, 8, 8, generator=torch.Generator().manual_seed(0)))
    rest = {"given": [], "sims": {}, "judges": [], "words": None, "trainer": trainer, "seed": 0}
    return {"targets": {"net": target}, "probe": pictures, **rest}


def test_a_default_method_that_does_not_suit_is_left_out(job, caplog):
    found = pipeline.evaluate(methods={"a": DoesNotSuit(), "b": Suits()}, optional=True, **job)
    assert list(found.explanations) == [("net", "b")]
    assert "a is left out for net. There are no labels." in caplog.text
    assert found.tables == {"more.csv": (["unit"], [[0]])}


class SuitsMaps:
    def explain(self, target, probe, trainer):
        if "first" in target.layers.values():
            raise Unsuitable("The class token is nowhere.")
        return Found([Explanation(Unit(layer, 0), ()) for layer in target.layers], {"t.csv": (["unit"], [[0]])})


def test_a_default_method_is_left_out_where_a_layer_does_not_suit(job, caplog):
    (target,) = job["targets"].values()
    three = replace(target, layers={"0": "avg", "1": "first", "": "avg"})
    found = pipeline.explain({"a": SuitsMaps(), "b": Suits()}, three, job["probe"], job["trainer"], optional=True)
    assert [explanation.unit.layer for explanation in found["a"].explanations] == ["0", ""]
    assert found["a"].tables == {"t.csv": (["unit"], [[0], [0]])}
    assert "a is left out for net on `1`. The class token is nowhere." in caplog.text
    with pytest.raises(UserError, match="class token"):
        pipeline.explain({"a": SuitsMaps()}, three, job["probe"], job["trainer"])


def test_a_method_asked_for_must_suit(job):
    with pytest.raises(UserError, match="no labels"):
        pipeline.evaluate(methods={"a": DoesNotSuit(), "b": Suits()}, **job)


def test_a_method_in_doubt_explains_only_where_it_was_asked_to(job, caplog):
    methods = {"a": Doubts(), "b": Suits()}
    assert list(pipeline.evaluate(methods=methods, optional=True, **job).explanations) == [("net", "b")]
    assert "a is left out for net. It knows other pictures." in caplog.text
    assert list(pipeline.evaluate(methods=methods, **job).explanations) == [("net", "a"), ("net", "b")]


def test_one_method_at_least_must_suit(job):
    with pytest.raises(UserError, match="no labels"):
        pipeline.evaluate(methods={"a": DoesNotSuit()}, optional=True, **job)


def file(target, method, *units, layer="0"):
    explanations = [Explanation(Unit(layer, unit), (("bright", 1.0),)) for unit in units]
    return ExplanationFile(Path(f"{target}_{layer}_{method}.csv"), target, method, (layer,), explanations)


def test_files_of_another_network_of_the_run_are_never_taken(job):
    (target,) = job["targets"].values()
    given = [file("net", "mine", 0), file("other", "theirs", 1), file("", "whose", 1)]
    assert list(pipeline.of_target(given, "net", target, ["net", "other"])) == ["mine"]
    # Where none is named after the network, those of nobody in the run are about it, those of another network are not.
    assert list(pipeline.of_target(given[1:], "net", target, ["net", "other"])) == ["whose"]
    assert pipeline.of_target(given[1:2], "net", target, ["net", "other"]) == {}
    assert list(pipeline.of_target(given[1:2], "net", target, ["net"])) == ["theirs"]


def test_of_files_the_units_and_layers_asked_for_are_taken(job):
    (target,) = job["targets"].values()
    only = replace(target, units={"0": [1]})
    taken = pipeline.of_target([file("net", "mine", 0, 1)], "net", only, ["net"])
    assert [explanation.unit.index for explanation in taken["mine"]] == [1]
    with pytest.raises(UserError, match=r"are of 9; the run is about 0 of net"):
        pipeline.of_target([file("net", "mine", 0, layer="9")], "net", target, ["net"])


class Counts:
    """A scorer that says what it was given, and has references to show."""

    def __init__(self):
        self.words = []

    def score(self, explained, target, probe, judge, trainer, words=()):
        self.words.append(tuple(words))
        rows = [
            Score(target.name, "avg", said.unit, method, "count", 1.0, 0.0, 9, "ok", str(said), judge.name, "x/test:9")
            for method, explanations in explained.items()
            for said in explanations
        ]
        shown = PartSamples(target.name, Unit("0", 1), ("scorer",), torch.zeros(1).long(), None, None, None)
        return Scores(rows, {"counts.csv": (["judge"], [[judge.name]])}, [shown])


class Judge(LabelConcepts):
    """Knows these words, or any if None."""

    def __init__(self, name, known, encoders=()):
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "known", known)
        object.__setattr__(self, "encoders", encoders)

    def vocabulary(self, probe):
        return self.known


class Words:
    def of(self, probe):
        return ("from the list",)


def test_each_judge_scores_and_the_word_list_is_read_only_where_it_is_needed(job):
    sim = Counts()
    judges = [Judge("knows", ("bright",)), Judge("any", None)]
    job |= {"sims": {"count": sim}, "judges": judges, "words": Words()}
    found = pipeline.evaluate(methods={"b": Suits()}, **job)
    assert sim.words == [(), ("from the list",)]
    assert found.tables["counts.csv"] == (["judge"], [["knows"], ["any"]])
    assert [score.judge for score in found.scores] == ["knows", "any"] and found.agreement
    assert [sample.names for sample in found.samples] == [("scorer",)], "a second judge shows the same once"
    job["judges"] = judges[:1]
    assert not pipeline.evaluate(methods={"b": Suits()}, **job).agreement


class Splits:
    encoders = ("abc",)

    def explain(self, target, probe, trainer):
        shown = PartSamples(target.name, Unit("0", 0), ("method",), torch.zeros(1).long(), None, None, None)
        said = [Explanation(Unit("0", unit), (("bright", 1.0),), made_by=self.encoders) for unit in (0, 1)]
        return Found(said, {}, [shown], replace(target, name="split"), "better-name")


def test_a_method_may_split_units_name_itself_and_show_its_own(job):
    job |= {"sims": {"count": Counts()}, "judges": [Judge("any", None)], "words": Words()}
    job["targets"] = {"net": replace(job["targets"]["net"], units={"0": [1]})}
    found = pipeline.evaluate(methods={"b": Splits()}, **job)
    assert [(score.target, score.method, score.unit.index) for score in found.scores] == [("split", "better-name", 1)]
    assert found.explanations["net", "better-name"][0].made_by == ("better-name", "abc")
    assert [sample.names for sample in found.samples] == [("method",), ("scorer",)]


def test_a_judge_that_explains_is_refused_before_anything_is_explained(job):
    job |= {"sims": {"count": Counts()}, "judges": [Judge("eye", None, ("abc",))], "words": Words()}

    class Late(Splits):
        def explain(self, target, probe, trainer):
            raise AssertionError("this takes long")

    with pytest.raises(UserError, match="The judge eye has made the explanations of b"):
        pipeline.evaluate(methods={"b": Late()}, **job)
    made = replace(file("net", "mine", 0), explanations=[Explanation(Unit("0", 0), (), made_by=("theirs", "abc"))])
    with pytest.raises(UserError, match="The judge eye has made the explanations of theirs"):
        pipeline.evaluate(methods={}, **job | {"given": [made]})


def test_stored_scores_need_files():
    with pytest.raises(UserError, match="needs files"):
        pipeline.stored([], None)
    assert pipeline.read_given(None) == []


def test_results_are_written_logged_and_printed_by_the_first_process_only(job, tmp_path, capsys, monkeypatch):
    logged = []

    class Logger:
        images = False

        def log(self, evaluation, folder):
            logged.append(sorted(path.name for path in folder.iterdir()))

    score = Score("net", "avg", Unit("0", 0), "mine", "correlation", 0.5, 0.1, 9, "ok", "bright", "labels", "x/test:9")
    evaluation = Evaluation({("net", "mine"): file("net", "mine", 0).explanations}, [score])
    monkeypatch.setattr(pipeline, "is_first", lambda: False)
    pipeline.finish(evaluation, tmp_path, "seed: 0", [Logger()])
    assert not logged and not list(tmp_path.iterdir()) and not capsys.readouterr().out
    monkeypatch.setattr(pipeline, "is_first", lambda: True)
    pipeline.finish(evaluation, tmp_path, "seed: 0", [Logger()], seed=0)
    assert {"config.yaml", "run.json", "scores.csv", "leaderboard.csv", "scores.html"} <= set(logged[0])
    assert "mine" in capsys.readouterr().out
