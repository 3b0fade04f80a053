"""Labels of pictures are matched with a network's classes by name, or refused."""

import pytest
import torch
from torch import nn

from neuronx.concepts.class_labels import class_labels
from neuronx.data.in_memory import probe_of
from neuronx.errors import UserError
from neuronx.targets.preprocess import Preprocess
from neuronx.targets.target import Target

LABELS = [0, 1, 2, 1]


def labelled(names, labels=LABELS):
    pictures = torch.arange(len(labels) * 48, dtype=torch.uint8).view(-1, 3, 4, 4)
    return probe_of(pictures, labels=labels, class_names=names)


def network(*names):
    return Target("net", nn.Identity(), Preprocess(), {"": "avg"}, class_names=names)


@pytest.mark.parametrize(
    ("own", "theirs", "expected"),
    [
        (("cat", "dog", "owl"), ("cat", "dog", "owl"), [0, 1, 2, 1]),
        (("owl", "cat", "dog"), ("cat", "dog", "owl"), [1, 2, 0, 2]),  # another order
        (("ant", "owl", "cat", "dog"), ("cat", "dog", "owl"), [2, 3, 1, 3]),  # some of the network's classes
        (("Sea_lion", "dog", "owl"), ("sea lion", "dog", "owl"), [0, 1, 2, 1]),
        ((), ("cat", "dog", "owl"), [0, 1, 2, 1]),
    ],
)
def test_classes_are_matched_by_name(own, theirs, expected):
    assert class_labels(network(*own), labelled(theirs), 3 if not own else len(own)).tolist() == expected


@pytest.mark.parametrize(
    ("own", "theirs", "message"),
    [
        (("cat", "dog", "owl"), ("ship", "car", "owl"), r"shows 2 of 3 classes that net does not know: ship, car; its"),
        ((), ("cat", "dog", "owl"), "net tells 10 classes apart, `memory` is labelled with 3"),
    ],
)
def test_other_classes_are_refused(own, theirs, message):
    with pytest.raises(UserError, match=message):
        class_labels(network(*own), labelled(theirs), len(own) or 10)


def test_pictures_without_labels_are_refused():
    with pytest.raises(UserError, match="has no labels"):
        class_labels(network("cat"), probe_of(torch.zeros(2, 3, 4, 4, dtype=torch.uint8)))
