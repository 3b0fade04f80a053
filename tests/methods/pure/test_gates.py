import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles_pure_splits import blobs

from neuronx.methods.pure.gates import centres, fit, hard, reject, soft, squared_distances


@pytest.fixture
def fitted():
    points, labels = blobs(units=3, points=60, k=2)
    labels = labels.clone()
    labels[2] = 0  # has one part
    return points, labels, centres(points, labels, 2)


def test_centres_are_means_with_the_radius_of_their_points(fitted):
    points, labels, found = fitted
    own = points[0][labels[0] == 1]
    torch.testing.assert_close(found.points[0, 1], own.mean(0))
    far = (own - own.mean(0)).norm(dim=1)
    assert found.radius[0, 1] == pytest.approx(float(far.quantile(0.95)), rel=1e-5)
    assert found.there.tolist() == [[True, True], [True, True], [True, False]]


def test_the_nearest_part_gets_it_all(fitted):
    points, labels, found = fitted
    own = torch.arange(3).repeat_interleave(60)
    squares = squared_distances(points.flatten(0, 1), own, found)
    assert squares[0, 0] == pytest.approx(float((points[0, 0] - found.points[0, 0]).square().sum()), rel=1e-5)
    assert (hard(squares).argmax(1) == labels.flatten()).all()
    assert (soft(squares, found.spread[own])[:, 1] > 0.5).equal(labels.flatten() == 1)


def test_soft_gates_are_those_of_equal_round_clouds():
    found = soft(torch.tensor([[0.0, 2.0], [1.0, torch.inf]]), torch.tensor([0.5, 1.0]))
    torch.testing.assert_close(found, torch.tensor([[1 / (1 + math.exp(-2)), 1 / (1 + math.exp(2))], [1.0, 0.0]]))


def test_what_is_far_from_all_parts_is_rejected(fitted):
    _, _, found = fitted
    far = squared_distances(torch.full((1, 12), 50.0), torch.tensor([0]), found)
    assert reject(far, found.radius[:1]).tolist() == [[0, 0, 1]]
    near = squared_distances(found.points[0], torch.tensor([0, 0]), found)
    assert reject(near, found.radius[[0, 0]]).tolist() == [[1, 0, 0], [0, 1, 0]]


@given(st.integers(0, 2**16), st.floats(0, 100), st.floats(1e-6, 100))
@settings(max_examples=30, deadline=None)
def test_gates_add_up_to_one(seed, radius, spread):
    squares = torch.rand(20, 4, generator=torch.Generator().manual_seed(seed)) * 100
    squares[:10, 2:] = torch.inf
    for gates in (
        hard(squares),
        soft(squares, torch.full((20,), spread)),
        reject(squares, torch.full((20, 4), radius)),
    ):
        assert (gates >= 0).all() and (gates[:10, 2:4] == 0).all()
        torch.testing.assert_close(gates.sum(1), torch.ones(20), atol=1e-6, rtol=0)


def test_the_distilled_gate_learns_what_the_circuits_say():
    draw = torch.Generator().manual_seed(0)
    lower = torch.rand(400, 10, generator=draw)
    labels = torch.stack([(lower[:, 0] > lower[:, 1]).long(), torch.zeros(400).long(), lower[:, 2:5].argmax(1)], 1)
    labels[::7, 0] = -1
    there = torch.tensor([[True, True, False], [True, False, False], [True, True, True]])
    learnt = fit(lower[:300], labels[:300], there)
    right = (learnt.parts(lower[300:]) == labels[300:]) | (labels[300:] < 0)
    assert right.float().mean(0).min() > 0.9
    assert right[:, 1].all()
