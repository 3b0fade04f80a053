"""The captioner in checkpoints/ is as good as its card says."""

import json

import pytest

from neuronx import checkpoints, milan
from neuronx.methods.milan.features import features_of
from neuronx.methods.milan.training.descriptions import held_out
from neuronx.methods.milan.training.milan import measure
from neuronx.world.annotations.embedded import EmbeddedAnnotations

CARD = json.loads((checkpoints.FOLDER / "milan_base.json").read_text())


def test_it_names_what_units_answer_to_more_often_than_constants_and_nearest_units_do():
    figures = CARD["figures"]
    assert CARD["command"] == "python train.py milan=base ship=true" and CARD["data"]["annotations"] == "base"
    assert figures["units never seen"] >= 200 and figures["names the meaning, rerank"] >= 0.6
    beaten = {name: ends for name, ends in figures.items() if "before nearest" in name or "before always" in name}
    assert len(beaten) == 3 and min(low for low, _ in beaten.values()) > 0


@pytest.mark.slow
def test_its_figures_are_found_again(trainer):
    describer = milan.pretrained("milan_base")
    source = EmbeddedAnnotations()
    units = source.load("base", trainer)
    features = features_of(units, describer.encoder, trainer)
    known, test = held_out(len(units), CARD["data"]["test"], CARD["data"]["seed"])
    assert len(units) == CARD["data"]["units"]
    figures = measure(describer.captioner, features, units.annotations, test, known, source.truth(units))
    assert figures.keys() == CARD["figures"].keys()
    for name, value in CARD["figures"].items():
        assert figures[name] == pytest.approx(value, abs=0.02), name
