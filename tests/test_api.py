"""From Python: methods that need masks, and both ways to score."""

import pytest

import neuronx
from neuronx.errors import UserError
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


def test_public_names_exist():
    for name in (*neuronx.__all__, "milannotations"):
        assert getattr(neuronx, name) is not None
