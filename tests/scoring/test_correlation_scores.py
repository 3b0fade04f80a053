import math
import re
from dataclasses import replace
from functools import partial

import numpy as np
import oracles_simulation as oracle
import pytest
import torch
from oracles_simulation import Rows, planted, recorded

from neuronx.errors import UserError
from neuronx.report.evaluation import leaderboard
from neuronx.scoring.correlation import Correlation
from neuronx.types import Explanation, Unit


@pytest.fixture
def world():
    judge, layer, truth = planted()
    return Rows(1000), judge, layer, truth


def run(sim, explained, layers, probe, judge, trainer, words=()):
    layers = layers if isinstance(layers, dict) else {"layer": layers}
    return sim.score_recorded(explained, layers, "net", probe, judge, trainer, words).rows


def values(scores, method):
    return np.array([one.value for one in scores if one.method == method])


plain = Correlation(floors=False, ceiling=False, batch_size=64)


def test_scores_are_the_correlations_on_test_images(world, trainer):
    probe, judge, layer, truth = world
    scores = run(plain, {"true": truth}, layer, probe, judge, trainer)
    rows = probe.split("test")
    expected = [oracle.correlation(one, judge, layer, rows) for one in truth]
    np.testing.assert_allclose(values(scores, "true"), expected, atol=1e-10)
    one = scores[3]
    assert (one.target, one.pool, one.unit, one.score, one.n) == ("net", "avg", Unit("layer", 3), "correlation", 200)
    assert (one.status, one.judge, one.images) == ("ok", "table", "planted/test:200")
    assert one.explanation == str(truth[3])
    assert math.isclose(one.sem, (1 - one.value**2) / math.sqrt(199))


def test_only_test_images_count(world, trainer):
    probe, judge, layer, truth = world
    before = run(plain, {"true": truth}, layer, probe, judge, trainer)
    changed = layer.values.clone()
    changed[probe.split("train", "val")] = torch.randn(800, changed.shape[1])
    assert run(plain, {"true": truth}, replace(layer, values=changed), probe, judge, trainer) == before


def test_batches_do_not_matter(world, trainer):
    probe, judge, layer, truth = world
    one, other = (
        run(replace(plain, batch_size=size), {"true": truth}, layer, probe, judge, trainer) for size in (7, 1000)
    )
    np.testing.assert_allclose(values(one, "true"), values(other, "true"), atol=1e-12)


def test_floors_and_ceiling_of_planted_units(world, trainer):
    probe, judge, layer, truth = world
    scores = run(Correlation(), {"true": truth}, layer, probe, judge, trainer)
    mean = {method: values(scores, method).mean() for method in ("true", "shuffled-true", "random-true", "ceiling")}
    assert mean["true"] > 0.75
    assert abs(mean["ceiling"] - mean["true"]) < 0.03
    assert abs(mean["shuffled-true"]) < 0.15 and abs(mean["random-true"]) < 0.15
    assert all(values(scores, method).shape == (24,) for method in mean)


def test_floors_are_the_same_every_time_and_independent_of_other_methods(world, trainer):
    probe, judge, layer, truth = world
    sim = Correlation(ceiling=False)
    alone = run(sim, {"true": truth}, layer, probe, judge, trainer)
    assert run(sim, {"true": truth}, layer, probe, judge, trainer) == alone
    beside = run(sim, {"other": truth[:5], "true": truth}, layer, probe, judge, trainer)
    for a, b in zip(alone, [one for one in beside if "other" not in one.method], strict=True):
        assert replace(a, value=0, sem=0) == replace(b, value=0, sem=0)
        assert math.isclose(a.value, b.value, abs_tol=1e-12)
    assert run(replace(sim, seed=1), {"true": truth}, layer, probe, judge, trainer) != alone


def test_every_concept_is_judged_once(world, trainer):
    probe, judge, layer, truth = world
    other = {"layer": layer, "second": recorded(layer.values, "second")}
    again = [replace(one, unit=replace(one.unit, layer="second")) for one in truth]
    scores = run(Correlation(), {"true": [*truth, *again], "copy": truth}, other, probe, judge, trainer)
    assert len(judge.asked) == 1 and len(set(judge.asked[0])) == len(judge.asked[0])
    assert {one.unit.layer for one in scores if one.method == "true"} == {"layer", "second"}
    assert {one.unit.layer for one in scores if one.method == "copy"} == {"layer"}
    first, second = (
        [one.value for one in scores if one.method == "true" and one.unit.layer == layer] for layer in other
    )
    assert first == second


def test_formulas_are_scored_over_their_atoms(world, trainer):
    probe, judge, *_ = world
    a, b, c = (judge.scores[:, k] for k in range(3))
    activations = torch.stack((torch.maximum(a, torch.minimum(b, 1 - c)), a), 1)
    found = [
        Explanation(Unit("layer", 0), (("c0 OR c1 AND NOT c2", 1.0),)),
        Explanation(Unit("layer", 1), (("c0", 1.0),)),
    ]
    scores = run(plain, {"formula": found}, recorded(activations), probe, judge, trainer)
    np.testing.assert_allclose(values(scores, "formula"), 1, atol=1e-9)


def test_units_that_cannot_be_judged_are_counted_not_zero(world, trainer):
    probe, judge, layer, truth = world
    truth[2] = replace(truth[2], terms=(("c1", 1.0), ("unheard of", 1.0)))
    truth[3] = replace(truth[3], terms=(("c1 AND NOT unheard of", 1.0),))
    scores = run(Correlation(), {"true": truth}, layer, probe, judge, trainer)
    for method in ("true", "shuffled-true", "random-true"):
        status = [one.status for one in scores if one.method == method]
        assert [k for k, one in enumerate(status) if one == "unjudged"] == [2, 3]
        assert np.isnan(values(scores, method)[[2, 3]]).all()
        assert np.isfinite(np.delete(values(scores, method), [2, 3])).all()
    assert np.isfinite(values(scores, "ceiling")).all()


def test_inactive_units_have_no_score_and_poison_nothing(world, trainer):
    probe, judge, layer, truth = world
    changed = layer.values.clone()
    changed[:, 0] = 0.25  # never changes
    changed[probe.split("test"), 1] = 0.25  # not on test images
    changed[probe.split("train", "val"), 2] = 0.25  # only on test images: nothing could be learnt
    truth[0], truth[2], truth[4] = (Explanation(Unit("layer", k), ()) for k in (0, 2, 4))
    scores = run(Correlation(), {"true": truth}, replace(layer, values=changed), probe, judge, trainer)
    for method in ("true", "shuffled-true", "random-true", "ceiling"):
        status = {one.unit.index: one.status for one in scores if one.method == method}
        assert [k for k, one in status.items() if one != "ok"] == [0, 1, 2]
        assert {status[k] for k in (0, 1, 2)} == {"inactive"}
        assert np.isnan(values(scores, method)[:3]).all() and np.isfinite(values(scores, method)[3:]).all()
    assert values(scores, "true")[4] == 0  # an empty explanation of a live unit predicts a constant


@pytest.mark.parametrize("name", ["layer", "layer.dictionary"])
def test_latents_that_fire_on_few_test_images_are_rare(world, trainer, name):
    probe, judge, layer, truth = world
    changed, test = layer.values.clone(), probe.split("test")
    for column, fires in ((0, 9), (1, 10), (2, 0)):
        changed[test[fires:], column] = 0.0
    units = tuple(Unit(name, unit.index) for unit in layer.units)
    truth = [replace(one, unit=Unit(name, one.unit.index)) for one in truth]
    layers = {name: replace(layer, values=changed, units=units)}
    scores = run(Correlation(), {"true": truth}, layers, probe, judge, trainer)
    for method in ("true", "shuffled-true", "random-true", "ceiling"):
        status = [one.status for one in scores if one.method == method]
        assert status[:3] == ["rare" if name != "layer" else "ok", "ok", "inactive"] and set(status[3:]) == {"ok"}
    row = next(row for row in leaderboard(scores) if row.method == "true")
    assert (row.n_rare, row.n_inactive, row.units) == (
        (1, 1, f"{row.n_units} of {row.n_units + 2}")
        if name != "layer"
        else (0, 1, f"{row.n_units} of {row.n_units + 1}")
    )


def test_broken_units_are_as_if_they_were_not_there(world, trainer):
    probe, judge, layer, truth = world
    changed = layer.values.clone()
    changed[:, [2, 7]] = 0  # as recording leaves them
    damaged = replace(layer, values=changed, broken=(2, 7))
    scores = run(Correlation(), {"true": truth}, damaged, probe, judge, trainer)
    for method in ("true", "shuffled-true", "random-true", "ceiling"):
        status = {one.unit.index: one.status for one in scores if one.method == method}
        assert [k for k, one in status.items() if one == "broken"] == [2, 7]
        assert set(status.values()) == {"ok", "broken"}
        assert np.isnan(values(scores, method)[[2, 7]]).all()
    others = [one for one in truth if one.unit.index not in (2, 7)]
    alone = run(Correlation(), {"true": others}, damaged, probe, judge, trainer)
    assert [one for one in scores if one.status == "ok" and one.method != "ceiling"] == [
        one for one in alone if one.method != "ceiling"
    ]


def test_random_concepts_are_never_those_of_the_explanation(world, trainer, caplog):
    probe, judge, layer, _ = world
    judge.any_phrase = True
    plain_words = [Explanation(Unit("layer", k), ((f"c{k % 2}", 1.0),)) for k in range(6)]
    scores = run(Correlation(), {"said": plain_words}, layer, probe, judge, trainer, ("c0", "c1"))
    by_chance = {one.unit.index: one.explanation for one in scores if one.method == "random-said"}
    assert by_chance == {k: f"c{1 - k % 2}" for k in range(6)}
    assert not caplog.records
    scores = run(Correlation(), {"said": plain_words}, layer, probe, judge, trainer, ("c1",))
    by_chance = {one.unit.index: one.explanation for one in scores if one.method == "random-said"}
    assert by_chance == {0: "c1", 2: "c1", 4: "c1"}
    assert "random-said is left out for 3 units (layer:1, layer:3, layer:5)" in caplog.text


def test_random_rows_have_the_status_of_their_unit_where_others_are_left_out(world, trainer):
    probe, judge, layer, _ = world
    judge.any_phrase = True
    said = [Explanation(Unit("layer", k), ((concept, 1.0),)) for k, concept in enumerate(("c1", "unheard of", "c0"))]
    scores = run(Correlation(ceiling=False), {"said": said}, layer, probe, judge, trainer, ("c1",))
    status = {one.unit.index: one.status for one in scores if one.method == "random-said"}
    assert status == {1: "unjudged", 2: "ok"}


def test_a_subset_of_units(world, trainer):
    probe, judge, layer, truth = world
    all_ = run(plain, {"true": truth}, layer, probe, judge, trainer)
    some = run(plain, {"true": [truth[9], truth[4]]}, layer, probe, judge, trainer)
    assert [(one.unit.index, one.value) for one in some] == [(k, all_[k].value) for k in (9, 4)]
    alone = run(Correlation(), {"true": truth[:1]}, layer, probe, judge, trainer)
    assert {one.method for one in alone} == {"true", "random-true", "ceiling"}  # nobody to swap with


def test_random_concepts_come_from_the_words_where_the_judge_knows_any(world, trainer):
    probe, judge, layer, truth = world
    judge.any_phrase = True
    words = judge.names[:10]
    scores = run(Correlation(ceiling=False), {"true": truth}, layer, probe, judge, trainer, words)
    for one in scores:
        if one.method == "random-true":
            concepts = re.findall(r"c\d+", one.explanation)
            assert set(concepts) <= set(words) and len(set(concepts)) == 2


def test_ceiling_may_use_so_many_concepts(world, trainer):
    probe, judge, layer, truth = world
    scores = run(Correlation(floors=False, ceiling_concepts=7), {"true": truth}, layer, probe, judge, trainer)
    text = {one.explanation.split(",")[0] for one in scores if one.method == "ceiling"}
    assert text == {"ridge on 7 concepts"}


@pytest.mark.parametrize(("limit", "used"), [(10, 10), (2000, 40)])
def test_ceiling_uses_the_explanations_concepts_first_and_then_others(world, trainer, limit, used):
    """The unit is twice one of its concepts and another, so that a ridge without these would be far worse."""
    probe, judge, layer, truth = world
    scores = run(Correlation(ceiling_concepts=limit), {"true": truth[:2]}, layer, probe, judge, trainer)
    bound = [one for one in scores if one.method == "ceiling"]
    assert {one.explanation.split(",")[0] for one in bound} == {f"ridge on {used} concepts"}
    for one, exact in zip(bound, values(scores, "true"), strict=True):
        assert one.value > exact - 0.05


def test_precision_of_the_trainer_does_not_matter(world, trainer):
    probe, judge, layer, truth = world
    half = partial(trainer, precision="bf16-mixed")
    one, other = (run(Correlation(), {"true": truth}, layer, probe, judge, how) for how in (trainer, half))
    assert one == other


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda layer, truth: truth.append(replace(truth[0], unit=Unit("layer", 99))), "layer:99.*0 to 23"),
        (lambda layer, truth: truth.append(truth[5]), "layer:5 twice"),
        (lambda layer, truth: truth.append(Explanation(Unit("layer", 1, 0), (("a OR", 1.0),))), "not a formula"),
    ],
)
def test_mistakes(world, trainer, change, message):
    probe, judge, layer, truth = world
    change(layer, truth)
    with pytest.raises(UserError, match=message):
        run(plain, {"true": truth}, layer, probe, judge, trainer)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_scores_that_are_no_numbers_are_refused(world, trainer, value):
    probe, judge, layer, truth = world
    judge.scores[int(probe.split("test")[4]), 0] = value
    with pytest.raises(UserError, match="`c0` on image"):
        run(Correlation(), {"true": truth}, layer, probe, judge, trainer)


def test_the_scale_of_an_explanation_does_not_matter_even_where_squares_overflow(world, trainer):
    probe, judge, layer, truth = world
    expected = values(run(plain, {"true": truth}, layer, probe, judge, trainer), "true")
    for scale in (1e154, 4e307, 1e-200):
        scaled = [
            replace(one, terms=tuple((c, w * scale) for c, w in one.terms), bias=one.bias * scale) for one in truth
        ]
        scores = run(Correlation(), {"true": scaled}, layer, probe, judge, trainer)
        assert {one.status for one in scores} == {"ok"}
        np.testing.assert_allclose(values(scores, "true"), expected, atol=1e-10)


def test_units_whose_concepts_no_test_image_shows_are_untested_and_leave_the_mean(world, trainer, caplog):
    probe, judge, layer, truth = world
    test = probe.split("test")
    judge.scores[test, 0], judge.scores[test, 1] = 0, 1
    truth[0] = Explanation(Unit("layer", 0), (("c0", 1.0),))
    truth[1] = Explanation(Unit("layer", 1), (("c0", 2.0), ("c1", -1.0)), bias=3.0)
    truth[2] = Explanation(Unit("layer", 2), (("c0", 2.0), ("c5", 1.0)))
    truth[3] = Explanation(Unit("layer", 3), (("NOT c0 OR c1", 1.0),))
    truth[4] = Explanation(Unit("layer", 4), (("c0", 1.0), ("unheard of", 1.0)))
    scores = run(Correlation(), {"true": truth}, layer, probe, judge, trainer)
    for method in ("true", "shuffled-true"):
        status = {one.unit.index: one.status for one in scores if one.method == method}
        assert {k: one for k, one in status.items() if one != "ok"} == {
            0: "untested", 1: "untested", 3: "untested", 4: "unjudged"
        }  # fmt: skip
    by_chance = [one for one in scores if one.method == "random-true" and one.explanation in ("c0", "c1")]
    assert {one.status for one in by_chance} <= {"untested"}
    (row,) = [row for row in leaderboard(scores) if row.method == "true"]
    assert (row.n_units, row.n_untested, row.n_unjudged) == (20, 3, 1)
    assert math.isclose(row.mean, np.nanmean(values(scores, "true")))


def test_concepts_with_too_little_support_test_nothing(world, trainer):
    probe, judge, layer, _ = world
    test = probe.split("test")
    judge.scores[test, 0] = 0
    judge.scores[test[:3], 0] = torch.tensor([1, 0.5, 1])
    said = {"said": [Explanation(Unit("layer", 0), (("c0", 1.0),)), Explanation(Unit("layer", 1), (("c1", 1.0),))]}
    status = {
        least: [one.status for one in run(replace(plain, min_support=least), said, layer, probe, judge, trainer)]
        for least in (0, 2.5, 3)
    }
    assert status == {0: ["ok", "ok"], 2.5: ["ok", "ok"], 3: ["untested", "ok"]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"floors": "x"}, "sim.correlation.floors=x must be true or false"),
        ({"ceiling": 1}, "sim.correlation.ceiling=1"),
        ({"batch_size": 0}, "sim.correlation.batch_size=0 must be a whole number of at least 1"),
        ({"ceiling_concepts": -1}, "ceiling_concepts=-1"),
        ({"seed": -1}, "seed=-1"),
        ({"min_support": math.nan}, "min_support=nan must be a number of at least 0"),
    ],
)
def test_options_that_cannot_be(options, message):
    with pytest.raises(UserError, match=re.escape(message)):
        Correlation(**options)


def test_where_nobody_gives_a_list_random_concepts_come_from_a_wide_one(world, trainer):
    probe, judge, layer, _ = world
    judge.any_phrase = True
    said = [Explanation(Unit("layer", k), (("c1", 1.0),)) for k in range(6)]
    scores = run(Correlation(ceiling=False), {"said": said}, layer, probe, judge, trainer)
    by_chance = [one.explanation for one in scores if one.method == "random-said"]
    assert len(set(by_chance)) > 3 and "c1" not in by_chance


def test_where_all_say_the_same_there_is_nothing_to_shuffle(world, trainer, caplog):
    probe, judge, layer, _ = world
    said = [Explanation(Unit("layer", k), (("c1", 1.0),)) for k in range(6)]
    scores = run(Correlation(ceiling=False), {"said": said}, layer, probe, judge, trainer)
    assert {one.method for one in scores} == {"said", "random-said"}
    assert "shuffled-said is left out of layer: too many explanations have the same concepts" in caplog.text
    said[5] = Explanation(Unit("layer", 5), (("c2", 1.0),))
    scores = run(Correlation(ceiling=False), {"said": said}, layer, probe, judge, trainer)
    assert len([one for one in scores if one.method == "shuffled-said"]) == 2
    assert "left out for 4 of 6 units" in caplog.text
