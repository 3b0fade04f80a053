import math
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest

from neuronx.concepts.clip import Clip, ClipConcepts
from neuronx.concepts.labels import LabelConcepts
from neuronx.concepts.words import Words
from neuronx.errors import UserError
from neuronx.methods.clip_dissect.method import ClipDissect
from neuronx.methods.linear.method import LinearExplanations
from neuronx.scoring.compare import agreement, check_judge, compare
from neuronx.types import Score, Unit


def row(method, unit, value, status="ok", judge="siglip", layer="layer4"):
    return Score("net", "avg", Unit(layer, unit), method, "correlation", value, 0.1, 99, status, "", judge, "x/test:99")


def rows(method, values, **more):
    return [
        row(method, k, value, "ok" if math.isfinite(value) else "unjudged", **more) for k, value in enumerate(values)
    ]


def test_methods_are_compared_on_the_units_scored_for_both():
    rng = np.random.default_rng(0)
    base = rng.random(40)
    a, b = base + 0.1, base.copy()
    a[3] = b[7] = math.nan
    scores = [
        *rows("a", a),
        *rows("b", b),
        *rows("shuffled-a", 0 * base),
        *rows("random-a", base),
        *rows("ceiling", base),
    ]
    found = {(one.a, one.b): one for one in compare(scores)}
    assert set(found) == {("a", "b"), ("a", "shuffled-a")}
    one = found["a", "b"]
    assert (
        one.n_units == 38 and math.isclose(one.diff, 0.1) and math.isclose(one.low, 0.1) and math.isclose(one.high, 0.1)
    )
    above = found["a", "shuffled-a"]
    assert above.n_units == 39 and 0 < above.low < above.diff < above.high


def test_units_without_a_score_are_compared_with_nothing():
    """A number in a row that says it has none does not count, whatever the status is called."""
    statuses = ("inactive", "unjudged", "broken", "no_effect")
    bad = [row("a", 2 + k, 9.0, status) for k, status in enumerate(statuses)]
    scores = [row("a", 0, 0.5), row("a", 1, 0.3), *bad, *(row("b", k, 0.1) for k in range(6))]
    (one,) = compare(scores)
    assert one.n_units == 2 and math.isclose(one.diff, 0.3)


def test_layers_are_compared_apart_and_only_where_something_is_shared():
    scores = [*rows("a", [0.1, 0.2]), *rows("b", [0.3, 0.1], layer="layer3"), *rows("b", [math.nan, math.nan])]
    assert compare(scores) == []


def test_the_first_judge_counts():
    scores = [
        *rows("a", [0.1, 0.2]),
        *rows("b", [0.3, 0.5]),
        *rows("a", [9, 9], judge="z"),
        *rows("b", [0, 0], judge="z"),
    ]
    assert [round(one.diff, 9) for one in compare(scores)] == [-0.25]


def test_intervals_of_few_units_are_marked():
    few = {n: compare([*rows("a", [0.1, 0.5, 0.2] * 4), *rows("b", [0.3] * n)])[0] for n in (1, 2, 9, 10)}
    assert [one.interval for one in few.values()] == ["none", "t", "t", "bootstrap"]
    assert math.isnan(few[1].low) and math.isclose(few[1].diff, -0.2)
    assert few[2].high - few[2].low > 2 * 0.4


def test_comparison_is_seeded():
    scores = [*rows("a", np.random.default_rng(0).random(12)), *rows("b", np.random.default_rng(1).random(12))]
    assert compare(scores, seed=1) == compare(scores, seed=1) != compare(scores, seed=2)


def test_agreement_of_judges():
    scores = [
        *rows("a", [0.1, 0.2, 0.3, math.nan]),
        *rows("b", [0.5, 0.6, 0.7, 0.9]),
        *rows("shuffled-a", [0, 0, 0, 0]),
        *rows("a", [0.2, 0.3, 0.5, 0.1], judge="labels"),
        *rows("b", [0.6, 0.5, 0.4, math.nan], judge="labels"),
    ]
    units_a, units_b, methods = agreement(scores)
    assert (units_a.method, units_a.rho, units_a.n) == ("a", pytest.approx(1), 3)
    assert (units_b.method, units_b.rho, units_b.n) == ("b", pytest.approx(-1), 3)
    assert (methods.method, methods.rho, methods.n) == ("", pytest.approx(1), 2)
    assert "siglip and labels rank 3 units of a with correlation 1.00" in str(units_a)
    assert agreement(scores[:12]) == []
    (alone, *_) = agreement([row("a", 0, 0.1), row("a", 0, 0.2, judge="labels")])
    assert "siglip and labels cannot be compared on 1 units of a, too few or all alike" in str(alone)


@dataclass(frozen=True)
class Fake(Clip):
    """A CLIP whose weights are known by their name."""

    @property
    def encoder(self):
        return SimpleNamespace(identity=self.pretrained)


def test_a_judge_may_not_judge_what_it_said():
    probe = SimpleNamespace(domain="natural", name="photos")
    mine, renamed, other = Fake("A", "w1"), Fake("A", "w1", a=1.0, b=0.0, name="my friend"), Fake("A", "w2")
    linear, dissect = LinearExplanations(ClipConcepts(mine, Words(["dog"]))), ClipDissect(mine, Words(["dog"]))
    for method, name in ((linear, "le_clip"), (dissect, "clip_dissect")):
        check_judge(other, probe, [(name, *method.encoders)])
        for judge in (mine, renamed):
            with pytest.raises(UserError, match=f"{judge.name} has made the explanations of {name}"):
                check_judge(judge, probe, [(), (name, *method.encoders)])
    check_judge(LabelConcepts(), probe, [("le_clip", *linear.encoders), ("milan",), ("le_label",), ()])


def test_a_judge_of_another_domain_is_refused():
    judge = Fake("A", "w1", domain="shapes", name="toy")
    with pytest.raises(UserError, match=r"toy knows shapes pictures.*natural"):
        check_judge(judge, SimpleNamespace(domain="natural", name="photos"))
