"""Units as `units=` spells them, and the other names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuronx.errors import UserError
from neuronx.targets.layers import dotted, parse_units, pooled_layers


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (None, list(range(8))),
        ("0:3", [0, 1, 2]),
        (":2", [0, 1]),
        ("6:", [6, 7]),
        ("-2:", [6, 7]),
        ("5:99", [5, 6, 7]),
        (7, [7]),
        ("7", [7]),
        ([7, 1], [1, 7]),
        ("[7, 1]", [1, 7]),
        ("random:99", list(range(8))),
    ],
)
def test_units_as_they_are_written(spec, expected):
    assert parse_units(spec, 8) == expected


@pytest.mark.parametrize(
    ("spec", "line"),
    [
        ("0:9999", "units=0:9999: a layer has 8 units; 0 to 7 are taken."),
        ("5:9", "5 to 7 are taken"),
        ("-20:3", "0 to 2 are taken"),
        ("random:9", "a layer has 8 units, and all of them are taken"),
        ("0:8", ""),
        ("-8:", ""),
        ("random:8", ""),
    ],
)
def test_more_units_than_there_are_have_a_line(spec, line, caplog):
    parse_units(spec, 8)
    assert line in caplog.text and bool(caplog.text) == bool(line)


@given(st.integers(1, 50), st.integers(1, 60), st.integers(0, 5))
def test_random_units_are_distinct_sorted_and_follow_the_seed(count, wanted, seed):
    chosen = parse_units(f"random:{wanted}", count, seed)
    assert chosen == sorted(set(chosen)) and len(chosen) == min(wanted, count) and set(chosen) <= set(range(count))
    assert chosen == parse_units(f"random:{wanted}", count, seed)


def test_other_seeds_draw_other_units():
    assert parse_units("random:50", 2048, 0) != parse_units("random:50", 2048, 1)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("all", "not understood; write 0:64"),
        ("0:64:2", "not understood"),
        ([1.5], "not understood"),
        ([True], "not understood"),
        ({"a": 1}, "not understood"),
        ([8], "no unit 8; the layer has units 0 to 7"),
        ([-1], "no unit -1"),
        ([1, 1], "named twice"),
        ("5:5", "leaves no unit"),
        ([], "leaves no unit"),
        ("random:0", "leaves no unit"),
    ],
)
def test_units_that_make_no_sense(spec, message):
    with pytest.raises(UserError, match=message):
        parse_units(spec, 8)


def test_layers_in_every_spelling():
    assert dotted("classifier[4]") == "classifier.4" and dotted("[0][1]") == "0.1"
    assert pooled_layers("layer4", "avg") == {"layer4": "avg"}
    assert pooled_layers(["a", "b[0]"], "max") == {"a": "max", "b.0": "max"}
    assert pooled_layers({"a": "first", "b": None}, "avg") == {"a": "first", "b": "avg"}
    with pytest.raises(UserError, match="No layer"):
        pooled_layers([], "avg")
