import pytest
import torch

from neuronx.errors import UserError
from neuronx.metrics.frechet import frechet


def test_of_normal_distributions_it_is_the_closed_form():
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(20000, 3, generator=generator, dtype=torch.float64)
    noise = (noise - noise.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(noise.T))).T
    a, b = noise, noise * torch.tensor([1.0, 2.0, 3.0]) + torch.tensor([1.0, 0.0, 0.0])
    # Means 1 apart; along the axes (1 - 1)^2 + (2 - 1)^2 + (3 - 1)^2.
    assert frechet(a, b) == pytest.approx(1 + 0 + 1 + 4)
    assert frechet(b, a) == pytest.approx(frechet(a, b))
    assert frechet(a, a) == pytest.approx(0, abs=1e-9)


def test_turning_both_sets_changes_nothing_and_features_may_depend_on_each_other():
    generator = torch.Generator().manual_seed(1)
    a, b = torch.randn(50, 4, generator=generator), torch.randn(60, 4, generator=generator) * 2 + 1
    a, b = (torch.cat([x, x[:, :1]], 1) for x in (a, b))
    turn = torch.linalg.qr(torch.randn(5, 5, generator=generator)).Q
    assert frechet(a @ turn, b @ turn) == pytest.approx(frechet(a, b), rel=1e-4)


@pytest.mark.parametrize("shapes", [((1, 3), (5, 3)), ((5, 3), (5, 4)), ((5,), (5,))])
def test_sets_that_do_not_fit_are_refused(shapes):
    with pytest.raises(UserError, match="two rows"):
        frechet(*(torch.zeros(shape) for shape in shapes))
