"""`experiment=ranges` and `experiment=head`: charts of units, and the head that reads them."""

import csv

import pytest
import torch
from torch import nn

from neuronx.concepts.labels import LabelConcepts
from neuronx.data.in_memory import probe_of
from neuronx.errors import UserError
from neuronx.experiments.explained import Head, Ranges
from neuronx.experiments.given import Given
from neuronx.targets.preprocess import Preprocess
from neuronx.targets.target import Target
from neuronx.types import Explanation, Unit

CLASSES = ("red", "green", "blue")


class Says:
    """Names each unit by a word; the third is inactive."""

    def __init__(self, *words):
        self.words = words

    def explain(self, target, probe, trainer):
        return [
            Explanation(Unit(layer, k), ((word, 1.0),) if word else ())
            for layer in target.layers
            for k, word in enumerate(self.words)
        ]


class Net(nn.Module):
    """Sees how much of each colour a picture has; a head reads `see` linearly, and `bent` through a ReLU."""

    def __init__(self):
        super().__init__()
        self.see, self.bent, self.head = nn.Conv2d(3, 3, 1, bias=False), nn.Identity(), nn.Linear(3, 3)
        self.see.weight.data = torch.eye(3)[:, :, None, None]
        self.head.weight.data, self.head.bias.data = torch.diag(torch.tensor([2.0, 3, 4])), torch.zeros(3)

    def forward(self, x):
        return self.head(self.see(self.bent(x) ** 2).mean((2, 3)))


@pytest.fixture
def given(tmp_path, trainer):
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (100,), generator=generator)
    shades = 60 * torch.rand(100, 3, generator=generator) + 180 * torch.eye(3)[labels]
    probe = probe_of(shades[..., None, None].expand(-1, -1, 4, 4).to(torch.uint8).contiguous())
    probe.labels, probe.class_names = labels, CLASSES
    target = Target("net", Net(), Preprocess(), {"see": "avg", "bent": "avg"}, class_names=CLASSES)
    methods = {"right": Says("red", "green", ""), "wrong": Says("blue", "red", "")}
    return Given(trainer, tmp_path / "run", {"net": target}, probe, methods)


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_each_range_of_a_unit_says_what_its_images_show(given):
    text = Ranges(judge=LabelConcepts(), units=2, bins=3).run(given)
    rows = [row for row in table(given.folder / "ranges.csv") if row["layer"] == "see" and row["unit"] == "0"]
    right = [float(row["percent"]) for row in rows if row["method"] == "right" and row["concept"] == "red"]
    assert right[0] == 0 and right[-1] == 100, "red pictures are those on which the unit is strongest"
    wrong = [float(row["percent"]) for row in rows if row["method"] == "wrong" and row["concept"] == "blue"]
    assert wrong[-1] == 0 < wrong[0]
    most = next(row for row in reversed(rows) if row["method"] == "right" and row["concept"] == "red")
    assert f"100.0 % of {int(most['images'])}" in text, "how many images a share is of"
    assert "of all 100 images of memory, those that methods saw among them (" in text and " test)." in text
    assert "see:2" not in text, "an inactive unit has no chart"
    charts = {path.name for path in given.folder.glob("ranges_*.html")}
    assert {f"ranges_net_see_{unit}_{method}.html" for unit in (0, 1) for method in ("right", "wrong")} < charts


def test_a_head_is_compared_with_what_methods_say_of_the_units_that_it_reads(given):
    text = Head().run(given)
    rows = {row["method"]: row for row in table(given.folder / "head.csv")}
    assert {row["layer"] for row in rows.values()} == {"see"}, "what the head reads through a ReLU is left out"
    assert float(rows["right"]["r"]) > 0.9 > 0 > float(rows["wrong"]["r"])
    assert float(rows["right"]["names the label"]) == pytest.approx(2 / 3, abs=0.2)
    assert "names the prediction" in text and (given.folder / "head_weights_net_see.html").is_file()


def test_what_cannot_be_compared_is_said(given):
    with pytest.raises(UserError, match="no linear function of `bent`"):
        Head().run(
            Given(given.trainer, given.folder, {"net": given.targets["net"].select("bent")}, given.probe, given.methods)
        )
    with pytest.raises(UserError, match=r"choose methods with explain="):
        Head().run(Given(given.trainer, given.folder, given.targets, given.probe))
    with pytest.raises(UserError, match="No unit has an explanation"):
        nothing = {"silent": Says("", "", "")}
        Ranges(judge=LabelConcepts()).run(Given(given.trainer, given.folder, given.targets, given.probe, nothing))
