from dataclasses import replace

import numpy as np
import pytest
import torch
from oracles_simulation import Rows, Table, recorded

from neuronx.scoring.correlation import Correlation
from neuronx.types import Explanation, Unit

plain = Correlation(floors=False, ceiling=False, batch_size=64)


@pytest.fixture
def world():
    """Unit 0 is twice concept a plus concept b, with noise; unit 1 is concept c."""
    draw = torch.Generator().manual_seed(0)
    scores = torch.rand(400, 3, generator=draw)
    noise = 0.2 * torch.randn(400, 2, generator=draw)
    values = torch.stack([2 * scores[:, 0] + scores[:, 1], scores[:, 2]], 1) + noise
    return Rows(400), Table(("a", "b", "c"), scores), recorded(values), scores


def score(world, explained, sim=plain, trainer=None):
    probe, judge, layer, _ = world
    return sim.score_recorded(explained, {"layer": layer}, "net", probe, judge, trainer).rows


def parts(*concepts):
    return [Explanation(Unit("layer", 0, at), ((concept, 1.0),)) for at, concept in enumerate(concepts)]


def test_a_unit_in_parts_is_predicted_by_their_weighted_sum(world, trainer):
    probe, _, layer, scores = world
    found = score(world, {"m": parts("a", "b")}, trainer=trainer)
    whole = next(one for one in found if one.method == "m")
    assert whole.unit == Unit("layer", 0) and whole.explanation == "a | b"
    fit, test = probe.split("train", "val"), probe.split("test")
    x = np.c_[scores[:, :2].double().numpy(), np.ones(400)]
    weights = np.linalg.lstsq(x[fit], layer.values[fit, 0].double().numpy(), rcond=None)[0]
    expected = np.corrcoef(x[test] @ weights, layer.values[test, 0].double().numpy())[0, 1]
    assert whole.value == pytest.approx(expected, abs=1e-10)
    assert [str(one.unit) for one in found if one.method == "m-parts"] == ["layer:0/0", "layer:0/1"]


def test_parts_are_cut_at_nothing(world, trainer):
    probe, _, layer, scores = world
    low = [Explanation(Unit("layer", 0, 0), (("a", 1.0),), bias=-0.5)]
    whole = next(one for one in score(world, {"m": low}, trainer=trainer) if one.method == "m")
    test = probe.split("test")
    expected = np.corrcoef((scores[test, 0] - 0.5).clamp(min=0).numpy(), layer.values[test, 0].numpy())[0, 1]
    assert whole.value == pytest.approx(expected, abs=1e-5)


def test_units_left_whole_stand_beside_sums(world, trainer):
    whole = Explanation(Unit("layer", 1), (("c", 1.0),))
    found = score(world, {"m": [*parts("a", "b"), whole]}, trainer=trainer)
    assert sorted(str(one.unit) for one in found if one.method == "m") == ["layer:0", "layer:1"]
    with_floors = score(world, {"m": [*parts("a", "b"), whole]}, Correlation(batch_size=64), trainer)
    assert {one.method for one in with_floors} == {
        "m", "m-parts", "random-m", "random-m-parts", "shuffled-m", "shuffled-m-parts", "ceiling"
    }  # fmt: skip
    assert sorted(str(one.unit) for one in with_floors if one.method == "ceiling") == ["layer:0", "layer:1"]


def test_a_part_that_says_nothing_adds_nothing(world, trainer):
    silent = Explanation(Unit("layer", 0, 2), ())
    both, all_three = (
        next(one.value for one in score(world, {"m": said}, trainer=trainer) if one.method == "m")
        for said in (parts("a", "b"), [*parts("a", "b"), silent])
    )
    assert both == pytest.approx(all_three, abs=1e-9)


def test_a_unit_with_an_unjudged_part_is_unjudged(world, trainer):
    found = score(world, {"m": parts("a", "unheard of")}, trainer=trainer)
    status = {(one.method, str(one.unit)): one.status for one in found}
    assert status["m", "layer:0"] == "unjudged"
    assert status["m-parts", "layer:0/0"] == "ok"


def test_a_unit_that_never_changes_is_inactive(world, trainer):
    probe, judge, layer, scores = world
    still = replace(layer, values=torch.zeros_like(layer.values))
    found = score((probe, judge, still, scores), {"m": parts("a", "b")}, trainer=trainer)
    assert {one.status for one in found} == {"inactive"}


def test_a_unit_is_broken_as_its_parts_are(world, trainer):
    probe, judge, layer, scores = world
    found = score((probe, judge, replace(layer, broken=(0,)), scores), {"m": parts("a", "b")}, trainer=trainer)
    assert {(one.method, one.status) for one in found} == {("m", "broken"), ("m-parts", "broken")}
