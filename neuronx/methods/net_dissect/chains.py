"""Formulas as the search builds them: a concept, then one operator and concept after the other, from left to right."""

from collections.abc import Callable

import torch
from torch import Tensor

from neuronx.concepts.formula import Formula

OPERATORS = ("OR", "AND", "AND NOT")
OR, AND, AND_NOT = range(3)
NOTHING = -1
"""The concept and operator of a place that is not used; the first place has a concept only."""


def holds(shows: Callable[[Tensor], Tensor], concepts: Tensor, operators: Tensor) -> Tensor:
    """Where formulas hold.

    Args:
        shows: From numbers of concepts (...) to where they are shown, bool, of a shape that (...) broadcasts to.
        concepts: (..., L) int64.
        operators: (..., L) int64.
    """
    found = shows(concepts[..., 0].clamp(min=0)) & (concepts[..., 0] >= 0)
    for place in range(1, concepts.shape[-1]):
        operator, right = operators[..., place], shows(concepts[..., place].clamp(min=0))
        joined = torch.where(operator == OR, found | right, found & (right ^ (operator == AND_NOT)))
        found = torch.where(operator >= 0, joined, found)
    return found


def in_order(concepts: Tensor, operators: Tensor, total: int) -> Tensor:
    """The same numbers (..., L + 1) for formulas that differ only in the order of what OR, or AND, joins in a row.

    Args:
        concepts: (..., L) int64.
        operators: (..., L) int64.
        total: Number of concepts.
    """
    is_or = (operators == OR).long()
    if concepts.shape[-1] > 1:
        is_or[..., 0] = is_or[..., 1]
    run = (is_or.diff(dim=-1, prepend=is_or[..., :1]) != 0).long().cumsum(-1)
    literal = (run * total + concepts) * 2 + (operators == AND_NOT)
    unused = 2 * total * concepts.shape[-1]
    return torch.cat([literal.where(concepts >= 0, unused).sort(-1).values, is_or[..., :1]], -1)


def formula(concepts: list[int], operators: list[int], names: tuple[str, ...]) -> Formula:
    """One formula (L,) in words."""
    found = Formula(atom=names[concepts[0]])
    for concept, operator in zip(concepts[1:], operators[1:], strict=True):
        if operator == NOTHING:
            break
        right = Formula(atom=names[concept])
        right = Formula("NOT", (right,)) if operator == AND_NOT else right
        joint = "OR" if operator == OR else "AND"
        found = Formula(joint, (*(found.parts if found.operator == joint else (found,)), right))
    return found


def as_published(concepts: list[int], operators: list[int], labels: tuple[str, ...]) -> str:
    """One formula (L,) with the brackets of the published tables: `((water OR river) AND (NOT blue-c))`."""
    text = labels[concepts[0]]
    for concept, operator in zip(concepts[1:], operators[1:], strict=True):
        if operator == NOTHING:
            break
        right = f"(NOT {labels[concept]})" if operator == AND_NOT else labels[concept]
        text = f"({text} {'OR' if operator == OR else 'AND'} {right})"
    return text
