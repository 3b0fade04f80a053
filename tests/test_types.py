import pytest

from neuronx.types import Explanation, Unit, in_digits, unsplit


@pytest.mark.parametrize(
    ("weight", "text"),
    [
        (2.0, "2.00"),
        (-0.47, "-0.47"),
        (0.1, "0.10"),
        (0.0, "0.00"),
        (0.0021, "0.0021"),
        (-0.0047, "-0.0047"),
        (0.042, "0.042"),
        (3e-9, "3e-09"),
        (123456.7, "123456.70"),
        (1e154, "1e+154"),
    ],
)
def test_weights_have_as_many_digits_as_they_need(weight, text):
    assert in_digits(weight) == text


def test_an_explanation_of_small_weights_tells_them_apart():
    small = Explanation(Unit("fc", 0), (("dog", 0.0021), ("cat", -0.0019)), bias=-0.0004)
    assert str(small) == "0.0021 dog - 0.0019 cat - 0.0004"


def test_a_split_unit_has_two_or_more_parts_counted_from_zero():
    def parts(index, *numbers):
        return [Unit("fc", index, part) for part in numbers]

    units = [Unit("fc", 0), *parts(1, 0, 1), *parts(2, 1, 2), *parts(3, 0), *parts(4, 2, 0, 1)]
    assert unsplit(units) == {*parts(2, 1, 2), *parts(3, 0)}
