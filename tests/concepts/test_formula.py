import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuronx.concepts.formula import Formula, Formulas, evaluate, parse, quoted
from neuronx.errors import UserError


@pytest.mark.parametrize(
    ("text", "same", "atoms"),
    [
        ("water OR river AND NOT blue", "water OR (river AND (NOT blue))", ("water", "river", "blue")),
        ("a AND b OR c AND d", "(a AND b) OR (c AND d)", ("a", "b", "c", "d")),
        ("((water OR river) AND (NOT blue-c))", "(water OR river) AND NOT blue-c", ("water", "river", "blue-c")),
        ("NOT NOT a", "NOT (NOT a)", ("a",)),
        ("NOT (a OR b)", "NOT (a OR b)", ("a", "b")),
        ("living room OR  crane (bird)", "(living room) OR crane (bird)", ("living room", "crane (bird)")),
    ],
)
def test_precedence(text, same, atoms):
    assert parse(text) == parse(same)
    assert parse(text).atoms == atoms
    assert parse(str(parse(text))) == parse(text)


@pytest.mark.parametrize("text", ["bread and butter", "a dog or a cat, not a bird (small)", "(red)", "ANDROID NOTE"])
def test_plain_phrases_are_one_atom(text):
    assert parse(f" {text} ").atoms == (text,)
    assert not parse(text).operator


@pytest.mark.parametrize(
    "text", ["AND b", "a OR", "a OR (b", "a OR b)", "a NOT b", "OR", "(a OR b) c", "a OR crane (b"]
)
def test_broken_formulas(text):
    with pytest.raises(UserError, match="is not a formula"):
        parse(text)


def test_scores_by_least_greatest_and_complement():
    scores = {"a": torch.tensor([0.2, 0.9]), "b": torch.tensor([0.5, 0.4]), "c": torch.tensor([1.0, 0.3])}
    found = evaluate(parse("a OR b AND NOT c"), scores.__getitem__)
    torch.testing.assert_close(found, torch.maximum(scores["a"], torch.minimum(scores["b"], 1 - scores["c"])))


leaf = st.sampled_from(["a", "b c", "d", "e (f)"])
formulas = st.recursive(
    leaf,
    lambda inner: st.one_of(
        st.builds("({} AND {})".format, inner, inner),
        st.builds("({} OR {})".format, inner, inner),
        st.builds("(NOT {})".format, inner),
    ),
    max_leaves=6,
)


@given(texts=st.lists(formulas, min_size=1, max_size=8), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_many_at_once_as_one_by_one(texts, seed):
    many = Formulas(texts)
    scores = torch.rand(len(many.atoms), 5, generator=torch.Generator().manual_seed(seed))
    column = dict(zip(many.atoms, scores, strict=True))
    expected = torch.stack([evaluate(parse(text), column.__getitem__) for text in many.texts])
    assert torch.equal(many.evaluate(scores), expected)
    assert (expected >= 0).all() and (expected <= 1).all()


def test_known_formulas_have_known_atoms_only():
    many = Formulas(["a", "b", "a AND NOT b", "a OR c", "a"])
    assert many.atoms == ("a", "b", "c") and len(many) == 4
    assert many.places(torch.tensor([True, False, True])) == {"a": 0, "a OR c": 3}
    assert Formulas([]).evaluate(torch.rand(0, 3)).shape == (0, 3)


ODD = [
    *("salt AND pepper", "DO NOT ENTER", "OR", "NOT", "a OR b", "(red)", "smile :)", ":(", "((a)", "a) OR (b"),
    *('24" screen', '"best" car', 'say "hi"', '"', '""', "=1+1", "-x", "@y", "a, b;c", "'quoted'"),
    *(" edges ", "a\nb\tc", "ANDROID", "\u00e9t\u00e9 OR \u732b", "", "x" * 3000 + " AND y"),
]


@pytest.mark.parametrize("name", ODD)
def test_any_name_is_one_atom_once_quoted(name):
    assert parse(quoted(name)) == Formula(atom=name)
    both = Formula("OR", (Formula(atom=name), Formula("NOT", (Formula(atom=name),))))
    assert parse(str(both)) == both


def test_plain_names_are_not_quoted():
    for name in ("bread and butter", "(red)", "crane (bird)", '24" screen', "it's", "=1+1"):
        assert quoted(name) == name
    assert quoted("DO NOT ENTER") == '"DO NOT ENTER"' and quoted('"') == '"' and quoted('""') == '""""""'
    assert str(Formula("AND", (Formula(atom="a"), Formula(atom="(b)")))) == 'a AND "(b)"'


any_name = st.one_of(st.sampled_from(ODD), st.text(alphabet='aAND ORT"()\n', max_size=12), st.text(max_size=6))


def _operations(inner):
    parts = st.lists(inner, min_size=2, max_size=3).map(tuple)
    joined = st.builds(Formula, st.sampled_from(["AND", "OR"]), parts)
    return st.one_of(joined, st.builds(lambda part: Formula("NOT", (part,)), inner))


@given(st.recursive(st.builds(lambda name: Formula(atom=name), any_name), _operations, max_leaves=5))
@settings(max_examples=300, deadline=None)
def test_what_is_printed_is_read_back(formula):
    assert parse(str(formula)) == formula


def test_a_whole_name_is_an_atom_unless_it_is_a_formula_of_names():
    names = {"do not enter", "salt and pepper", "salt", "stop"}
    assert parse("DO NOT ENTER", names).atoms == ("DO NOT ENTER",)
    assert parse("salt AND pepper", names) == Formula(atom="salt AND pepper")
    assert parse("salt AND pepper", names | {"pepper"}).atoms == ("salt", "pepper")
    with pytest.raises(UserError, match='in quotes, as in "DO NOT ENTER"'):
        parse("DO NOT GO", names)
