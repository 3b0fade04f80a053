"""The main job with methods that images do not suit, and with exemplars asked for in several ways."""

import pytest
import torch
from torch import nn

from neuronx import probe_of
from neuronx.command import pipeline
from neuronx.errors import Unsuitable, UserError
from neuronx.targets.target import Target
from neuronx.types import Explanation, Found, Unit


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


@pytest.mark.parametrize(
    "wanted, message",
    [
        ({"k": 3, "images": "some"}, "exemplars.images"),
        ({"k": 3, "quantiles": 0.5}, "option of exemplars"),
        ({"k": 99}, "99"),
        ({"k": 3, "quantile": 1}, "quantile"),
    ],
)
def test_exemplars_that_cannot_be(job, tmp_path, wanted, message):
    with pytest.raises(UserError, match=message):
        pipeline.draw_exemplars(job["targets"], job["probe"], wanted, job["trainer"], tmp_path, {})


def test_exemplars_among_all_images(job, tmp_path):
    pipeline.draw_exemplars(job["targets"], job["probe"], {"k": 40, "images": "all"}, job["trainer"], tmp_path, {})
    ids = (tmp_path / "exemplars" / "net" / "0" / "ids.csv").read_text().splitlines()
    assert [sorted(map(int, line.split(","))) for line in ids] == [list(range(40))] * 2
