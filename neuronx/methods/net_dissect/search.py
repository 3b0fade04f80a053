"""Beam search over formulas of concepts, for all units at once (Mu and Andreas, Compositional Explanations, 2020).

From how many cells a formula f shares with each concept c, all cells and those where a unit fires, follow the cells of
f OR c, f AND c and f AND NOT c: |f OR c| = |f| + |c| - |f AND c|, |f AND NOT c| = |f| - |f AND c|. Both tables are sums
over patterns: one for the formulas in any unit's beam, whatever the unit, and one over each unit's own patterns only.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import pad

from neuronx.concepts.formula import Formula, joined
from neuronx.data.segmentation import Regions
from neuronx.methods.net_dissect.tally import EPSILON
from neuronx.progress import progress
from neuronx.targets.latents import mix

if TYPE_CHECKING:
    from lightning import Trainer

MERGE_AT = 2**21
"""Pairs of unit and region that wait before they are sorted in."""


@dataclass(frozen=True)
class Patterns:
    """The patterns of some images and C concepts, and where K units fire.

    Attributes:
        names: (S,) int64, a number for each pattern's set of concepts; sums of scrambled ones, so that two of three
            million patterns share one with a probability of 1e-6.
        sizes: (S,) int64, cells of each pattern.
        lengths: (S,) int64, how many concepts each shows, at least 1.
        concepts: (sum of lengths,) int64, those of the first pattern, of the second, ...
        pattern: (E,) int64, ascending: the pattern of each pair of a pattern and a unit that fires on it,
        unit: (E,) int64, its unit,
        counts: (E,) int64, and on how many cells.
        fires: (K,) int64, cells on which each unit fires, what they show nothing included.
        labelled: (C,) int64, cells of each concept.
    """

    names: Tensor
    sizes: Tensor
    lengths: Tensor
    concepts: Tensor
    pattern: Tensor
    unit: Tensor
    counts: Tensor
    fires: Tensor
    labelled: Tensor


def patterns(counts: Tensor, regions: Regions) -> Patterns:
    """Those of one batch: counts (R, K) of its regions."""
    region, concept = regions.shows.nonzero(as_tuple=True)
    names = torch.zeros_like(regions.picture).index_add_(0, region, mix(concept))
    sizes, lengths = regions.sizes, regions.shows.sum(1)
    kept = lengths > 0
    pattern, unit = counts[kept].nonzero(as_tuple=True)
    labelled = lengths.new_zeros(regions.shows.shape[1]).index_add_(0, concept, sizes[region])
    fires = counts[kept][pattern, unit], counts.sum(0)
    return merged([Patterns(names[kept], sizes[kept], lengths[kept], concept, pattern, unit, *fires, labelled)])


def merged(parts: Sequence[Patterns]) -> Patterns:
    """The patterns of all parts together, each once."""
    names, place = torch.cat([one.names for one in parts]).unique(return_inverse=True)
    sizes = torch.zeros_like(names).index_add_(0, place, torch.cat([one.sizes for one in parts]))
    # Any part's concepts of a pattern will do: the last one's.
    lengths = torch.cat([one.lengths for one in parts])
    starts = lengths.cumsum(0) - lengths
    last = torch.zeros_like(names).scatter_reduce_(0, place, torch.arange(len(place), device=place.device), "amax")
    concepts = torch.cat([one.concepts for one in parts])[spread(starts[last], lengths[last])]

    units = len(parts[0].fires)
    before = torch.tensor([0, *(len(one.names) for one in parts)]).cumsum(0).tolist()
    pairs = [place[one.pattern + first] * units + one.unit for one, first in zip(parts, before, strict=False)]
    pair, where = torch.cat(pairs).unique(return_inverse=True)
    counts = torch.zeros_like(pair).index_add_(0, where, torch.cat([one.counts for one in parts]))
    pattern = pair.div(units, rounding_mode="floor")
    return Patterns(
        names=names,
        sizes=sizes,
        lengths=lengths[last],
        concepts=concepts,
        pattern=pattern,
        unit=pair - pattern * units,
        counts=counts,
        fires=torch.stack([one.fires for one in parts]).sum(0),
        labelled=torch.stack([one.labelled for one in parts]).sum(0),
    )


def spread(starts: Tensor, lengths: Tensor) -> Tensor:
    """The positions start, start + 1, ... of stretches, one stretch after the other: (sum of lengths,) int64."""
    shift = starts - (lengths.cumsum(0) - lengths)
    return torch.arange(int(lengths.sum()), device=starts.device) + shift.repeat_interleave(lengths)


class Gathering:
    """Patterns in the making: counts go in batch by batch, every image once."""

    def __init__(self, units: int, concepts: int) -> None:
        """Starts with no images, for K units and C concepts."""
        none = torch.zeros(0, dtype=torch.int64)
        totals = {"fires": none.new_zeros(units), "labelled": none.new_zeros(concepts)}
        self.parts = [Patterns(**{one.name: none for one in fields(Patterns)} | totals)]

    def add(self, counts: Tensor, regions: Regions) -> None:
        """Adds the counts (R, K) of some pictures and their regions, all on the CPU."""
        self.parts.append(patterns(counts, regions))
        # Sorting in costs as much as what is there, so it waits until as much has come.
        if sum(len(one.pattern) for one in self.parts[1:]) > max(MERGE_AT, len(self.parts[0].pattern)):
            self.parts = [merged(self.parts)]

    def result(self, runner: "Trainer | None" = None) -> Patterns:
        """The patterns of all images; with those of the other processes, where a runner is given."""
        own = merged(self.parts)
        if runner is None or runner.world_size == 1:
            return own
        columns = {one.name: _of_all(getattr(own, one.name), runner) for one in fields(Patterns)}
        ranks = range(runner.world_size)
        return merged([Patterns(**{name: values[rank] for name, values in columns.items()}) for rank in ranks])


def _of_all(values: Tensor, runner: "Trainer") -> list[Tensor]:
    """A tensor (n,) of each process, whose lengths differ."""
    strategy, device = runner.strategy, runner.strategy.root_device
    lengths = strategy.all_gather(torch.tensor([len(values)], device=device)).flatten().tolist()
    padded = torch.zeros(max(lengths), dtype=values.dtype, device=device)
    padded[: len(values)] = values.to(device)
    everything = strategy.all_gather(padded).view(len(lengths), -1)
    return [row[:length].cpu() for row, length in zip(everything, lengths, strict=True)]


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
    text = joined(labels[concepts[0]])
    for concept, operator in zip(concepts[1:], operators[1:], strict=True):
        if operator == NOTHING:
            break
        right = f"(NOT {joined(labels[concept])})" if operator == AND_NOT else joined(labels[concept])
        text = f"({text} {'OR' if operator == OR else 'AND'} {right})"
    return text


PATTERNS_AT_ONCE = 4096
MEMORY = 2**22
"""Of working memory: 32 MiB each."""


def with_concepts(found: Patterns) -> Tensor:
    """Cells (K, C) int64 where each unit fires and each concept is."""
    total = len(found.labelled)
    cells = found.fires.new_zeros(len(found.fires) * total)
    starts = found.lengths.cumsum(0) - found.lengths
    for some in torch.arange(len(found.pattern), device=cells.device).split(MEMORY // 8):
        pair, concept = _spelt_out(found, starts, found.pattern[some])
        cells.index_add_(0, found.unit[some][pair] * total + concept, found.counts[some][pair])
    return cells.view(-1, total)


def with_formulas(
    found: Patterns, distinct: tuple[Tensor, Tensor], beams: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """Cells where formulas hold and each concept is.

    Args:
        found: What cells show, and where units fire.
        distinct: Concepts and operators (G, L) of all formulas.
        beams: Concepts and operators (K, B, L) of each unit's formulas.

    Returns:
        (G, C) int64, all such cells, and (K, B, C) int64, those where the unit fires too.
    """
    total, (units, width, _) = len(found.labelled), beams[0].shape
    shared = found.sizes.new_zeros(len(distinct[0]), total)
    own = found.sizes.new_zeros(units * total, width)
    starts = found.lengths.cumsum(0) - found.lengths
    for begin in range(0, len(found.sizes), PATTERNS_AT_ONCE):
        block = torch.arange(begin, min(begin + PATTERNS_AT_ONCE, len(found.sizes)), device=starts.device)
        of, concept = _spelt_out(found, starts, block)
        shows = torch.zeros(len(block), total, dtype=torch.bool, device=of.device)
        shows[of, concept] = True
        _add_shared(shared, shows, found.sizes[block], of, concept, *distinct)
        first, last = torch.searchsorted(found.pattern, torch.stack([block[0], block[-1] + 1])).tolist()
        step = max(1, MEMORY // (8 * width))
        for some in torch.arange(first, last, device=of.device).split(step):
            unit, pattern = found.unit[some], found.pattern[some]
            place = (pattern - begin)[:, None]
            where = holds(partial(_at, shows, place), beams[0][unit], beams[1][unit])
            weights = where * found.counts[some, None]
            pair, concept = _spelt_out(found, starts, pattern)
            own.index_add_(0, unit[pair] * total + concept, weights[pair])
    return shared, own.view(units, total, width).transpose(1, 2)


def _add_shared(
    shared: Tensor, shows: Tensor, sizes: Tensor, of: Tensor, concept: Tensor, concepts: Tensor, operators: Tensor
) -> None:
    """Adds one block's cells to (G, C): of patterns (S, C) with sizes (S,), which show `concept` (n,) at `of` (n,)."""
    for some in torch.arange(len(shared), device=of.device).split(max(1, MEMORY // len(of))):
        weights = holds(lambda c: shows[:, c], concepts[some], operators[some]) * sizes[:, None]
        shared[some] += shared.new_zeros(shared.shape[1], len(some)).index_add_(0, concept, weights[of]).T


def _at(shows: Tensor, patterns: Tensor, concepts: Tensor) -> Tensor:
    return shows[patterns, concepts]


def _spelt_out(found: Patterns, starts: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
    """What some patterns (n,) show: the place among them, and the concept, one pair for each concept of each."""
    lengths = found.lengths[which]
    place = torch.arange(len(which), device=which.device).repeat_interleave(lengths)
    return place, found.concepts[spread(starts[which], lengths)]


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
    for some in progress(torch.arange(units, device=chains.device).split(step), "searching formulas"):
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
