"""Several sources of concepts as one list and one judge."""

import hydra
import pytest
import torch
from torch import nn

import neuronx
from neuronx.command.registry import build
from neuronx.concepts.joined import Joined, WordsBeside, fair, join, with_visual
from neuronx.concepts.labels import LabelConcepts
from neuronx.concepts.seen import as_seen_by
from neuronx.concepts.visual.bank import VisualConcepts
from neuronx.concepts.visual.examples import patch
from neuronx.concepts.words import Words
from neuronx.data.in_memory import probe_of
from neuronx.errors import UserError
from neuronx.targets.preprocess import Preprocess
from neuronx.targets.target import Target
from neuronx.types import Explanation, Judgement, Unit


@pytest.fixture(scope="module")
def probe():
    colours = ("red", "blue", "green", "red", "blue", "green", "white", "black", "white", "black")
    pictures = (torch.stack([patch(colour) for colour in colours]) * 255).to(torch.uint8)
    return probe_of(pictures, labels=[0, 1, 2, 0, 1, 2, 0, 1, 0, 1], class_names=("cat", "Red", "ship"))


def test_lists_stand_side_by_side_and_the_first_to_know_a_name_counts(probe, trainer):
    labels, visual = LabelConcepts(), VisualConcepts()
    both = Joined([labels, visual])
    found = both.concepts(probe, trainer)
    assert both.name == "labels+visual" and both.domain == "" and both.encoders == () and found.encoders == ("visual",)
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


def test_features_stand_beside_a_word_list_and_know_their_own_names_better(probe, trainer):
    listed = WordsBeside(Words(["dog", "Green", "mountain"]), [VisualConcepts()])
    assert listed.suffix == "+visual" and listed.of(probe) == ("dog", "mountain")
    both = join(LabelConcepts(), listed)
    assert both.name == "labels+visual" and "ship" in both.vocabulary(probe) and "green" in both.vocabulary(probe)
    assert join(LabelConcepts(), Words(["dog"])) == join(LabelConcepts(), None) == LabelConcepts()


def test_a_clip_leaves_features_to_those_who_compute_them(probe, trainer):
    judged = with_visual(Anything(), VisualConcepts()).judge(["zebra", "green"], probe, trainer)
    rows = torch.arange(3)
    assert judged.known.all() and judged.scores(rows)[:, 0].tolist() == [0.25, 0.25, 0.25]
    apart = VisualConcepts().judge(["green"], probe, trainer).scores(rows)
    assert torch.equal(judged.scores(rows)[:, 1:], apart)


def test_a_clip_alone_does_not_judge_what_features_made(probe):
    clip, unit = Anything(), Unit("layer4", 0)
    made = {who: Explanation(unit, (("green", 1.0),), made_by=who) for who in (("le_clip", "abc"), ("mine", "visual"))}
    assert fair(clip, probe, [made["le_clip", "abc"]]) is clip
    assert fair(clip, probe, made.values()).name == "visual+anything"
    assert fair(LabelConcepts(), probe, made.values()) == LabelConcepts(), "which says what it does not know"


def test_no_picture_is_looked_at_for_names_that_are_no_features(probe):
    judged = VisualConcepts().judge(["zebra"], probe, lambda: pytest.fail("recorded"))
    assert not judged.known.any() and not judged.scores(torch.arange(2)).any()


@pytest.mark.parametrize("choice, what", [("labels", "le_label"), ("words", "le_clip")])
def test_one_list_of_both_is_a_choice_of_concepts(choice, what):
    with hydra.initialize_config_module("neuronx.configs", version_base="1.3"):
        typed = [f"concepts={choice}+visual", f"explain=[{what},le_visual]", "judge=shapes_judge+visual"]
        cfg = hydra.compose("evaluate", overrides=typed)
    method, alone = build(cfg.explain[what]), build(cfg.explain.le_visual)
    assert [type(part).__name__ for part in method.concepts.parts][1:] == ["VisualConcepts"]
    assert method.suffix == "+visual" and isinstance(alone.concepts, VisualConcepts) and not alone.suffix
    assert build(cfg.judge).vocabulary(None) is None


@pytest.mark.slow
def test_le_label_explains_by_labels_and_features(probe, trainer):
    study = neuronx.study(Colours(), lots(), layer="", transform=None)
    both = study.explain("le_label", words="labels+visual", max_length=1, min_support=0)
    assert both[0].made_by == ("le_label+visual", "visual") and "blue" in str(both[0])
    assert list(study.explanations) == ["le_label+visual"]
    scored = study.score(judge="labels+visual", floors=False, ceiling=False)
    assert {row.status for row in scored} == {"ok"} and min(row.value for row in scored) > 0.9
    with pytest.raises(UserError, match="takes no words"):
        study.explain("le_label", words=["dog"])


class Anything:
    """Judges any phrase."""

    name, domain, encoders = "anything", "", ()

    def vocabulary(self, probe):
        return None

    def judge(self, names, probe, trainer):
        return Judgement(
            torch.ones(len(names), dtype=torch.bool), lambda rows: torch.full((len(rows), len(names)), 0.25)
        )


class Colours(torch.nn.Module):
    """Two units: how blue, and how red."""

    def forward(self, pictures):
        means = pictures.mean((2, 3))
        return torch.stack([(means[:, 2] - means[:, 0]).clamp(min=0), (means[:, 0] - means[:, 2]).clamp(min=0)], 1)


def lots():
    """Pictures with patches of many sizes and two colours; labels know nothing of them."""
    pictures = [patch(("blue", "red")[i % 2], size=40 + i) for i in range(100)]
    return probe_of(
        (torch.stack(pictures) * 255).to(torch.uint8), labels=[i % 3 for i in range(100)], class_names=list("abc")
    )
