"""What annotations allow, and how they are said."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest

from neuronx.errors import UserError
from neuronx.options import Count, OpenShare, OptionsOf, Positive, Seed, Share, check, fits, parameters, said


@pytest.mark.parametrize(
    ("annotation", "right", "wrong"),
    [
        (int, [0, -3, np.int64(2)], [1.5, True, "3", None, [1]]),
        (Count, [1, 10**9], [0, -1, 2.0, False]),
        (Count | None, [None, 1], [0, "none"]),
        (Seed, [0, 2**32 - 1], [-1, 2**32]),
        (float, [1, 0.5], ["0.5", True, float("nan"), float("inf")]),
        (Positive, [1e-9], [0, -1]),
        (Share, [0, 1, 0.5], [1.01, -0.01]),
        (OpenShare, [0.5], [0, 1]),
        (bool, [True, False], [0, 1, "yes"]),
        (str, ["", "a"], [1, None, ["a"]]),
        (str | Path | None, ["a", Path("a"), None], [1, ["a"]]),
        (Sequence[int], [[], [1], (1, 2)], ["12", [0.5], 3, {"a": 1}]),
        (tuple[Count, Count], [[1, 2]], [[1], [1, 2, 3], [0, 1], 4]),
        (Mapping[str, Any], [{"a": 1}], ["a", [1]]),
        (Literal["a", 1], ["a", 1], ["b", True]),
        (Callable[..., int], [len], ["len", 3]),
        ("a forward reference", [1, "a"], []),
        (Any, [1, None, object()], []),
    ],
)
def test_annotations_allow_what_they_say(annotation, right, wrong):
    assert [value for value in right if not fits(value, annotation)] == []
    assert [value for value in wrong if fits(value, annotation)] == []


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (Count | None, "a whole number of at least 1 or null"),
        (None | Share, "a number from 0 to 1 or null"),
        (Positive, "a number above 0"),
        (OpenShare, "a number between 0 and 1"),
        (tuple[int, int] | None, "a list of 2 (a whole number, a whole number) or null"),
        (Sequence[str] | str, "a list (each a text) or a text"),
        (Literal["a", "b"], "a or b"),
    ],
)
def test_annotations_are_said_in_words(annotation, words):
    assert said(annotation) == words


@pytest.mark.parametrize(("value", "text"), [("abc", "abc"), (None, "null"), (True, "true"), ("", "''"), ([1], "[1]")])
def test_a_mistake_shows_the_value_as_typed(value, text):
    with pytest.raises(UserError) as mistake:
        check("data.size", value, Count)
    assert str(mistake.value) == f"data.size={text} must be a whole number of at least 1."


def test_options_that_are_passed_on_are_known_but_not_needed():
    def inner(needed: int, size: Count = 1) -> None: ...

    def outer(name: str, **options: Annotated[Any, OptionsOf(inner)]) -> None: ...

    known, takes_any = parameters(outer)
    assert list(known) == ["needed", "size", "name"] and not takes_any
    assert known["needed"].default is None and known["name"].default is known["name"].empty
    assert known["size"].annotation == Count
