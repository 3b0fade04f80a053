"""Pairs on planted units whose answer is known, against correlations over groups written plainly."""

import math

import numpy as np
import pytest
import torch

from neuronx.errors import UserError
from neuronx.scoring.verification.matched import matched
from neuronx.scoring.verification.pairs import auroc, flips, pair_scores, partners
from neuronx.scoring.verification.verify import PAIRS, VERIFICATION, Verify
from neuronx.types import Explanation, Unit


def said(k, *terms, bias=0.0):
    return Explanation(Unit("1", k), terms, bias)


def by_method(scores, method):
    return {one.unit.index: one for one in scores.rows if one.method == method}


def test_correlation_within_groups_is_that_of_the_deviations():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 4, 60))
    group = rng.integers(0, 9, 60)
    x, y = x + 5 * group, y - 7 * group  # what a group has in common does not count
    found = pair_scores(*map(torch.tensor, (x, y)), torch.arange(4), torch.tensor(group), torch.tensor(group))
    for k in range(4):
        a, b = (np.concatenate([z[k][group == g] - z[k][group == g].mean() for g in range(9)]) for z in (x, y))
        assert math.isclose(found.own[k], a @ b / np.sqrt(a @ a * (b @ b)), abs_tol=1e-12)
        r = []
        for g in range(9):
            c, d = a[np.sort(group) != g], b[np.sort(group) != g]
            r.append(c @ d / np.sqrt(c @ c * (d @ d)))
        assert math.isclose(found.sem[k], np.sqrt(8 / 9 * ((r - np.mean(r)) ** 2).sum()), rel_tol=1e-9)
    assert found.others.isnan().diagonal().all() and ((found.beaten >= 0) & (found.beaten <= 1)).all()


def test_partners_are_others_of_the_group():
    group = torch.tensor([3, 0, 3, 1, 1, 3, 0, 7])
    other = partners(group)
    assert torch.equal(group[other], group) and torch.equal(other.sort().values, torch.arange(8))
    assert all(other[i] != i for i in range(7)) and other[7] == 7


def test_flips_count_the_groups_in_which_a_concept_changes():
    scores = torch.tensor([[0.0, 1, 0, 0, 0.2, 0.8], [0, 0.4, 0, 0, 0, 0]])
    assert flips(scores, torch.tensor([0, 0, 1, 1, 2, 2]), 0.5).tolist() == [2, 0]


def test_auroc_counts_ties_half():
    assert auroc(torch.tensor([1.0, 0.0]), torch.tensor([[0.0, torch.nan]])) == 0.75
    assert math.isnan(auroc(torch.tensor([torch.nan]), torch.tensor([[0.0]])))


def test_right_words_reach_one_wrong_ones_zero_even_where_they_go_together(world, drawer, judge, trainer):
    factors = (torch.rand(400, 6, generator=torch.Generator().manual_seed(0)) < 0.5).float()
    factors[:, 1] = factors[:, 0]  # a and b are always seen together
    target, probe = world(torch.eye(6)[:3], factors)
    explained = {
        "right": [said(0, ("a", 2.0)), said(1, ("b", 1.0)), said(2, ("c", -1.0), bias=3)],
        "wrong": [said(0, ("b", 1.0)), said(1, ("a", 1.0)), said(2, ("d", 1.0))],
    }
    found = Verify(drawer=drawer, measures=["pairs"], floors=False).score(explained, target, probe, judge, trainer)
    right, wrong = by_method(found, "right"), by_method(found, "wrong")
    assert [right[k].value for k in (0, 1)] == pytest.approx([1, 1]) and right[2].value == pytest.approx(-1)
    assert [wrong[k].value for k in range(3)] == pytest.approx([0, 0, 0], abs=1e-9)
    assert {one.score for one in found.rows} == {"pairs"} and right[0].images == "memory/drawn:600"


def test_what_the_bank_leaves_alone_gets_pairs_of_its_own_and_what_nobody_draws_is_untested(
    world, drawer, judge, trainer
):
    target, probe = world(torch.eye(6))
    explained = {"some": [said(5, ("f", 1.0)), said(4, ("unheard of", 1.0)), said(3, ("unknown", 1.0)), said(2)]}
    found = Verify(drawer=drawer, measures=["pairs"], floors=False).score(explained, target, probe, judge, trainer)
    some = by_method(found, "some")
    assert some[5].value == pytest.approx(1)
    assert [some[k].status for k in (4, 3, 2)] == ["untested", "unjudged", "untested"]
    columns, rows = found.tables[PAIRS]
    assert dict(zip(columns, rows[0], strict=True))["n_units"] == 1


def test_verified_is_above_95_percent_of_the_others_and_needs_nineteen(world, drawer, judge, trainer):
    weights = torch.rand(24, 6, generator=torch.Generator().manual_seed(3)) - 0.5
    weights[:, 5] = 0
    target, probe = world(weights)
    true = [said(k, *zip("abcde", weights[k].tolist(), strict=False)) for k in range(24)]
    lies = [said(k, *zip("abcde", weights[k - 1].tolist(), strict=False)) for k in range(24)]
    explained = {"true": true, "lies": lies, "few": true[:19]}
    found = Verify(measures=["pairs"], drawer=drawer).score(explained, target, probe, judge, trainer)
    columns, rows = found.tables[VERIFICATION]
    verdict = {name: [row[columns.index("verified")] for row in rows if row[4] == name] for name in ("true", "lies")}
    assert verdict["true"] == ["yes"] * 24 and verdict["lies"].count("yes") <= 3
    assert {row[columns.index("verified")] for row in rows if row[4] == "few"} == {""}
    columns, rows = found.tables[PAIRS]
    table = {row[2]: dict(zip(columns, row, strict=True)) for row in rows}
    assert table["true"]["auroc"] > 0.99 and table["true"]["verified"] == 1 and table["true"]["big_signs"] == 1
    assert "random-true" in {one.method for one in found.rows} and "random-true" not in table


def test_a_unit_that_never_changes_in_the_bank_is_inactive(world, drawer, judge, trainer):
    target, probe = world(torch.eye(6)[5:])  # knows `f` only
    explained = {"m": [said(0, ("a", 1.0))]}
    found = Verify(drawer=drawer, measures=["pairs"], floors=False).score(explained, target, probe, judge, trainer)
    assert [one.status for one in found.rows] == ["inactive"]


def test_where_nobody_draws_pictures_are_matched(world, judge, trainer):
    target, probe = world(torch.eye(6))
    explained = {"m": [said(0, ("a", 1.0)), said(1, ("c", 1.0)), said(2, ("unheard of", 1.0))]}
    found = Verify(measures=["pairs"], floors=False).score(explained, target, probe, judge, trainer)
    m = by_method(found, "m")
    assert m[0].value == pytest.approx(1) and m[2].status == "untested" and "/matched:" in m[0].images
    assert abs(m[1].value) < 0.5
    columns, rows = found.tables[PAIRS]
    row = dict(zip(columns, rows[0], strict=True))
    assert row["kind"] == "matched" and 0 < row["close"] <= row["groups"]


def test_matched_pairs_are_the_nearest_in_all_other_concepts():
    scores = torch.tensor([[0.9, 0.0, 0.0, 0.5], [0.3, 0.9, 0.35, 0.3]])
    found = matched(None, torch.tensor([4, 5, 6, 7]), scores)
    pairs = found.rows.view(-1, 2).tolist()
    assert pairs[0] == [4, 6] and found.about.view(-1, 2)[:, 0].tolist()[0] == 0


def test_mistakes_are_said(drawer):
    with pytest.raises(UserError, match=r"sim\.verify\.scenes=0 must be a whole number of at least 1"):
        Verify(drawer=drawer, scenes=0)
