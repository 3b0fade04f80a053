"""What options may be: kinds and ranges, written in the annotations of constructors, checked and said in words."""

import inspect
import math
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from os import PathLike
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from neuronx.errors import UserError, brief


@dataclass(frozen=True)
class Range:
    """The numbers from `low` to `high`; without the ends where they are `open`."""

    low: float = -math.inf
    high: float = math.inf
    open: bool = False

    def __contains__(self, value: float) -> bool:
        return self.low < value < self.high if self.open else self.low <= value <= self.high

    def __str__(self) -> str:
        if self.high == math.inf:
            return f"above {self.low:.12g}" if self.open else f"of at least {self.low:.12g}"
        return (
            f"between {self.low:.12g} and {self.high:.12g}"
            if self.open
            else f"from {self.low:.12g} to {self.high:.12g}"
        )


@dataclass(frozen=True)
class OptionsOf:
    """On `**options`: they are those of another function or class."""

    call: Callable[..., Any]


Count = Annotated[int, Range(1)]
Natural = Annotated[int, Range(0)]
TwoOrMore = Annotated[int, Range(2)]
Seed = Annotated[int, Range(0, 2**32 - 1)]
Positive = Annotated[float, Range(0, open=True)]
NotNegative = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1)]
OpenShare = Annotated[float, Range(0, 1, open=True)]


def check(name: str, value: Any, wanted: Any) -> None:
    """Raises UserError if the value of the option `name` is none that the annotation allows."""
    if not fits(value, wanted):
        raise UserError(f"{name}={typed(value)} must be {said(wanted)}.")


def check_fields(instance: Any, where: str) -> None:
    """Raises UserError for the first field of a dataclass, named in `where`, that is not as annotated."""
    for field in fields(instance):
        check(f"{where}.{field.name}", getattr(instance, field.name), field.type)


def typed(value: Any) -> str:
    """A value as it is typed, in short."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return value if isinstance(value, str) and 0 < len(value) <= 60 else brief(value)


def fits(value: Any, wanted: Any) -> bool:
    """Whether an annotation allows a value; annotations that say nothing about plain values allow all."""
    origin, args = get_origin(wanted), get_args(wanted)
    if wanted in (Any, object, inspect.Parameter.empty) or isinstance(wanted, str | TypeVar):
        return True
    if origin is Annotated:
        return fits(value, args[0]) and all(value in limit for limit in args[1:] if isinstance(limit, Range))
    if origin in (Union, types.UnionType):
        return any(fits(value, one) for one in args)
    if origin is Literal:
        return any(value == choice and type(value) is type(choice) for choice in args)
    if wanted in (None, type(None)):
        return value is None
    if wanted in (int, float):
        # As whole numbers count those of other libraries too.
        number = hasattr(value, "__index__") or (wanted is float and hasattr(value, "__float__"))
        return number and not isinstance(value, bool | str) and math.isfinite(value)
    kind = origin or wanted
    if kind is Path:
        return isinstance(value, str | PathLike)
    if kind is Callable or not isinstance(kind, type):
        return callable(value)
    if issubclass(kind, Mapping):
        return isinstance(value, Mapping) and all(fits(one, args[1]) for one in value.values() if len(args) == 2)
    if issubclass(kind, Iterable) and args:
        if isinstance(value, str | Mapping) or not isinstance(value, Iterable):
            return False
        if kind is not tuple or args[-1] is Ellipsis:
            return not isinstance(value, list | tuple) or all(fits(one, args[0]) for one in value)
        values = list(value)
        return len(values) == len(args) and all(map(fits, values, args))
    try:
        return isinstance(value, kind)
    except TypeError:  # a protocol that cannot tell
        return True


def said(wanted: Any) -> str:
    """An annotation in words: "a whole number of at least 1 or null"."""
    kinds = list(dict.fromkeys(_kinds(wanted)))
    kinds.sort(key=lambda kind: kind == "null")
    return f"{', '.join(kinds[:-1])} or {kinds[-1]}" if len(kinds) > 1 else kinds[0]


def _kinds(wanted: Any) -> Iterator[str]:
    origin, args = get_origin(wanted), get_args(wanted)
    kind = origin or wanted
    if origin in (Union, types.UnionType):
        for one in args:
            yield from _kinds(one)
    elif origin is Annotated:
        limits = [str(limit) for limit in args[1:] if isinstance(limit, Range)]
        yield " ".join([said(args[0]), *limits])
    elif origin is Literal:
        yield from (typed(choice) for choice in args)
    elif kind in PLAIN:
        yield PLAIN[kind]
    elif kind is Callable or not isinstance(kind, type):
        yield "something to call"
    elif issubclass(kind, Mapping):
        yield "a mapping {key: value}"
    elif kind is tuple and args[-1:] != (Ellipsis,):
        yield f"a list of {len(args)} ({', '.join(map(said, args))})"
    elif issubclass(kind, Iterable) and args:
        yield f"a list (each {said(args[0])})"
    else:
        yield f"a {kind.__name__} object"


PLAIN = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    Path: "a path",
    None: "null",
    type(None): "null",
}


def parameters(call: Callable[..., Any]) -> tuple[dict[str, inspect.Parameter], bool]:
    """The named parameters of a function or class, those that its `**options` stand for too; and whether it takes any.

    A class or function without a signature, as some in C, takes any.
    """
    try:
        signature = inspect.signature(call)
    except (TypeError, ValueError):
        return {}, True
    named: dict[str, inspect.Parameter] = {}
    takes_any = False
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            more = [mark for mark in get_args(parameter.annotation)[1:] if isinstance(mark, OptionsOf)]
            takes_any |= not more
            for mark in more:
                others, any_other = parameters(mark.call)
                # The function itself gives those that are needed.
                named = {name: one.replace(default=None) for name, one in others.items()} | named
                takes_any |= any_other
        elif parameter.kind not in (parameter.VAR_POSITIONAL, parameter.POSITIONAL_ONLY):
            named[parameter.name] = parameter
    return named, takes_any
