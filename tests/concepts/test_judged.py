import pytest
import torch
from oracles_simulation import Rows

from neuronx.concepts.judged import recalled, with_support
from neuronx.types import Concepts, Explanation, Unit


@pytest.fixture
def world():
    probe = Rows(50)
    scores = torch.zeros(50, 3)
    scores[probe.splits["train"][:4], 0], scores[probe.splits["test"][:2], 0] = 1, 1
    scores[probe.splits["train"][:3], 1] = 0.5
    scores[probe.splits["val"], 2] = 1
    return probe, Concepts(("dog", "Cat_a", "car"), scores)


def supported(world, *concepts):
    probe, known = world
    said = Explanation(Unit("fc", 0), tuple((concept, 1.0) for concept in concepts))
    (found,) = with_support([said], lambda names: recalled(known, names), probe)
    return found.support


def test_support_counts_train_and_test_images_by_their_scores(world):
    assert supported(world, "dog", "Cat_a", "car") == ((4, 2), (1.5, 0), (0, 0))


def test_a_formula_has_the_support_of_what_it_says(world):
    assert supported(world, "dog AND Cat_a", "NOT dog") == ((1.5, 0), (31, 8))


def test_what_nobody_knows_has_no_support(world):
    assert supported(world, "dog", "whale") == () and supported(world) == ()
