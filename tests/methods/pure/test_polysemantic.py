import math

import numpy as np
import pytest
import torch
from oracles_pure_splits import blobs
from scipy.stats import false_discovery_control
from sklearn.metrics import adjusted_rand_score

from neuronx.errors import UserError
from neuronx.methods.pure.clusters import products
from neuronx.methods.pure.polysemantic import Level, Verdicts, adjusted, cauchy, rand_index, verdicts


def verdicts_of(points, **options):
    counted = torch.ones(points.shape[:2], dtype=torch.bool)
    return verdicts(products(points, counted), counted, **options)


def test_two_clouds_are_told_from_one():
    two, one = blobs(units=10, points=60, k=2, apart=6)[0], blobs(units=10, points=60, k=1, seed=1)[0]
    found = verdicts_of(torch.cat([two, one * torch.linspace(3, 0.3, 12)]))  # long in some directions
    assert (found.p[:10] < 1e-3).all() and (found.p[10:] > 0.01).sum() >= 9
    assert found.repeats[:10].mean() > 0.95 > 0.8 > found.repeats[10:].mean()
    assert found.dip[:10].min() > found.dip[10:].max()
    assert set(found.order[:10].tolist()) == set(range(10)) and found.p[found.order].diff().min() >= 0


def cloud(kind, units, m, draw):
    """(units, m, D) circuits of one mode: with a long axis, of exponential, heavy-tailed or log-normal channels."""
    scale = torch.arange(1, 201).pow(-0.5)
    normal = torch.randn(units, m, 200, generator=draw)
    if kind == "normal":
        return normal * scale
    if kind == "exponential":
        return torch.rand(units, m, 200, generator=draw).clamp(min=1e-7).log() * scale
    if kind == "heavy-tailed":
        return normal * scale / torch.randn(units, m, 5, generator=draw).square().mean(2, keepdim=True).sqrt()
    common = torch.randn(units, m, 5, generator=draw) @ torch.randn(units, 5, 200, generator=draw) / 5**0.5
    channels = (0.5 * common + normal).exp()
    return (channels / channels.sum(2, keepdim=True)).sqrt()


@pytest.mark.slow
@pytest.mark.parametrize("m", [30, 100])
@pytest.mark.parametrize("kind", ["normal", "exponential", "heavy-tailed", "log-normal"])
def test_one_cloud_of_any_shape_is_left_whole(kind, m):
    p = verdicts_of(cloud(kind, 200, m, torch.Generator().manual_seed(1))).p
    assert (p < 0.05).double().mean() <= 0.085 and (p < 0.001).sum() <= 2


@pytest.mark.slow
@pytest.mark.parametrize(("m", "apart", "power"), [(100, 4, 0.93), (100, 3, 0.42), (30, 4, 0.50)])
def test_two_clouds_are_found(m, apart, power):
    """Deviations between the centres, along the longest axis."""
    points = cloud("normal", 200, m, torch.Generator().manual_seed(1))
    points[:, : m // 2, 0] += apart
    assert (verdicts_of(points).p < 0.05).double().mean() >= power


def test_units_that_cannot_be_tested_are_pure():
    points = torch.zeros(4, 30, 4)
    points[1:] = torch.randn(3, 30, 4, generator=torch.Generator().manual_seed(0))
    counted = torch.ones(4, 30, dtype=torch.bool)
    counted[1, 19:] = False
    counted[2, ::3] = False  # twenty
    found = verdicts(products(points, counted), counted)
    assert found.p[:2].tolist() == [1, 1] and found.dip[:2].tolist() == [0, 0] and found.repeats[:2].isnan().all()
    assert (found.p[2:] < 1).all() and (found.dip[2:] > 0).all()
    kept = points[2:3, counted[2]]
    torch.testing.assert_close(found.p[2:3], verdicts_of(kept).p)
    torch.testing.assert_close(found.p[3:], verdicts_of(points[3:]).p)  # whatever other units there are


def test_chances_of_tests_that_depend_are_combined():
    same = torch.tensor([0.001, 0.02, 0.5, 0.9], dtype=torch.float64)
    torch.testing.assert_close(cauchy(same[:, None].expand(-1, 7)), same)
    assert cauchy(torch.tensor([[1e-4, 1.0]]).double()) == pytest.approx(2e-4, rel=0.02)


def test_levels():
    p = torch.tensor([0.3, 0.001, 0.02, 0.02, 1.0, 0.04], dtype=torch.float64)
    np.testing.assert_allclose(adjusted(p), false_discovery_control(p.numpy()))
    found = Verdicts(p, p, p)
    assert Level.of(0.02).found(found).tolist() == [False, True, False, False, False, False]
    assert Level.of("bh:.04").found(found).tolist() == [False, True, True, True, False, False]
    assert Level.of("0.02") == Level.of(0.02) and Level.of(None) == Level.of(0.001)
    for wrong in (0, 1.0, "bh:2", "bh", "fdr:.05", math.nan):
        with pytest.raises(UserError, match=r"bh:\.05"):
            Level.of(wrong)


def test_the_rand_index_is_that_of_scikit_learn():
    draw = torch.Generator().manual_seed(0)
    a, b = (torch.randint(0, 2, (20, 30), generator=draw) for _ in "ab")
    b[:10, :15] = a[:10, :15]
    np.testing.assert_allclose(
        rand_index(a, b), [adjusted_rand_score(*pair) for pair in zip(a, b, strict=True)], atol=1e-12
    )
    assert rand_index(a, 1 - a).tolist() == [1] * 20 and rand_index(0 * a[:1], 0 * a[:1]).tolist() == [1]
