"""The accuracy of the network under study: from the pass that records, kept, and at no pass more."""

import logging

import pytest
import torch
from torch import nn

import neuronx
from neuronx.recording.record import record
from neuronx.scoring.accuracy import Accuracy, accuracies, accuracy
from neuronx.targets.custom import load

NAMES = ("red", "green", "blue")


class Counting(nn.Module):
    """Tells which channel is the largest, and counts how many pictures it has seen."""

    def __init__(self, out=3):
        super().__init__()
        self.maps, self.head, self.seen = nn.Conv2d(3, 3, 1), nn.Linear(3, out), 0
        self.maps.weight.data = torch.eye(3)[:, :, None, None].clone()
        self.maps.bias.data.zero_()
        self.head.weight.data = torch.eye(max(out, 3))[:out, :3].clone()
        self.head.bias.data.zero_()

    def forward(self, x):
        self.seen += len(x)
        return self.head(self.maps(x).mean((2, 3)))


def pictures(names=NAMES, wrong=0, seed=0):
    """Pictures of which the label is the largest channel, but for the first `wrong` of the test pictures."""
    pixels = torch.randint(0, 100, (120, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    labels = torch.arange(120) % 3
    pixels[torch.arange(120), labels] = 250
    probe = neuronx.probe_of(pixels, labels=labels, class_names=names)
    probe.labels[probe.splits["test"][:wrong]] += 1
    probe.labels %= 3
    return probe


def test_it_comes_from_the_pass_that_records_and_is_kept(trainer):
    network, probe = Counting(), pictures(wrong=6)
    target = load(network, transform="none", layers="maps", name="colours")
    assert accuracy(target, probe, trainer) is None  # nothing is recorded yet
    record(target, probe, trainer)
    seen = network.seen
    found = accuracy(target, probe, trainer)
    assert found == Accuracy("colours", "memory", right=18, n=24, classes=3) and found.value == 0.75
    assert str(found) == "accuracy of colours on memory: 75.0 % (24 test pictures)"
    record(target, probe, trainer)
    assert accuracy(target, probe, trainer) == found and network.seen == seen
    record(target.select(layers="head"), probe, trainer)
    assert accuracy(target.select(layers="head"), probe, trainer) == found


def test_classes_are_matched_by_name_where_the_network_has_them(trainer):
    probe = pictures(("Blue", "red", "light_green"))  # the network calls channel 0 red, ...
    own = ("blue", "light green", "red", "black")
    target = load(Counting(4), transform="none", layers="maps", classes=own)
    record(target, probe, trainer)
    # Right where the largest channel is 0, called blue by both; 1 is red for the pictures, light green for the network.
    assert accuracy(target, probe, trainer).right == int((probe.labels[probe.splits["test"]] == 0).sum())


@pytest.mark.parametrize("network", [Counting(5), nn.Conv2d(3, 3, 1), nn.Sequential(nn.Flatten(), nn.Linear(192, 7))])
def test_what_cannot_be_compared_has_none(network, trainer):
    layer = "maps" if isinstance(network, Counting) else "" if isinstance(network, nn.Conv2d) else "0"
    target = load(network, transform="none", layers={layer: "none" if layer == "0" else "avg"})
    record(target, pictures(), trainer)
    assert accuracy(target, pictures(), trainer) is None
    assert accuracies([target], pictures(), trainer) == []


def test_pictures_without_labels_or_with_several_have_none(trainer):
    probe = pictures()
    target = load(Counting(), transform="none", layers="maps")
    record(target, probe, trainer)
    assert accuracy(target, probe, trainer).value == 1
    for labels in ("none", torch.ones(120, 3)):
        other = neuronx.probe_of(probe.pictures, labels=labels)
        assert other.fingerprint == probe.fingerprint and accuracy(target, other, trainer) is None


def test_a_study_shows_it_and_chance_is_warned_of(trainer, caplog):
    assert "(accuracy 100.0 %)" in repr(
        neuronx.study(Counting(), pictures(), layer="maps", transform="none", trainer=trainer)
    )
    assert "at chance" not in caplog.text
    broken = Counting()
    broken.head.weight.data = -broken.head.weight.data
    with caplog.at_level(logging.WARNING):
        study = neuronx.study(broken, pictures(), layer="maps", transform="none", trainer=trainer)
    assert study.accuracy.value < 0.4 and "Counting is at chance on memory" in caplog.text


def test_answers_that_are_no_numbers_are_wrong(trainer):
    network = Counting()
    network.head.bias.data[0] = float("nan")
    target = load(network, transform="none", layers="maps")
    record(target, pictures(), trainer)
    assert accuracy(target, pictures(), trainer).right == 0
