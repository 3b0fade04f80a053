"""Explanations on their way to a score: whose unit is it, can it be scored, and what stands beside it as a floor."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from neuronx.errors import UserError
from neuronx.scoring.floors import RANDOM, SHUFFLED, randomised, shuffled
from neuronx.types import Activations, Explanation, Unit


@dataclass(frozen=True)
class Claim:
    """One explanation under test.

    Attributes:
        method: Whose it is, or the floor or ceiling that it belongs to.
        explanation: Of one unit.
        column: Of the unit in its layer's activations.
        status: ok, inactive or unjudged.
    """

    method: str
    explanation: Explanation
    column: int
    status: str


def alive(recorded: Activations, rows: Tensor) -> Tensor:
    """Which units (K,) change at all on some images.

    Raises:
        UserError: An activation that is not finite.
    """
    low = torch.full((len(recorded.units),), torch.inf)
    high = -low
    for part in rows.split(512):
        values = recorded.values[part]
        low, high = torch.minimum(low, values.amin(0)), torch.maximum(high, values.amax(0))
    broken = (~(low.isfinite() & high.isfinite())).nonzero().flatten().tolist()
    if broken:
        others = f", and so have {len(broken) - 1} others" if len(broken) > 1 else ""
        raise UserError(
            f"Unit {recorded.units[broken[0]]} has activations that are not finite (NaN or infinite){others}: check "
            "the weights of the network and its preprocessing."
        )
    return low < high


def claims(
    explained: Mapping[str, Sequence[Explanation]], recorded: Activations, on_fit: Tensor, on_test: Tensor
) -> list[Claim]:
    """The explanations of one layer, method by method. A part of a unit is scored against the whole unit.

    Args:
        explained: Method -> its explanations, of this and other layers.
        recorded: The layer.
        on_fit: (K,) bool, which units change on train and val.
        on_test: (K,) bool, the same on test.

    Raises:
        UserError: A unit that the layer does not have, or two explanations of one unit.
    """
    columns = {unit: column for column, unit in enumerate(recorded.units)}
    made: list[Claim] = []
    for method, found in explained.items():
        seen: set[Unit] = set()
        for one in found:
            if one.unit.layer != recorded.layer:
                continue
            column = columns.get(one.unit, columns.get(replace(one.unit, part=None)))
            if column is None:
                raise UserError(
                    f"{method} explains unit {one.unit}, but the layer has units 0 to {len(recorded.units) - 1}."
                )
            if one.unit in seen:
                raise UserError(f"{method} explains unit {one.unit} twice; only one explanation a unit can be scored.")
            seen.add(one.unit)
            inactive = not on_test[column] or not (one.terms or on_fit[column])
            made.append(Claim(method, one, column, "inactive" if inactive else "ok"))
    return made


def drawn(made: Sequence[Claim], pool: Sequence[str], seed: int) -> list[Claim]:
    """The floor `random-<method>`: beside each claim one with random concepts."""
    return [
        replace(one, method=RANDOM + one.method, explanation=randomised(one.explanation, pool, f"{seed}/{one.method}"))
        for one in made
    ]


def judged_by(known: Collection[str], made: Sequence[Claim]) -> list[Claim]:
    """The claims, those unjudged that have a concept which the judge does not know."""
    return [
        replace(one, status="unjudged")
        if one.status == "ok" and any(concept not in known for concept, _ in one.explanation.terms)
        else one
        for one in made
    ]


def permuted(made: Sequence[Claim], seed: int) -> list[Claim]:
    """The floor `shuffled-<method>` of one layer: explanations that can be scored, permuted among their units.

    A method with only one such explanation has no such floor.
    """
    floor: list[Claim] = []
    for method in dict.fromkeys(one.method for one in made):
        mine = [one for one in made if one.method == method]
        sound = [one.explanation for one in mine if one.status == "ok"]
        if len(sound) > 1:
            layer = sound[0].unit.layer
            given = iter(shuffled(sound, f"{seed}/{method}/{layer}"))
            others = [next(given) if one.status == "ok" else one.explanation for one in mine]
            floor += [
                replace(one, method=SHUFFLED + method, explanation=other)
                for one, other in zip(mine, others, strict=True)
            ]
    return floor
