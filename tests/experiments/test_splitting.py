import math
from dataclasses import replace

import pytest
import torch
from oracles_pure_splits import Meanings, network

from neuronx.concepts.labels import LabelConcepts
from neuronx.errors import UserError
from neuronx.experiments.given import Given
from neuronx.experiments.planting import plant, recover, summary
from neuronx.experiments.splitting import (
    FORCED,
    POLYSEMANTIC,
    SplitScore,
    Splitting,
    gains,
    groups_by_test,
    split_scores,
    with_terms,
)
from neuronx.methods.linear.method import LinearExplanations
from neuronx.methods.net_dissect.method import NetDissect
from neuronx.methods.pure.method import Pure
from neuronx.tables.csv import read_csv
from neuronx.types import Unit


@pytest.fixture
def world():
    return network(), Meanings()


@pytest.fixture
def pure():
    describer = LinearExplanations(LabelConcepts(superclasses=False))
    return Pure({"le_label": describer}, references=60, alpha=0.01, k=2)


def test_parts_and_wholes_have_as_many_terms(world, pure, trainer):
    judge = LabelConcepts(superclasses=False)
    (one,) = split_scores(pure, *world, judge, trainer, terms=1)
    assert (one.unit, one.parts, one.terms) == (Unit("high", 0), 2, 2)
    assert one.by_parts.count("|") == 1 and "odd" in one.by_parts and "even" in one.by_parts
    assert one.p < 0.01 and all(map(math.isfinite, (one.split, one.unsplit, one.free)))
    everything = split_scores(pure, *world, judge, trainer, terms=1, forced=True)
    assert [found.unit for found in everything] == [Unit("high", 0), Unit("high", 1)]
    groups = groups_by_test(everything, {"odd": [Unit("high", 1)]})
    assert groups[POLYSEMANTIC] == [Unit("high", 0)] and groups[FORCED] == groups["odd"] == [Unit("high", 1)]
    assert groups[f"odd, {FORCED}"] == [Unit("high", 1)] and not groups[f"odd, {POLYSEMANTIC}"]


def test_gains_are_paired_differences_with_intervals():
    scores = [SplitScore(Unit("l", k), 0.0, 0.0, True, 2, 2, 0.5 + 0.01 * k, 0.4, 0.5) for k in range(10)]
    columns, rows = gains(scores, {"all": [one.unit for one in scores], "none": []})
    (row,) = (dict(zip(columns, row, strict=True)) for row in rows)
    assert row["units"] == 10 and row["gain"] == pytest.approx(0.145) and row["gain_free"] == pytest.approx(0.045)
    assert 0.1 < row["low"] < row["gain"] < row["high"] < 0.2


def test_a_method_needs_a_number_of_terms():
    with pytest.raises(UserError, match="no number of terms"):
        with_terms(NetDissect(), 2)
    with pytest.raises(UserError, match="at least 1"):
        with_terms(LinearExplanations(LabelConcepts()), 0)


def test_planted_units_of_two_sources_are_split(trainer):
    """The sources are the units of a layer that reads `low`: one for each channel of the pictures."""
    target, probe = network(), Meanings()
    eye = torch.zeros(8, 8)
    eye[0, [0, 1]] = eye[1, [4, 5]] = eye[2, [0, 1]] = eye[3, [4, 5]] = 1
    eye[2:4] += 0.01
    layer = target.module.high[0]
    layer.weight = torch.nn.Parameter(eye[:4, :, None, None], requires_grad=False)
    target.module.head = torch.nn.Linear(4, 2)
    target = replace(target, digest="other")
    garden = plant(target, probe, trainer, "high", double=3, single=2, seed=1)
    assert garden.layer == "high.planted" and len(garden.units(True)) == 3 and len(garden.units(False)) == 2
    how = Pure({"x": LinearExplanations(LabelConcepts())}, references=60, alpha=0.01, k=2, lower="low")
    found = summary(recover(garden, how, probe, trainer))
    assert found["share of double units that are split"] == 1
    assert found["adjusted Rand index of parts and sources"] > 0.9
    assert found["correlation of parts with sources on test images"] > 0.9
    with pytest.raises(UserError, match="pairs of units that differ"):
        plant(target, probe, trainer, "high", double=100, single=2)


def test_the_experiment_writes_its_tables(world, pure, trainer, tmp_path):
    target, probe = world
    given = Given(trainer, tmp_path, {"small": target}, probe, {pure.name: pure})
    text = Splitting(judge=LabelConcepts(superclasses=False)).run(given)
    assert POLYSEMANTIC in text and FORCED in text
    columns, rows = read_csv(tmp_path / "split_units.csv")
    assert {"p", "q", "polysemantic", "split", "unsplit", "free", "by_parts", "as_whole"} < set(columns) and len(
        rows
    ) == 2
    with pytest.raises(UserError, match="explain=pure"):
        Splitting(judge=LabelConcepts()).run(replace(given, methods={}))
