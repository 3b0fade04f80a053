import math

import pytest
import torch
from torch import nn

from neuronx.data.in_memory import probe_of
from neuronx.errors import UserError
from neuronx.report.head_study import alignment_figure, named_by_unit_figure, study_head, write_head_study
from neuronx.targets.preprocess import Preprocess
from neuronx.targets.target import Target
from neuronx.types import Explanation, Unit

CLASSES = ("red", "green", "blue")


class Net(nn.Module):
    """Sees colours in maps and reads their mean linearly; `wide` is not what the head reads."""

    def __init__(self):
        super().__init__()
        self.see = nn.Conv2d(3, 3, 1, bias=False)
        self.wide = nn.Linear(3, 5)
        self.head = nn.Linear(3, 3)
        self.see.weight.data = torch.eye(3)[:, :, None, None]
        self.head.weight.data = torch.tensor([[2.0, 0.1, 0], [0, 3, 0.2], [0.3, 0, 4]])
        self.head.bias.data = torch.tensor([0.5, -0.5, 0.1])

    def forward(self, x):
        z = self.see(x).mean((2, 3))
        self.wide(z)
        return self.head(z)


@pytest.fixture
def probe():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (100,), generator=generator)
    shades = 60 * torch.rand(100, 3, generator=generator) + 180 * torch.eye(3)[labels]
    made = probe_of(shades[..., None, None].expand(-1, -1, 4, 4).to(torch.uint8).contiguous())
    made.labels, made.class_names = labels, CLASSES
    return made


def said(*words, layer="see"):
    return [Explanation(Unit(layer, k), ((word, 1.0),) if word else ()) for k, word in enumerate(words)]


def target():
    return Target("net", Net(), Preprocess(), {"see": "avg", "wide": "none"}, class_names=CLASSES)


def test_a_head_is_found_and_studied(probe, trainer, tmp_path):
    explained = {"right": said(*CLASSES), "wrong": said("blue", "red", "green")}
    found = study_head(target(), "see", explained, probe, trainer)
    right, wrong = found.named["right"], found.named["wrong"]
    assert right.accuracy == right.equal_to_label == right.equal_to_prediction == 1
    assert len(right.predicted) == len(probe.split("test")) and wrong.equal_to_label == 0
    assert [link.weight for link in found.alignment["right"].links[:3]] == [4, 3, 2]
    assert found.alignment["right"].pearson > 0.9 > found.alignment["wrong"].pearson
    paths = write_head_study(found, tmp_path)
    assert [path.name for path in paths] == ["head_weights_net_see.html", "named_by_unit_net_see.html"]
    before = [path.read_bytes() for path in paths]
    assert [path.read_bytes() for path in write_head_study(found, tmp_path)] == before


def test_images_and_text_space_can_be_chosen(probe, trainer):
    rows = torch.arange(7)
    embed = {"red": [1.0, 0, 0], "green": [0, 1, 0], "blue": [0, 0, 1], "crimson": [0.9, 0.1, 0]}
    found = study_head(
        target(),
        "see",
        {"m": said("crimson", "", "")},
        probe,
        trainer,
        lambda t: torch.tensor([embed[x] for x in t]),
        rows,
    )
    assert found.named["m"].named.tolist() == [0] * 7 and found.alignment["m"].n_units == 1


def test_a_probe_without_labels_has_no_share_of_labels(probe, trainer):
    probe.labels, probe.class_names = None, ()
    named = study_head(target(), "see", {"m": said(*CLASSES)}, probe, trainer).named["m"]
    assert math.isnan(named.equal_to_label) and named.equal_to_prediction == 1
    assert [bar.name for bar in named_by_unit_figure({"m": named}).data][1].endswith("at random")


def test_what_is_no_head_is_said(probe, trainer):
    with pytest.raises(UserError, match=r"no linear function of `wide`"):
        study_head(target(), "wide", {"m": said(*CLASSES, layer="wide")}, probe, trainer)
    nameless = Target("net", Net(), Preprocess(), {"see": "avg"})
    probe.labels, probe.class_names = None, ()
    with pytest.raises(UserError, match="3 outputs and 0 class names"):
        study_head(nameless, "see", {"m": said(*CLASSES)}, probe, trainer)


def test_figures_of_nothing_are_empty():
    assert not alignment_figure({}).data and not named_by_unit_figure({}).data
