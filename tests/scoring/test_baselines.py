import pytest

from neuronx.scoring.baselines import randomised, shuffled
from neuronx.scoring.rows import is_method
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


def test_a_random_explanation_draws_none_of_the_concepts_of_a_formula_or_of_a_long_explanation():
    for unit in range(20):
        formula = randomised(said(unit, ("Dog OR NOT tabby_cat", 1.0)), ("dog", "tabby cat", "a", "b"), "0/le")
        assert formula.terms[0][0] in ("a", "b")
        two = randomised(said(unit, ("a", 1.0), ("b", 2.0)), ("a", "b", "c", "d", "e"), "0/le")
        assert {concept for concept, _ in two.terms} <= {"c", "d", "e"}


@pytest.mark.parametrize("words", ["aab", "aabb", "aabbc", "aaabbc", "abcdeaab", "aaabbb"])
def test_a_shuffled_unit_never_gets_the_words_of_its_own_explanation(words):
    own = [said(k, (word, 1.0 + k)) for k, word in enumerate(words)]
    for seed in map(str, range(20)):
        moved = {one.unit: one.terms for one in shuffled(own, seed)}
        assert all(moved[one.unit][0][0] != one.terms[0][0] for one in own if one.unit in moved)
        most = max(map(words.count, words))
        assert len(moved) == (len(words) if 2 * most <= len(words) else 2 * (len(words) - most))


def test_explanations_that_are_all_equal_have_nothing_to_swap():
    assert shuffled([said(k, ("Dog", 1.0)) for k in range(3)] + [said(3, ("dog", 2.0))], "0") == []
