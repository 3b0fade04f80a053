from neuronx.scoring.rows import is_method, randomised, shuffled
from neuronx.types import Explanation, Unit

POOL = tuple(f"w{k}" for k in range(50))


def said(unit, *terms, **more):
    return Explanation(Unit("fc", unit), tuple(terms), **more)


def test_names_of_baselines_and_the_upper_bound():
    names = ("le_clip", "shuffled-le_clip", "random-le_clip", "ceiling", "random", "le-shuffled-")
    assert [is_method(name) for name in names] == [True, False, False, False, True, True]


def test_no_unit_keeps_its_own_explanation_when_they_are_shuffled():
    own = [said(k, (f"w{k}", 1.0), evidence=(k,), notes=(("similarity", 0.5),)) for k in range(7)]
    for seed in map(str, range(20)):
        moved = shuffled(own, seed)
        assert moved == shuffled(own, seed)
        assert [one.unit for one in moved] == [one.unit for one in own]
        assert sorted(one.terms for one in moved) == sorted(one.terms for one in own)
        assert all(a.terms != b.terms for a, b in zip(moved, own, strict=True))
        assert all(not one.evidence and not one.notes for one in moved)


def test_a_random_explanation_has_the_same_length_and_weights():
    own = said(3, ("dog", 2.0), ("cat", -1.0), bias=0.5, evidence=(1,), notes=(("similarity", 0.5),))
    other = randomised(own, POOL, "0/le")
    assert other.unit == own.unit and other.bias == 0.5 and not other.evidence and not other.notes
    assert [weight for _, weight in other.terms] == [2.0, -1.0]
    assert len({concept for concept, _ in other.terms} & set(POOL)) == 2
    assert other == randomised(own, POOL, "0/le") != randomised(own, POOL, "1/le")


def test_a_random_explanation_is_never_the_explanation_itself():
    for unit in range(40):
        other = randomised(said(unit, ("Tabby_cat", 1.0)), ("tabby cat", "dog"), "0/le")
        assert other.terms == (("dog", 1.0),)
        swapped = randomised(said(unit, ("a", 1.0), ("b", 1.0)), ("a", "b", "c"), "0/le")
        assert {concept for concept, _ in swapped.terms} != {"a", "b"}
    assert randomised(said(0, ("dog", 1.0)), ("dog",), "0/le") is None
    assert randomised(said(0), ("dog",), "0/le") == said(0)
