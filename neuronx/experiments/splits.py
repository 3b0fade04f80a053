"""Which units a captioner is trained on and which it is tested on, to see how far it carries."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from neuronx.errors import UserError, unknown
from neuronx.milannotations.published import BASE, GROUPS

if TYPE_CHECKING:
    from neuronx.milannotations.dataset import Milannotations

WITHIN, LEAVE_ONE_OUT = "within network", "leave one network out"
ACROSS: dict[str, tuple[tuple[str, str], ...]] = {
    "across architectures": (("alexnet", "resnet152"), ("resnet152", "alexnet"), ("base", "dino_vits8/imagenet")),
    "across datasets": (("imagenet", "places365"), ("places365", "imagenet")),
    "across tasks": (("cls", "gen"), ("gen", "cls")),
}
"""Experiment -> the groups of models that it trains and tests on, which have no model in common."""
EXPERIMENTS = (WITHIN, LEAVE_ONE_OUT, *ACROSS)


@dataclass(frozen=True)
class Split:
    """Units to train on and to test on.

    Attributes:
        experiment: One of `EXPERIMENTS`.
        name: What is trained and tested on, such as `alexnet → resnet152`.
        training: Positions of units, ascending.
        testing: Positions of other units, ascending.
    """

    experiment: str
    name: str
    training: tuple[int, ...]
    testing: tuple[int, ...]


def splits(
    units: "Milannotations",
    experiments: Sequence[str] = EXPERIMENTS,
    *,
    groups: Mapping[str, Sequence[str]] = GROUPS,
    base: Sequence[str] = BASE,
    hold_out: float = 0.1,
    seed: int = 0,
) -> list[Split]:
    """The splits that the models of some units allow.

    Args:
        units: Those that people described; units without a description are neither trained nor tested on.
        experiments: Some of `EXPERIMENTS`.
        groups: Group -> names of its models; a name that is no group is a model.
        base: The models that are tested one by one.
        hold_out: Share of a model's units that is tested on when the rest of it is trained on; at least one unit.
        seed: Which of them these are.

    Raises:
        UserError: An unknown experiment, a share outside (0, 1), or units that allow none of the splits.
    """
    if not 0 < hold_out < 1:
        raise UserError(f"hold_out={hold_out:g} is the share of units to test on, between 0 and 1.")
    for name in experiments:
        if name not in EXPERIMENTS:
            raise unknown("experiment", name, EXPERIMENTS)
    of_model: dict[str, list[int]] = {}
    for index, said in enumerate(units.annotations):
        if said:
            of_model.setdefault(units.model(index), []).append(index)
    models = [model for model in base if model in of_model]

    def positions(names: Sequence[str]) -> tuple[int, ...]:
        return tuple(sorted(index for name in names for index in of_model.get(name, ())))

    found = []
    for experiment in experiments:
        if experiment == WITHIN:
            for model in models:
                here = torch.tensor(of_model[model])
                order = here[torch.randperm(len(here), generator=torch.Generator().manual_seed(seed))]
                cut = max(1, round(hold_out * len(here)))
                test, train = (tuple(part.sort().values.tolist()) for part in (order[:cut], order[cut:]))
                found.append(Split(experiment, model, train, test))
        elif experiment == LEAVE_ONE_OUT:
            for model in models:
                others = positions([other for other in models if other != model])
                found.append(Split(experiment, f"not {model} → {model}", others, positions([model])))
        else:
            for source, goal in ACROSS[experiment]:
                train, test = (positions(groups.get(name, (name,))) for name in (source, goal))
                found.append(Split(experiment, f"{source} → {goal}", train, test))
    possible = [split for split in found if split.training and split.testing]
    if not possible:
        raise UserError(f"Units of {', '.join(units.models)} allow none of: {', '.join(experiments)}.")
    return possible
