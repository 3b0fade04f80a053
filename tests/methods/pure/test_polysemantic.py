import pytest
import torch
from oracles_pure_splits import blobs

from neuronx.errors import UserError
from neuronx.methods.pure.clusters import products
from neuronx.methods.pure.polysemantic import clouds, verdicts


def test_two_clouds_are_told_from_one():
    two, one = blobs(units=10, points=40, k=2, apart=6)[0], blobs(units=10, points=40, k=1, seed=1)[0]
    one = one * torch.linspace(3, 0.3, 12)  # long in some directions
    points = torch.cat([two, one])
    counted = torch.ones(20, 40, dtype=torch.bool)
    found = verdicts(products(points, counted), counted)
    assert (found.p[:10] < 1e-3).all() and (found.excess[:10] > 0.1).all()
    assert (found.p[10:] >= 0.01).sum() >= 9
    assert (found.low <= found.null).all() and (found.null <= found.high).all()


def test_a_cloud_has_the_spectrum_of_the_points():
    points = torch.randn(1, 200, 5, generator=torch.Generator().manual_seed(0)) * torch.tensor([5, 3, 2, 1, 0.5])
    counted = torch.ones(1, 200, dtype=torch.bool)
    inner = products(points, counted)
    ((drawn, _),) = clouds(inner, counted, 1, 0)
    own, other = (torch.linalg.eigvalsh(x)[0, -3:] for x in (inner, drawn))
    torch.testing.assert_close(own, other, rtol=0.2, atol=0)


def test_units_that_cannot_be_tested_are_pure():
    points = torch.zeros(3, 30, 4)
    points[1:] = torch.randn(2, 30, 4)
    counted = torch.ones(3, 30, dtype=torch.bool)
    counted[1, 5:] = False
    found = verdicts(products(points, counted), counted, draws=10)
    assert found.p[:2].tolist() == [1, 1] and found.share[:2].tolist() == [0, 0]
    assert 0 < found.p[2] < 1
    alone = verdicts(products(points[2:], counted[2:]), counted[2:], draws=10)
    torch.testing.assert_close(found.p[2:], alone.p)


def test_few_draws_are_a_mistake():
    with pytest.raises(UserError, match="at least 10"):
        verdicts(torch.zeros(1, 3, 3).double(), torch.ones(1, 3, dtype=torch.bool), draws=3)
