"""How mixed parts are: the entropy of the kinds of things inside parts, and inside random parts of the same sizes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from neuronx.errors import UserError

ALL = "all"


@dataclass(frozen=True)
class Kinds:
    """Which kinds of things there are at one level of a hierarchy.

    Attributes:
        name: Of the level.
        table: (classes, S) float64 of 0 and 1, which kinds a class belongs to.
        exclusive: Whether each class belongs to exactly one.
        count: Number of superclasses among the kinds.
    """

    name: str
    table: Tensor
    exclusive: bool
    count: int


def kinds(class_names: Sequence[str], hierarchy: Mapping[str, Sequence[int]], level: float | str) -> Kinds:
    """The kinds of things at a level.

    Args:
        class_names: The C classes.
        hierarchy: Superclass -> its classes; they may overlap and hold each other.
        level: A share of the classes in (0, 1]: each class is of the largest superclass that has it and covers no more,
            of equals the first; a class without one is a kind of its own. Or `all`: of every superclass that has it.

    Raises:
        UserError: A level that is neither, or one at which there are no superclasses.
    """
    total = len(class_names)
    if level == ALL:
        table = torch.zeros(total, len(hierarchy), dtype=torch.float64)
        for column, members in enumerate(hierarchy.values()):
            table[list(members), column] = 1.0
        own = len(hierarchy)
        name = ALL
    else:
        if isinstance(level, str) or not 0 < level <= 1:
            raise UserError(f"levels: `{level}` is no level of superclasses; write `{ALL}` or a share of the classes.")
        kind = [-1] * total
        fitting = {superclass: m for superclass, m in hierarchy.items() if len(set(m)) <= level * total}
        ordered = sorted(fitting.values(), key=lambda members: -len(set(members)))
        for number, members in enumerate(ordered):
            for one in members:
                kind[one] = number if kind[one] < 0 else kind[one]
        own = len({number for number in kind if number >= 0})
        kind = [len(ordered) + one if number < 0 else number for one, number in enumerate(kind)]
        places = torch.tensor(kind).unique(return_inverse=True)[1]
        table = torch.nn.functional.one_hot(places).double()
        name = f"up to {level:.0%} of classes"
    if not own:
        raise UserError(f"levels: no superclass at level `{level}`; give superclasses with data.hierarchy=.")
    return Kinds(name, table, level != ALL, own)


def inside(labels: Tensor, shows: Tensor, exclusive: bool) -> Tensor:
    """Entropy (D, U) in bits of the kinds inside the parts of units, the mean over parts weighted by their sizes.

    Args:
        labels: (D, U, m) int64, the part of each of m points, -1 for points that do not count; D labellings.
        shows: (U, m, S) float64 of 0 and 1, the kinds of each point.
        exclusive: Each point has one kind, and the entropy is that of the kind; else the sum over kinds of the entropy
            of having it or not.
    """
    k = int(labels.max()) + 1 if labels.numel() else 1
    # One matrix product for all labellings of a unit.
    members = (labels[..., None] == torch.arange(k)).double()  # (D, U, m, k)
    D, U, m, _ = members.shape
    counts = members.permute(1, 0, 3, 2).reshape(U, D * k, m) @ shows
    counts = counts.view(U, D, k, shows.shape[2])
    sizes = members.sum(2).transpose(0, 1)  # (U, D, k)
    share = counts / sizes.clamp(min=1)[..., None]
    entropy = _plogp(share) if exclusive else _plogp(share) + _plogp(1 - share)
    return ((entropy.sum(3) * sizes).sum(2) / sizes.sum(2).clamp(min=1)).T


def reshuffled(labels: Tensor, draws: int, seed: int = 0) -> Tensor:
    """Labels (U, m) dealt anew among the points that count, `draws` times: (D, U, m); points with -1 keep it."""
    keys = torch.rand(draws, 1, labels.shape[1], generator=torch.Generator().manual_seed(seed))
    counted = labels >= 0
    order = keys.masked_fill(~counted, 2.0).argsort(2)
    dealt = labels.gather(1, (~counted).int().argsort(dim=1, stable=True))
    return torch.empty_like(order).scatter_(2, order, dealt.expand_as(order))


def _plogp(share: Tensor) -> Tensor:
    return -torch.xlogy(share, share) / math.log(2)
