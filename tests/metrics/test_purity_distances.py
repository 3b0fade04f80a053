import math

import numpy as np
import oracles_purity as oracle
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuronx.metrics.purity import alignment, nearest, pair_distances, separation, shuffled


def drawn(units=4, m=9, width=5, seed=0):
    return torch.randn(units, m, width, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4), st.integers(1, 8), st.integers(-1, 3), st.integers(0, 10_000))
def test_means_are_those_of_the_pairs(units, m, most, seed):
    draw = torch.Generator().manual_seed(seed)
    points, labels = drawn(units, m, 3, seed), torch.randint(-1, most + 1, (units, m), generator=draw)
    found = separation(pair_distances(points), labels)
    for u in range(units):
        expected = oracle.separation(points[u].double().numpy(), labels[u].numpy())
        got = [float(found.intra[u]), float(found.inter[u]), float(found.overall[u])]
        np.testing.assert_allclose(got, expected, rtol=1e-9)


def test_one_cluster_and_singletons_have_no_gap():
    far = pair_distances(drawn(1, 4))
    for labels in ([0, 0, 0, 0], [0, 1, 2, 3]):
        found = separation(far, torch.tensor([labels]))
        assert found.intra == found.inter and found.gap == 0
        assert float(found.overall) == pytest.approx(float(found.intra))
    assert math.isnan(separation(far, torch.tensor([[0, -1, -1, -1]])).overall)


def test_distances_are_exact_where_digits_cancel():
    points = drawn(2, 6, 300).float() + 1000
    points[:, 3] = points[:, 0]
    far = pair_distances(points)
    assert (far.diagonal(dim1=1, dim2=2) == 0).all() and (far[:, 0, 3] == 0).all()
    exact = (points.double()[:, :, None] - points.double()[:, None]).square().sum(3).sqrt()
    torch.testing.assert_close(far, exact, rtol=1e-9, atol=1e-9)
    assert far.dtype == torch.float64 and torch.equal(far, far.transpose(1, 2))


def test_shuffled_labels_keep_sizes_and_places():
    labels = torch.tensor([[0, 0, 0, 1, -1, 1, 2], [-1, 2, 0, 0, 1, -1, -1]]).repeat(50, 1)
    found = shuffled(labels, 3)
    assert torch.equal(found < 0, labels < 0)
    assert torch.equal(found.sort(1).values, labels.sort(1).values)
    assert torch.equal(found, shuffled(labels, 3)) and not torch.equal(found, shuffled(labels, 4))
    first = (found[0::2, 0] == 0).float().mean()
    assert 0.3 < first < 0.7  # three of six


def test_points_go_to_the_nearest_centroid():
    points, labels = drawn(3, 12), torch.arange(12).remainder(3).repeat(3, 1)
    labels[:, 6:] = -1
    labels[2] = -1  # no clusters at all
    wanted = torch.zeros(3, 12, dtype=torch.bool)
    wanted[:, 6:11] = True
    found = nearest(points, labels, wanted)
    for u in range(2):
        means = torch.stack([points[u][labels[u] == c].mean(0) for c in range(3)])
        assert torch.equal(found[u, 6:11], torch.cdist(points[u, 6:11], means).argmin(1))
    assert (found[~wanted] == -1).all() and (found[2] == -1).all()


def test_alignment_is_the_correlation_over_pairs():
    a, b = drawn(6, 7, 4, 0), drawn(6, 7, 3, 1)
    b = b + a[..., :3]
    a[2, 1] = a[2, 0]  # at distance 0: left out
    counted = torch.ones(6, 7, dtype=torch.bool)
    counted[:, 5:] = False
    found = alignment(pair_distances(a), pair_distances(b), counted, subsets=3, seed=1)
    x, y = ([one.double().numpy() for one in some[:, :5]] for some in (a, b))
    assert found.pooled == pytest.approx(oracle.correlation(x, y))
    np.testing.assert_allclose(found.within, [oracle.correlation([p], [q]) for p, q in zip(x, y, strict=True)])
    order = torch.randperm(6, generator=torch.Generator().manual_seed(1)).view(3, 2).tolist()
    expected = [oracle.correlation([x[i] for i in own], [y[i] for i in own]) for own in order]
    np.testing.assert_allclose(found.subsets, expected)


def test_units_without_variation_have_no_correlation():
    same = torch.ones(2, 4, 4) - torch.eye(4)
    found = alignment(same, pair_distances(drawn(2, 4)), torch.ones(2, 4, dtype=torch.bool))
    assert found.within.isnan().all() and math.isnan(found.pooled) and len(found.subsets) == 2
