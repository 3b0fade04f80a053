"""The methods describe parts of units as they describe units."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "milan"))
from test_milan_describer import captioner

from neuronx.methods.clip_dissect.method import ClipDissect
from neuronx.methods.milan.describer import Describer, encoder_of
from neuronx.methods.milan.method import Milan
from neuronx.recording.exemplars import find_exemplars, gather
from neuronx.recording.record import record
from neuronx.types import Unit
from neuronx.world import networks as shapes
from neuronx.world.clip import ShapesClip
from neuronx.world.pictures.probe import ShapesProbe

UNIT, FIRST = 5, 64


class Halves:
    """A unit that means one thing on even and another on odd images."""

    units = (Unit("layer4", UNIT, 0), Unit("layer4", UNIT, 1))

    def gates(self, target, probe, trainer):
        assert target.parts is None
        return torch.nn.functional.one_hot(torch.arange(len(probe)) % 2).float()


class Few:
    name = "few"

    def of(self, probe):
        return ("red", "green", "blue", "star")


@pytest.fixture(scope="module")
def target():
    network = shapes.load("shapes_resnet", layers=["layer4"])
    return replace(network, parts={"layer4": Halves()}, units={"layer4": [FIRST, FIRST + 1]})


@pytest.fixture(scope="module")
def probe():
    return ShapesProbe(60, 3)


def test_recordings_have_parts_after_the_units(target, probe, trainer):
    found = record(target, probe, trainer)["layer4"]
    assert found.units[FIRST:] == Halves.units
    even, odd = found.values[:, FIRST], found.values[:, FIRST + 1]
    assert (even[1::2] == 0).all() and (odd[0::2] == 0).all()
    torch.testing.assert_close(even + odd, found.values[:, UNIT])
    maxima = record(target, probe, trainer, {"layer4": "max", "layer3": "avg"})
    assert len(maxima["layer4"].units) == 66 and len(maxima["layer3"].units) == 48


def test_milan_looks_at_the_masks_of_the_unit_on_the_exemplars_of_the_part(target, probe, trainer):
    describer = Describer(captioner(("red", "green")).eval(), encoder_of("shapes_resnet"), "test", domain="shapes")
    found = Milan(describer, k=4).explain(target, probe, trainer)
    assert [one.unit for one in found] == list(Halves.units)
    assert [{row % 2 for row in one.evidence} for one in found] == [{0}, {1}]
    exemplars = find_exemplars(target, probe, trainer, k=4)
    maps, _ = gather(exemplars, {"layer4": torch.tensor([FIRST])}, target, probe, trainer)
    with torch.inference_mode(), target.record(["layer4"]) as seen:
        target.module(target.transform(probe.load(list(found[0].evidence))))
    torch.testing.assert_close(maps["layer4"][0], seen["layer4"][:, UNIT])


def test_clip_dissect_labels_parts(target, probe, trainer):
    clip = ShapesClip(pretrained="shapes_explainer", name="shapes")
    method = ClipDissect(clip, Few(), similarity="cos_similarity_cubed", n_evidence=5)
    found = method.explain(target, probe, trainer)
    assert [one.unit for one in found] == list(Halves.units)
    assert [{row % 2 for row in one.evidence} for one in found] == [{0}, {1}]
