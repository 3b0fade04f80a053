import math

import numpy as np
import scipy.stats

from neuronx.metrics.correlation import correlation_sem, interval, mean_and_sem, spearman


def test_mean_and_sem():
    x = np.random.default_rng(0).random(20)
    mean, sem = mean_and_sem(x)
    assert math.isclose(mean, x.mean()) and math.isclose(sem, scipy.stats.sem(x))
    assert mean_and_sem([0.5])[0] == 0.5 and math.isnan(mean_and_sem([0.5])[1])
    assert math.isnan(mean_and_sem([])[0])


def test_correlation_sem():
    np.testing.assert_allclose(correlation_sem([0.0, 0.6, 1.0], 101), [0.1, 0.064, 0])
    assert np.isnan(correlation_sem([0.5], 1)).all()


def test_interval_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(1)
    hits = 0
    for k in range(200):
        mean, low, high = interval(rng.standard_normal(60), seed=k, draws=400)
        assert low <= mean <= high
        hits += low <= 0 <= high
    assert 0.9 <= hits / 200 <= 0.99


def test_interval_is_seeded_and_bounded_in_memory():
    x = np.random.default_rng(2).random(3000)
    assert interval(x, seed=3) == interval(x, seed=3)
    assert interval(x, seed=3) != interval(x, seed=4)
    assert all(math.isnan(value) for value in interval([]))


def test_few_values_have_a_t_interval_and_one_has_none():
    x = np.random.default_rng(4).random(9)
    mean, low, high = interval(x, seed=1)
    expected = scipy.stats.t.interval(0.95, 8, loc=x.mean(), scale=scipy.stats.sem(x))
    np.testing.assert_allclose((mean, low, high), (x.mean(), *expected))
    assert interval(x, seed=1) == interval(x, seed=2)
    mean, low, high = interval([0.25])
    assert mean == 0.25 and math.isnan(low) and math.isnan(high)
    assert interval([0.5, 0.5]) == (0.5, 0.5, 0.5)


def test_intervals_of_few_values_cover_the_mean_as_often_as_they_say():
    draws = np.random.default_rng(5).standard_normal((400, 4))
    covered = [low <= 0 <= high for _, low, high in map(interval, draws)]
    assert 0.92 <= np.mean(covered) <= 0.98


def test_spearman():
    rng = np.random.default_rng(3)
    x, y = rng.integers(0, 9, 50), rng.integers(0, 9, 50)
    assert math.isclose(spearman(x, y), scipy.stats.spearmanr(x, y).statistic)
    assert math.isnan(spearman([1], [2])) and math.isnan(spearman([1, 1], [2, 3]))
