import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles_pure_splits import blobs, inertia
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, silhouette_score

from neuronx.errors import UserError
from neuronx.methods.pure.clusters import PartOptions, choose, dissolved, distances, kmeans, products, silhouette


def everything(points):
    return torch.ones(points.shape[:2], dtype=torch.bool)


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_kmeans_is_that_of_scikit_learn(k):
    points, _ = blobs(k=3, apart=4)
    found = kmeans(products(points, everything(points)), k, n_init=20)
    for unit, own in enumerate(points.numpy()):
        reference = KMeans(k, n_init=20, random_state=0).fit(own)
        assert found.inertia[unit] <= reference.inertia_ * (1.02 if k > 3 else 1 + 1e-5)
        np.testing.assert_allclose(found.inertia[unit], inertia(own, found.labels[unit].numpy()), rtol=1e-5)
        if k == 3:
            assert adjusted_rand_score(reference.labels_, found.labels[unit]) == 1


def test_the_largest_part_comes_first_and_centroids_are_means():
    points, _ = blobs(points=41, k=2)
    found = kmeans(products(points, everything(points)), 2)
    assert (found.sizes[:, 0] >= found.sizes[:, 1]).all()


def test_a_unit_does_not_depend_on_the_others():
    points, _ = blobs(units=5)
    inner = products(points, everything(points))
    torch.testing.assert_close(kmeans(inner, 3).labels[3:4], kmeans(inner[3:4], 3).labels)


def test_points_that_do_not_count_have_no_part_and_no_say():
    points, _ = blobs(units=2)
    counted = everything(points)
    counted[0, 30:] = False
    spoilt = points.clone()
    spoilt[0, 30:] = 1e3
    found = kmeans(products(spoilt, counted), 3, counted)
    assert (found.labels[0, 30:] == -1).all()
    torch.testing.assert_close(found.labels[:1, :30], kmeans(products(points[:1, :30], counted[:1, :30]), 3).labels)


def test_equal_points_are_one_part():
    points = torch.zeros(2, 10, 4)
    points[1] = 3.0
    found = kmeans(products(points, everything(points)), 3)
    assert found.sizes[:, 0].tolist() == [10, 10]
    assert found.inertia.tolist() == [0, 0]


def test_a_unit_with_fewer_points_than_clusters_has_one_for_each():
    points, _ = blobs(units=2, points=8)
    counted = everything(points)
    counted[1, [0, 2, 3, 5, 6]] = False
    found = kmeans(products(points, counted), 4, counted)
    assert found.labels[1].tolist() == [-1, 0, -1, -1, 1, -1, -1, 2] and found.inertia[1] == 0
    assert found.labels[0].unique().tolist() == [0, 1, 2, 3]


def test_no_clusters_are_a_mistake():
    inner = torch.zeros(1, 3, 3, dtype=torch.float64)
    for k, n_init in ((0, 1), (2, 0)):
        with pytest.raises(UserError, match="at least 1"):
            kmeans(inner, k, n_init=n_init)
    with pytest.raises(UserError, match="at least 1"):
        choose(inner, torch.ones(1, 3, dtype=torch.bool), PartOptions(k=0))
    with pytest.raises(UserError, match="silhouette"):
        choose(inner, torch.ones(1, 3, dtype=torch.bool), PartOptions(k="silhouete"))


@pytest.mark.parametrize("k", [2, 3])
def test_silhouettes_are_those_of_scikit_learn(k):
    points, _ = blobs(k=3, apart=3)
    inner = products(points, everything(points))
    found = kmeans(inner, k)
    widths = silhouette(distances(inner), found.labels, k)
    for unit, own in enumerate(points.numpy()):
        assert widths[unit] == pytest.approx(silhouette_score(own, found.labels[unit].numpy()), abs=1e-5)


def test_a_point_alone_in_its_cluster_has_no_width():
    points, _ = blobs(units=1, points=10, k=2)
    labels = torch.tensor([[0] * 6 + [1] * 3 + [2]])
    width = silhouette(distances(products(points, everything(points))), labels, 3)
    assert float(width) == pytest.approx(silhouette_score(points[0].numpy(), labels[0].numpy()), abs=1e-5)


@pytest.mark.parametrize("k", [2, 3, 4])
def test_the_number_of_parts_is_found(k):
    points, labels = blobs(units=3, points=40, k=k, apart=8)
    found = choose(products(points, everything(points)), everything(points), PartOptions())
    assert [adjusted_rand_score(a, b) for a, b in zip(labels, found.labels, strict=True)] == [1] * 3


def test_small_parts_join_the_nearest():
    points = torch.cat([torch.randn(20, 3), torch.randn(15, 3) + 20, torch.tensor([[22.0, 22.0, 30.0]])])[None]
    labels = torch.tensor([0] * 20 + [1] * 15 + [2])[None]
    found = dissolved(products(points, everything(points)), labels, 3, 5)
    assert found.sizes.tolist() == [[20, 16, 0]]
    assert found.labels[0, -1] == found.labels[0, -2]
    assert found.inertia[0] == pytest.approx(inertia(points[0].numpy(), found.labels[0].numpy()), rel=1e-5)
    for min_size, sizes in ((15, [20, 16, 0]), (16, [36, 0, 0]), (30, [36, 0, 0])):  # 15 are enough for 15
        assert dissolved(products(points, everything(points)), labels, 3, min_size).sizes.tolist() == [sizes]


@given(st.integers(1, 4), st.integers(4, 15), st.integers(1, 6), st.integers(0, 2**16))
@settings(max_examples=25, deadline=None)
def test_any_points_fall_into_parts(k, m, width, seed):
    points = torch.randn(3, m, width, generator=torch.Generator().manual_seed(seed)).round()
    found = kmeans(products(points, everything(points)), k, n_init=2)
    assert ((found.labels >= 0) & (found.labels < k)).all()
    assert found.sizes.sum(1).tolist() == [m] * 3
    np.testing.assert_allclose(
        found.inertia, [inertia(a, b) for a, b in zip(points.numpy(), found.labels.numpy(), strict=True)], atol=1e-4
    )
