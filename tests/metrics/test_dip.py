import numpy as np
import pytest
import torch
from oracles_dip import smallest_distance

from neuronx.metrics.dip import chance, dip, normal_dips


def test_a_dip_is_the_distance_from_the_nearest_distribution_of_one_mode():
    draw = np.random.default_rng(0)
    for n in range(3, 15):
        one = draw.standard_normal(n)
        two = np.concatenate([one[: n // 2], one[n // 2 :] + 6])
        found = dip(torch.tensor(np.stack([one, two])))
        np.testing.assert_allclose(found, [smallest_distance(one), smallest_distance(two)], atol=1e-9)


def test_known_dips():
    even = torch.arange(10, dtype=torch.float64)
    apart = torch.cat([even[:50] / 1e9, 1 + even[:50] / 1e9])
    assert dip(torch.stack([even, 3 - 7 * even])).tolist() == pytest.approx([0.05, 0.05])  # the least there is: 1 / 2n
    assert float(dip(apart[None])) == pytest.approx(0.25, abs=0.03)  # the most
    assert dip(torch.zeros(1, 6)).isfinite().all() and dip(torch.tensor([[1.0, 1, 2, 2, 2]])).isfinite().all()


def test_samples_do_not_meet():
    samples = torch.randn(7, 40, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(dip(samples), torch.cat([dip(sample[None]) for sample in samples]))
    torch.testing.assert_close(dip(samples), dip(samples.flip(1) * -3 + 1), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("n", "quantiles"),
    [
        (30, (0.0521, 0.0735, 0.0847, 0.0975)),
        pytest.param(50, (0.0398, 0.0556, 0.0639, 0.0751), marks=pytest.mark.slow),
    ],
)
def test_dips_of_normal_samples(n, quantiles):
    null = normal_dips(n)
    found = null.quantile(torch.tensor([0.5, 0.95, 0.99, 0.999], dtype=torch.float64))
    np.testing.assert_allclose(found, quantiles, rtol=0.035)
    p = chance(torch.tensor([quantiles[1], 0.0, 0.25], dtype=torch.float64), null)
    np.testing.assert_allclose(p, [0.05, 1, 1 / 20_001], rtol=0.1)
