from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from linear_cases import planted

from neuronx.methods.linear.moments import ConceptMoments, RunningMoments, moments

CASE = planted(images=200, concepts=150, units=5)
X, Y = CASE.scores, CASE.values


def parts(one: ConceptMoments):
    return [one.concept_mean, one.unit_mean, one.gram, one.cross, one.squares]


def assert_close(one: ConceptMoments, other: ConceptMoments, tolerance=1e-12):
    assert one.count == other.count
    for a, b in zip(parts(one), parts(other), strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def plain(x, y):
    x, y = x.double(), y.double()
    u, v = x - x.mean(0), y - y.mean(0)
    return ConceptMoments(len(x), x.mean(0), y.mean(0), u.T @ u, u.T @ v, (v * v).sum(0))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 199), max_size=6))
def test_any_split_into_batches_gives_the_same(cuts):
    edges = [0, *sorted(set(cuts)), 200]
    batches = [(X[a:b], Y[a:b]) for a, b in pairwise(edges)]
    assert_close(moments(batches), plain(X, Y))
    merged = moments(batches[:1])
    for batch in batches[1:]:
        merged = merged + moments([batch])
    assert_close(merged, plain(X, Y))


def test_images_in_another_order_give_the_same():
    order = torch.randperm(200, generator=torch.Generator().manual_seed(1))
    assert_close(moments([(X[order], Y[order])]), plain(X, Y))


def test_far_from_zero_nothing_cancels():
    x, y = X + 1000, Y - 4000
    assert_close(moments((x[i : i + 7], y[i : i + 7]) for i in range(0, 200, 7)), plain(x, y), 1e-9)


def test_empty_batches_change_nothing():
    running = RunningMoments(150, 5)
    running.add(X[:0], Y[:0])
    running.add(X, Y)
    running.add(X[:0], Y[:0])
    assert_close(running.moments(), plain(X, Y))
    with pytest.raises(ValueError, match="at least one batch"):
        moments([])


@pytest.mark.parametrize("constant", [0.0, 0.1, 1.0, -3.7, 1e-30, 1e6])
def test_what_never_changes_is_known_whatever_its_value(constant):
    x, y = X.clone(), Y.clone()
    x[:, 3], y[:, 1] = constant, constant
    found = moments((x[i : i + 13], y[i : i + 13]) for i in range(0, 200, 13))
    assert found.live_concepts.tolist() == [c != 3 for c in range(150)]
    assert found.live_units.tolist() == [k != 1 for k in range(5)]


def test_the_smallest_change_of_a_float_is_a_change():
    y = torch.full((200, 1), 0.1)
    y[7] = torch.nextafter(y[7], torch.tensor(1.0))
    assert moments([(X, y)]).live_units.tolist() == [True]


def test_some_units():
    some = torch.tensor([4, 0])
    assert_close(moments([(X, Y)]).units(some), moments([(X, Y[:, some])]))
