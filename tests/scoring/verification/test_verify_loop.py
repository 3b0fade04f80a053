"""The loop and drawn pictures, on planted units and against plain formulas."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from neuronx.errors import UserError
from neuronx.scoring.verification.loop import extremes, loop_scores, separation
from neuronx.scoring.verification.verify import LOOP, Verify
from neuronx.types import Explanation, Unit

WEIGHTS = torch.tensor([[3.0, 2.5, 2, -2, -2.5, 1], [-3, 2, 2.5, 2, 1, -2.5]])


def said(k, weights):
    return Explanation(Unit("1", k), tuple(zip("abcdef", weights.tolist(), strict=True)))


def of(scores, method, score):
    return [one for one in scores.rows if (one.method, one.score) == (method, score)]


def test_extremes_are_the_largest_and_smallest_and_ties_are_drawn():
    values = torch.tensor([[3.0, 1, 2, 0, 5]])
    top, low = extremes(values, 2, 0)
    assert set(top[0].tolist()) == {0, 4} and set(low[0].tolist()) == {1, 3}
    draws = {tuple(extremes(torch.zeros(1, 30), 3, seed)[0][0].tolist()) for seed in range(5)}
    assert len(draws) == 5


def test_a_unit_passes_beyond_its_percentiles_and_is_ranked_among_others():
    natural = torch.arange(101.0).repeat(2, 1)  # percentiles 95 and 5
    real = torch.tensor([[96.0, 96, 50, 50, 4, 4], [94, 94, 50, 50, 6, 6]])
    found = loop_scores(real, real, natural, 2)
    assert found.top.tolist() == [True, False] and found.low.tolist() == [True, False]
    wrong = loop_scores(-real, real, natural, 2)
    assert not wrong.top.any() and not wrong.low.any()
    other = loop_scores(torch.stack((real[0], -real[0])), real, natural, 2)
    assert other.beats_top.tolist() == [1, 0] and other.beats_low.tolist() == [1, 0]


def test_auc_counts_ties_half_and_mad_counts_in_natural_deviations():
    rng = np.random.default_rng(0)
    drawn, natural = rng.integers(0, 5, (3, 8)).astype(float), rng.integers(0, 4, (3, 50)).astype(float)
    natural[2] = 1
    area, mad = separation(torch.tensor(drawn), torch.tensor(natural))
    for k in range(2):
        pairs = [(a > b) + (a == b) / 2 for a in drawn[k] for b in natural[k]]
        assert math.isclose(area[k], np.mean(pairs))
        assert math.isclose(mad[k], (drawn[k].mean() - natural[k].mean()) / natural[k].std(ddof=1))
    assert area[2].isnan() and mad[2].isnan()


def test_true_formulas_drive_units_to_their_extremes_and_wrong_ones_do_not(world, drawer, judge, trainer):
    target, probe = world(WEIGHTS)
    explained = {
        "true": [said(k, WEIGHTS[k]) for k in range(2)],
        "wrong": [said(k, -WEIGHTS[k]) for k in range(2)],
        "none": [Explanation(Unit("1", 0), (("unheard of", 1.0),))],
    }
    sim = Verify(measures=["loop"], drawer=drawer, floors=False, retrieved=10)
    found = sim.score(explained, target, probe, judge, trainer)
    for score in ("loop_top", "loop_low"):
        assert [one.value for one in of(found, "true", score)] == [1, 1]
        assert [one.value for one in of(found, "wrong", score)] == [0, 0]
        assert [one.value for one in of(found, "ceiling", score)] == [1, 1]
        assert [one.status for one in of(found, "none", score)] == ["untested"]
    columns, rows = found.tables[LOOP]
    table = {row[2]: dict(zip(columns, row, strict=True)) for row in rows}
    assert table["true"]["top"] == table["true"]["ranked_top"] == 1 and table["wrong"]["top"] == 0
    assert table["none"]["n_untested"] == 1 and found.rows[0].images == "memory/pool:5000"


def test_without_a_drawer_the_test_pictures_are_the_pool_and_a_small_one_is_refused(world, judge, trainer):
    target, probe = world(WEIGHTS)
    explained = {"true": [said(k, WEIGHTS[k]) for k in range(2)]}
    sim = Verify(measures=["loop", "drawn"], floors=False, retrieved=2)
    found = sim.score(explained, target, probe, judge, trainer)
    assert {one.score for one in found.rows} == {"loop_top", "loop_low"} and found.rows[0].n == 80
    with pytest.raises(UserError, match="retrieves 20 pictures of a pool of 80, too few"):
        replace(sim, retrieved=20).score(explained, target, probe, judge, trainer)
    with pytest.raises(UserError, match=r"sim\.verify\.pool has natural pictures, and those studied are tensors"):
        pool = world(WEIGHTS)[1]
        pool.domain = "natural"
        replace(sim, pool=pool).score(explained, target, probe, judge, trainer)


def test_drawn_pictures_of_the_heaviest_concept_count_by_the_sign_of_its_weight(world, drawer, judge, trainer):
    target, probe = world(torch.tensor([[1.0, 0, 0, 0, 0, 0], [-1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1]]))
    explained = {
        "m": [
            Explanation(Unit("1", 0), (("b", 0.2), ("a", 1.0))),
            Explanation(Unit("1", 1), (("a", -1.0),)),
            Explanation(Unit("1", 2), (("unheard of", 1.0),)),
        ]
    }
    found = Verify(measures=["drawn"], drawer=drawer, floors=False).score(explained, target, probe, judge, trainer)
    area, mad = of(found, "m", "drawn_auc"), of(found, "m", "drawn_mad")
    assert area[0].value == pytest.approx(area[1].value) and 0.7 < area[0].value < 0.8  # half of the others tie
    assert mad[0].value > 0.8 and mad[1].value > 0.8
    assert [one.status for one in area] == ["ok", "ok", "untested"] and area[0].images == "memory/drawn:8"


class Generator:
    """Makes what the text says, or whatever it is told to."""

    name = "mine"

    def __init__(self, makes=None):
        self.makes = makes

    def __call__(self, texts):
        if self.makes is not None:
            return self.makes(texts)
        found = torch.zeros(len(texts), 6)
        for row, text in enumerate(texts):
            found[row, "abcdef".index(text)] = 1
        return found.view(-1, 3, 1, 2)


def test_a_generator_of_the_users_draws(world, judge, trainer):
    target, probe = world(torch.tensor([[1.0, 0, 0, 0, 0, 0]]))
    explained = {"m": [Explanation(Unit("1", 0), (("a", 1.0),))]}
    sim = Verify(measures=["drawn"], generator=Generator(), floors=False)
    (area, mad) = sim.score(explained, target, probe, judge, trainer).rows
    assert 0.7 < area.value < 0.8 and mad.value > 0.8 and area.images == "mine/drawn:8"


@pytest.mark.parametrize(
    ("makes", "said"),
    [
        (lambda texts: torch.zeros(3, 3, 1, 2), "generator mine made 3 pictures of 8 texts"),
        (lambda texts: 1 / 0, "generator mine failed: division by zero"),
    ],
)
def test_a_generator_that_fails_is_said(world, judge, trainer, makes, said):
    target, probe = world(torch.tensor([[1.0, 0, 0, 0, 0, 0]]))
    sim = Verify(measures=["drawn"], generator=Generator(makes), floors=False)
    with pytest.raises(UserError, match=said):
        sim.score({"m": [Explanation(Unit("1", 0), (("a", 1.0),))]}, target, probe, judge, trainer)
