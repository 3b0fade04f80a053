"""Beam search over formulas of concepts, for all units at once (Mu and Andreas, Compositional Explanations, 2020).

From how many cells a formula f shares with each concept c, all cells and those where a unit fires, follow the cells of
f OR c, f AND c and f AND NOT c: |f OR c| = |f| + |c| - |f AND c|, |f AND NOT c| = |f| - |f AND c|. Both tables are sums
over patterns: one for the formulas in any unit's beam, whatever the unit, and one over each unit's own patterns only.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from neuronx.methods.net_dissect.chains import AND_NOT, NOTHING, OPERATORS, in_order
from neuronx.methods.net_dissect.joint import with_concepts, with_formulas
from neuronx.methods.net_dissect.patterns import Patterns
from neuronx.methods.net_dissect.tally import EPSILON

NUMBERS_AT_ONCE = 2**20
"""Of formulas scored at a time: some ten arrays of 8 MiB."""


@dataclass(frozen=True)
class Beam:
    """The best formulas of K units, best first.

    Attributes:
        concepts: (K, B, L) int64, concepts in the order of the formula; -1 where it is shorter, or there is none.
        operators: (K, B, L) int64, what joins each concept to those before it (see `chains`).
        both: (K, B) int64, cells where the formula holds and the unit fires.
        area: (K, B) int64, cells where the formula holds.
        score: (K, B) float64, IoU times the penalty; 0 where there is no formula.
    """

    concepts: Tensor
    operators: Tensor
    both: Tensor
    area: Tensor
    score: Tensor

    def iou(self, fires: Tensor) -> Tensor:
        """(K, B) float64, without the penalty; `fires` (K,) are the cells where each unit fires."""
        return _iou(self.both, self.area, fires[:, None])


def search(
    found: Patterns, length: int = 3, beam: int = 10, penalty: float = 1.0, published_length: bool = False
) -> list[Beam]:
    """Searches for the formula of the largest IoU with each unit.

    No concept stands in a formula twice. A formula is left out when its last concept changes nothing, when it is no
    more than that concept, or when it only says in another order what stands before it, so that beams do not fill with
    one formula. Ties go to the formula that was there first, then by parent, operator (OR, AND, AND NOT) and concept.

    Args:
        found: What cells show, and where units fire.
        length: Largest number of concepts, n.
        beam: Formulas kept from one length to the next, B.
        penalty: Each concept after the first multiplies the score by it.
        published_length: Let NOT count as one concept more, as the published code does.

    Returns:
        The beams after each length, 1 to n.
    """
    cells = with_concepts(found)
    beams = [_first(found, cells, length, beam)]
    for _ in range(length - 1):
        beams.append(_longer(beams[-1], found, cells, penalty, published_length))
    return beams


def _first(found: Patterns, cells: Tensor, length: int, beam: int) -> Beam:
    score = _iou(cells, found.labelled, found.fires[:, None])
    order = score.sort(dim=1, descending=True, stable=True).indices[:, :beam]
    # With fewer concepts than places the beam is not full yet.
    values = order, cells.gather(1, order), found.labelled[order], score.gather(1, order)
    order, both, area, score = (pad(value, (0, beam - value.shape[1])) for value in values)
    concepts = torch.full((*order.shape, length), NOTHING, device=order.device)
    concepts[..., 0] = order.where(score > 0, NOTHING)
    return Beam(concepts, torch.full_like(concepts, NOTHING), both, area, score)


def _longer(old: Beam, found: Patterns, cells: Tensor, penalty: float, published_length: bool) -> Beam:
    """The beam of formulas with one concept more, and of those that were there."""
    units, width, length = old.concepts.shape
    chains = torch.cat([old.concepts, old.operators], 2).flatten(0, 1)
    distinct, which = chains.unique(dim=0, return_inverse=True)
    shared, own = with_formulas(found, distinct.split(length, 1), (old.concepts, old.operators))
    parts, step = [], max(1, NUMBERS_AT_ONCE // (len(OPERATORS) * width * shared.shape[1]))
    for some in torch.arange(units, device=chains.device).split(step):
        mine = Beam(*(value[some] for value in vars(old).values()))
        joint = shared[which.view(units, width)[some]]
        made = _joined(mine, joint, own[some], cells[some], found, some, penalty, published_length)
        parts.append(_kept(mine, made))
    return Beam(*(torch.cat([getattr(part, name) for part in parts]) for name in vars(old)))


def _joined(
    old: Beam,
    joint: Tensor,
    own: Tensor,
    cells: Tensor,
    found: Patterns,
    units: Tensor,
    penalty: float,
    published_length: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Cells of both, area and score (k, B, 3, C) of formulas in the beam joined to every concept by every operator.

    `joint` and `own` (k, B, C) are the cells where the formula and the concept hold: all, and where the unit fires.
    """
    f, g = old.area[..., None], old.both[..., None]
    both = torch.stack([g + cells[:, None] - own, own, g - own], 2)
    area = torch.stack([f + found.labelled - joint, joint, f - joint], 2)
    fine = (area != f[..., None]) & (both > 0) & (old.score[..., None, None] > 0)
    fine[:, :, :AND_NOT] &= area[:, :, :AND_NOT] != found.labelled
    there = torch.zeros(*old.score.shape, len(found.labelled) + 1, dtype=torch.bool, device=f.device)
    there.scatter_(2, old.concepts.where(old.concepts >= 0, len(found.labelled)), True)
    fine &= ~there[:, :, None, :-1]
    extra = torch.ones(len(OPERATORS), device=f.device)
    extra[AND_NOT] += published_length
    longer = _length(old, published_length)[..., None] + extra
    score = _iou(both, area, found.fires[units, None, None, None]) * penalty ** (longer - 1).double()[..., None]
    return both, area, score.where(fine, 0.0)


def _kept(old: Beam, made: tuple[Tensor, Tensor, Tensor]) -> Beam:
    """The best of the old beam and of what was made of it, without repetitions."""
    (_, width, length), total = old.concepts.shape, made[0].shape[3]
    both, area, score = (
        torch.cat([a, b.flatten(1)], 1) for a, b in zip((old.both, old.area, old.score), made, strict=True)
    )
    # A formula of n concepts comes from at most n others, and may be in the old beam.
    place = score.sort(dim=1, descending=True, stable=True).indices[:, : width * (length + 1)]
    new, at = place >= width, (place - width).clamp(min=0)
    parent = torch.where(new, at.div(len(OPERATORS) * total, rounding_mode="floor"), place)[..., None]
    chains = [value.gather(1, parent.expand(-1, -1, length)) for value in (old.concepts, old.operators)]
    end = (chains[0] >= 0).sum(2, keepdim=True).clamp(max=length - 1)
    for chain, value in zip(chains, (at % total, at.div(total, rounding_mode="floor") % len(OPERATORS)), strict=True):
        chain.scatter_(2, end, torch.where(new[..., None], value[..., None], chain.gather(2, end)))
    key = in_order(chains[0], chains[1], total)
    again = (key[:, :, None] == key[:, None]).all(3).tril(-1).any(2)
    score = score.gather(1, place).masked_fill(again, 0.0)
    order = score.sort(dim=1, descending=True, stable=True).indices[:, :width]
    score = score.gather(1, order)
    concepts, operators = (
        chain.gather(1, order[..., None].expand(-1, -1, length)).masked_fill(score[..., None] == 0, NOTHING)
        for chain in chains
    )
    both, area = (value.gather(1, place).gather(1, order) for value in (both, area))
    return Beam(concepts, operators, both, area, score)


def _length(old: Beam, published: bool) -> Tensor:
    """(K, B) number of concepts, NOTs counted too where published."""
    return (old.concepts >= 0).sum(2) + published * (old.operators == AND_NOT).sum(2)


def _iou(both: Tensor, area: Tensor, fires: Tensor) -> Tensor:
    return both.double() / ((fires + area - both).double() + EPSILON)
