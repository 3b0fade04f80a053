"""Concepts made of concepts: `water OR river AND NOT blue`, parsed, and scored by min, max and 1 - c.

Only the words AND, OR and NOT in upper case are operators, NOT before AND before OR; brackets group. Whatever stands
between operators is an atom, and a text without operators is one atom, brackets and all: `bread and butter (fresh)`.
A name that would be read as anything else stands in quotes, inner quotes doubled: `red AND NOT "DO NOT ENTER"`.
"""

import re
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import reduce
from itertools import accumulate

import torch
from torch import Tensor

from neuronx.errors import UserError

_OPERATORS = ("AND", "OR", "NOT")
_TOKEN = re.compile(r'"(?:[^"]|"")*"(?![^\s()])|[()]|[^\s()]+')
"""A text in quotes, a bracket, or a word; quotes within a word are letters like others."""
_QUOTED = re.compile(r'"(?:[^"]|"")*"')


@dataclass(frozen=True)
class Formula:
    """An atom, or an operator over formulas.

    Attributes:
        operator: AND, OR (two or more parts), NOT (one part), or "" for an atom.
        parts: What the operator joins.
        atom: The atom's text.
    """

    operator: str = ""
    parts: tuple["Formula", ...] = ()
    atom: str = ""

    @property
    def atoms(self) -> tuple[str, ...]:
        """The atoms from left to right, repetitions included."""
        return (self.atom,) if not self.operator else tuple(atom for part in self.parts for atom in part.atoms)

    def affirmed(self, negated: bool = False) -> tuple[str, ...]:
        """The atoms from left to right that stand under no NOT, or under two; with `negated` the others."""
        if not self.operator:
            return () if negated else (self.atom,)
        return tuple(a for part in self.parts for a in part.affirmed(negated != (self.operator == "NOT")))

    def __str__(self) -> str:
        return self._text(quoted)

    def _text(self, spell: Callable[[str], str]) -> str:
        if not self.operator:
            return spell(self.atom)
        texts = [part._text(joined) for part in self.parts]
        texts = [
            f"({text})" if part.operator in ("AND", "OR") else text
            for part, text in zip(self.parts, texts, strict=True)
        ]
        return f"NOT {texts[0]}" if self.operator == "NOT" else f" {self.operator} ".join(texts)


def quoted(name: str) -> str:
    """A name as a formula of its own: in quotes where `parse` would read anything but the name."""
    operators = any(word in _OPERATORS for word in _TOKEN.findall(name))
    plain = name == name.strip() != "" and not operators and not _QUOTED.fullmatch(name)
    return name if plain else _in_quotes(name)


def joined(name: str) -> str:
    """A name as a part of a formula: in quotes where brackets or quotes of its own would be taken for the formula's."""
    words = _TOKEN.findall(name)
    depths = [*accumulate({"(": 1, ")": -1}.get(word, 0) for word in words)]
    own = any(word.startswith('"') for word in words) or words[:1] == ["("] or min(depths, default=0) < 0
    return _in_quotes(name) if own or (depths and depths[-1]) else quoted(name)


def _in_quotes(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def parse(text: str, names: Collection[str] = ()) -> Formula:
    """Reads a formula or a plain phrase.

    Args:
        text: The formula.
        names: Names as `spoken` gives them. A text that is one of them is an atom where it is no formula of others.

    Raises:
        UserError: A text with operators that is not a formula.
    """
    tokens = [(match[0], match.start(), match.end()) for match in _TOKEN.finditer(text)]
    if not any(word in _OPERATORS for word, _, _ in tokens):
        alone = len(tokens) == 1 and tokens[0][0] == text.strip()
        return Formula(atom=_unquoted(text.strip()) if alone else text.strip())
    if spoken(text) in names:
        with suppress(UserError):
            formula = parse(text)
            if all(spoken(atom) in names for atom in formula.atoms):
                return formula
        return Formula(atom=text.strip())
    formula, end = _sum(text, tokens, 0)
    if end < len(tokens):
        raise _broken(text, f"`{tokens[end][0]}` was not expected after `{text[: tokens[end][1]].strip()}`")
    return formula


def spoken(name: str) -> str:
    """How a concept's name is compared: lower case, "_" as space, one space between words."""
    return " ".join(name.lower().replace("_", " ").split())


def _unquoted(word: str) -> str:
    """What stands in quotes; any other word as it is."""
    return word[1:-1].replace('""', '"') if _QUOTED.fullmatch(word) else word


def evaluate(formula: Formula, score: Callable[[str], Tensor]) -> Tensor:
    """Scores a formula: AND is the least of its parts, OR the greatest, NOT c is 1 - c.

    Args:
        formula: What to score.
        score: From an atom to its scores, in [0, 1]; all of one shape, which is the result's.
    """
    if not formula.operator:
        return score(formula.atom)
    parts = [evaluate(part, score) for part in formula.parts]
    if formula.operator == "NOT":
        return 1 - parts[0]
    return reduce(torch.minimum if formula.operator == "AND" else torch.maximum, parts)


class Formulas:
    """Many formulas, scored at once: those of one form (`a OR b AND NOT c`) in one sweep over all their atoms.

    Attributes:
        texts: The distinct formulas, first occurrence kept.
        atoms: The distinct atoms in all of them, sorted.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        """Parses the texts. Raises UserError as `parse`."""
        self.texts = tuple(dict.fromkeys(texts))
        formulas = [parse(text) for text in self.texts]
        self.atoms = tuple(sorted({atom for formula in formulas for atom in formula.atoms}))
        index = {atom: place for place, atom in enumerate(self.atoms)}
        forms: dict[Formula, tuple[list[int], list[list[int]]]] = {}
        for place, formula in enumerate(formulas):
            places, arguments = forms.setdefault(_form(formula, 0)[0], ([], []))
            places.append(place)
            arguments.append([index[atom] for atom in formula.atoms])
        self._forms = [
            (form, torch.tensor(places), torch.tensor(arguments)) for form, (places, arguments) in forms.items()
        ]

    def __len__(self) -> int:
        return len(self.texts)

    def evaluate(self, scores: Tensor) -> Tensor:
        """From scores of the atoms (A, B) to scores of the formulas (F, B), for any number B of images."""
        result = scores.new_empty(len(self), scores.shape[1])
        for form, places, arguments in self._forms:
            result[places] = evaluate(form, lambda place, at=arguments: scores[at[:, int(place)]])  # type: ignore[misc]
        return result

    def places(self, known: Tensor) -> dict[str, int]:
        """Where the formulas are that have known atoms only: text -> place; `known` (A,) bool is about the atoms."""
        sure = torch.ones(len(self), dtype=torch.bool)
        for _, places, arguments in self._forms:
            sure[places] = known[arguments].all(1)
        return {text: place for place, (text, ok) in enumerate(zip(self.texts, sure.tolist(), strict=True)) if ok}


def _form(formula: Formula, first: int) -> tuple[Formula, int]:
    """The formula with its atoms numbered from `first`, and the next number: what formulas of one form share."""
    if not formula.operator:
        return Formula(atom=str(first)), first + 1
    parts = []
    for part in formula.parts:
        numbered, first = _form(part, first)
        parts.append(numbered)
    return replace(formula, parts=tuple(parts)), first


Token = tuple[str, int, int]


def _sum(text: str, tokens: list[Token], at: int) -> tuple[Formula, int]:
    return _joined("OR", _product, text, tokens, at)


def _product(text: str, tokens: list[Token], at: int) -> tuple[Formula, int]:
    return _joined("AND", _factor, text, tokens, at)


def _joined(
    operator: str, operand: Callable[..., tuple[Formula, int]], text: str, tokens: list[Token], at: int
) -> tuple[Formula, int]:
    part, at = operand(text, tokens, at)
    parts = [part]
    while at < len(tokens) and tokens[at][0] == operator:
        part, at = operand(text, tokens, at + 1)
        parts.append(part)
    return (parts[0] if len(parts) == 1 else Formula(operator, tuple(parts))), at


def _factor(text: str, tokens: list[Token], at: int) -> tuple[Formula, int]:
    """NOT and a factor, a formula in brackets, or an atom; brackets that follow a word belong to the atom."""
    word = tokens[at][0] if at < len(tokens) else ""
    if word == "NOT":
        part, at = _factor(text, tokens, at + 1)
        return Formula("NOT", (part,)), at
    if word == "(":
        inner, at = _sum(text, tokens, at + 1)
        if at == len(tokens) or tokens[at][0] != ")":
            raise _broken(text, "a bracket is not closed")
        return inner, at + 1
    start, depth = at, 0
    while at < len(tokens) and tokens[at][0] not in _OPERATORS:
        depth += {"(": 1, ")": -1}.get(tokens[at][0], 0)
        if depth < 0:
            break
        at += 1
    if at == start:
        raise _broken(text, f"a concept is missing before `{word}`" if word else "a concept is missing at the end")
    if depth > 0:
        raise _broken(text, "a bracket is not closed")
    alone = at == start + 1
    return Formula(atom=_unquoted(tokens[start][0]) if alone else text[tokens[start][1] : tokens[at - 1][2]]), at


def _broken(text: str, why: str) -> UserError:
    return UserError(
        f"`{text}` is not a formula: {why}. AND, OR and NOT in upper case are operators: write other words small, "
        'or a name that has them in quotes, as in "DO NOT ENTER".'
    )
