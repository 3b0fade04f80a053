"""Units that padding makes, named by their place."""

import pytest
import torch
from torch import nn

from neuronx.data.in_memory import probe_of
from neuronx.errors import Unsuitable
from neuronx.methods.places.method import Places
from neuronx.recording.mean_maps import mean_maps
from neuronx.targets.preprocess import Preprocess
from neuronx.targets.target import Target


class Padded(nn.Module):
    """Unit 0 fires in the padded top right corner, 1 at the padded left border, 2 where it is bright, 3 never."""

    def __init__(self):
        super().__init__()
        self.maps = nn.Conv2d(1, 4, 3, padding=1)
        self.relu = nn.ReLU()
        weight = torch.zeros(4, 1, 3, 3)
        weight[0, 0, 0, 1] = weight[0, 0, 1, 2] = weight[1, 0, 1, 0] = -1
        weight[2, 0, 1, 1] = 1
        self.maps.weight.data, self.maps.bias.data = weight, torch.tensor([0.1, 0.1, 0.0, -1.0])

    def forward(self, images):
        return self.relu(self.maps(images.mean(1, keepdim=True)))


@pytest.fixture(scope="module")
def probe():
    pictures = torch.randint(128, 256, (60, 3, 12, 12), generator=torch.Generator().manual_seed(0))
    return probe_of(pictures.to(torch.uint8))


def target(layer="relu", pool="avg", **more):
    return Target("padded", Padded(), Preprocess(), {layer: pool}, **more)


def test_units_of_padding_are_named_by_place(probe, trainer):
    found = Places().explain(target(), probe, trainer)
    assert [str(one) for one in found.explanations[:2]] == ["top right corner", "left border"]
    notes = [dict(one.notes) for one in found.explanations]
    assert notes[0]["by place"] > 0.99 and notes[0]["correlation"] > 0.99
    assert notes[2]["by place"] < 0.25 and abs(notes[2]["correlation"]) < 0.25
    assert str(found.explanations[3]) == "inactive"
    columns, rows = found.tables["places_padded_relu.csv"]
    assert columns == ("unit", "place", "by place", "correlation") and rows[0][:2] in (
        [0, "top right corner"],
        [1, "left border"],
    )


def test_units_asked_for(probe, trainer):
    (found,) = Places().explain(target(units={"relu": [1]}), probe, trainer).explanations
    assert str(found.unit) == "relu:1" and str(found) == "left border"


def test_mean_maps_are_those_of_the_plain_mean(probe, trainer):
    one = target()
    rows = probe.split("val")
    found = mean_maps(one, probe, trainer, rows)["relu"]
    maps = one.module(probe.load(rows.tolist()).float() / 255).double()
    assert torch.allclose(found.mean, maps.mean(0), atol=1e-6)
    assert torch.allclose(found.square, maps.square().mean((0, 2, 3)), atol=1e-6)
    expected = maps.mean(0).flatten(1).var(1, correction=0) / maps.movedim(1, 0).flatten(1).var(1, correction=0)
    assert torch.allclose(found.by_place[:3], expected[:3], atol=1e-5) and found.by_place[3] == 0


class Tokens(nn.Module):
    """Tokens of 4 x 4 patches behind a class token; unit 0 fires at the last patch."""

    def __init__(self):
        super().__init__()
        self.out = nn.Identity()

    def forward(self, images):
        tokens = nn.functional.avg_pool2d(images[:, :2], 3).flatten(2).transpose(1, 2).clone()
        tokens[:, :, 0] = 0
        tokens[:, -1, 0] = 1
        return self.out(torch.cat([tokens.mean(1, keepdim=True), tokens], 1))


def test_tokens_have_places_and_class_tokens_none(probe, trainer):
    patches = Target("tokens", Tokens(), Preprocess(), {"out": "patch"}, prefix_tokens=1)
    assert str(Places().explain(patches, probe, trainer).explanations[0]) == "bottom right corner"
    first = Target("tokens", Tokens(), Preprocess(), {"out": "first"}, prefix_tokens=1)
    with pytest.raises(Unsuitable, match=r"Layer `out` of tokens .*no positions \(pool=first\).*pool=patch"):
        Places().explain(first, probe, trainer)
