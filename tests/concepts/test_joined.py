"""Several sources of concepts as one list and one judge."""

import pytest
import torch
from torch import nn

from neuronx.concepts.joined import Joined
from neuronx.concepts.labels import LabelConcepts
from neuronx.concepts.seen import as_seen_by
from neuronx.concepts.visual.bank import VisualConcepts
from neuronx.concepts.visual.examples import patch
from neuronx.data.in_memory import probe_of
from neuronx.errors import UserError
from neuronx.targets.preprocess import Preprocess
from neuronx.targets.target import Target


@pytest.fixture(scope="module")
def probe():
    colours = ("red", "blue", "green", "red", "blue", "green", "white", "black", "white", "black")
    pictures = (torch.stack([patch(colour) for colour in colours]) * 255).to(torch.uint8)
    return probe_of(pictures, labels=[0, 1, 2, 0, 1, 2, 0, 1, 0, 1], class_names=("cat", "Red", "ship"))


def test_lists_stand_side_by_side_and_the_first_to_know_a_name_counts(probe, trainer):
    labels, visual = LabelConcepts(), VisualConcepts()
    both = Joined([labels, visual])
    found = both.concepts(probe, trainer)
    assert both.name == "labels+visual" and both.domain == "" and both.encoders == ()
    assert found.names == both.vocabulary(probe) and len(found.names) == 3 + 228 - 1
    assert found.names[:3] == ("cat", "Red", "ship")
    assert torch.equal(found.scores[:, :3], labels.concepts(probe, trainer).scores)
    green = visual.concepts(probe, trainer).scores[:, VisualConcepts().vocabulary(probe).index("green")]
    assert torch.equal(found.scores[:, found.names.index("green")], green)


def test_each_judges_what_it_knows(probe, trainer):
    names, rows = ["little green", "zebra", "red", "ship"], torch.tensor([4, 1, 2])
    judged = Joined([LabelConcepts(), VisualConcepts()]).judge(names, probe, trainer)
    assert judged.known.tolist() == [True, False, True, True]
    scores = judged.scores(rows)
    apart = VisualConcepts().judge(names, probe, trainer).scores(rows)
    assert torch.equal(scores[:, 0], apart[:, 0]) and not scores[:, 1].any()
    assert scores[:, 2].tolist() == [1, 1, 0], "the label Red, not the colour"
    assert scores[:, 3].tolist() == [0, 0, 1]


def test_no_parts_are_refused():
    with pytest.raises(UserError, match="parts is empty"):
        Joined([])


def test_each_part_sees_what_the_network_sees_where_it_can():
    labels = LabelConcepts()
    target = Target("net", nn.Conv2d(3, 2, 3), Preprocess(crop=32), {"": "avg"})
    both = as_seen_by(target, Joined([labels, VisualConcepts()]))
    assert both.parts == [labels, VisualConcepts(transform=Preprocess(crop=32))]
