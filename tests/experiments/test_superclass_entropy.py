import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuronx.errors import UserError
from neuronx.experiments.superclasses import inside, kinds, reshuffled

NAMES = ("cat", "dog", "car", "bus", "tree")
TREE = {"thing": [0, 1, 2, 3, 4], "animal": [0, 1], "vehicle": [2, 3], "pet": [0, 1], "big": [3]}


def test_a_class_is_of_its_largest_superclass_that_is_small_enough():
    level = kinds(NAMES, TREE, 0.4)
    assert level.count == 2 and level.exclusive and level.name == "up to 40% of classes"
    assert level.table.argmax(1).tolist() == [0, 0, 1, 1, 2]  # the tree has none, and is a kind of its own
    assert kinds(NAMES, TREE, 0.2).table.argmax(1).unique().numel() == 5
    assert kinds(NAMES, TREE, 1).table.tolist() == [[1.0]] * 5
    everything = kinds(NAMES, TREE, "all")
    assert everything.table.shape == (5, 5) and not everything.exclusive and everything.table[3].sum() == 3


@pytest.mark.parametrize("level", ["some", 0, 1.5, 0.1])
def test_levels_that_do_not_exist(level):
    with pytest.raises(UserError, match="level"):
        kinds(NAMES, TREE, level)
    with pytest.raises(UserError, match="hierarchy"):
        kinds(NAMES, {}, "all")


def entropy(values):
    shares = [values.count(value) / len(values) for value in set(values)]
    return -sum(share * math.log2(share) for share in shares)


@given(st.lists(st.tuples(st.integers(-1, 2), st.integers(0, 3)), min_size=1, max_size=12))
def test_entropy_is_that_of_the_formula(points):
    labels = torch.tensor([[part for part, _ in points]])
    shows = torch.nn.functional.one_hot(torch.tensor([[kind for _, kind in points]]), 4).double()
    parts = [[kind for part, kind in points if part == c] for c in range(3)]
    counted = max(1, sum(map(len, parts)))
    wanted = sum(len(own) / counted * entropy(own) for own in parts if own)
    assert float(inside(labels[None], shows, True)) == pytest.approx(wanted, abs=1e-12)
    each = [[[kind == c for kind in own] for own in parts if own] for c in range(4)]
    wanted = sum(len(own) / counted * entropy(own) for column in each for own in column)
    assert float(inside(labels[None], shows, False)) == pytest.approx(wanted, abs=1e-12)


def test_random_parts_keep_sizes_and_what_does_not_count():
    labels = torch.tensor([[0, 0, 0, 1, -1, 1], [-1, 1, 0, 0, 0, 0]])
    drawn = reshuffled(labels, 300, seed=3)
    assert drawn.shape == (300, 2, 6) and torch.equal(drawn, reshuffled(labels, 300, seed=3))
    assert torch.equal(drawn.sort(2).values, labels.sort(1).values.expand(300, -1, -1))
    assert (drawn[:, 0, 4] == -1).all() and (drawn[:, 1, 0] == -1).all()
    share = (drawn[:, 1, 1:] == 1).double().mean(0)
    assert torch.allclose(share, torch.full((5,), 0.2, dtype=torch.float64), atol=0.08)
