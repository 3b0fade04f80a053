"""Cells that formulas share with every concept, summed over patterns, a block of them at a time."""

from functools import partial

import torch
from torch import Tensor

from neuronx.methods.net_dissect.chains import holds
from neuronx.methods.net_dissect.patterns import Patterns, spread

PATTERNS_AT_ONCE = 4096
NUMBERS_AT_ONCE = 2**22
"""Of working memory: 32 MiB each."""


def with_concepts(found: Patterns) -> Tensor:
    """Cells (K, C) int64 where each unit fires and each concept is."""
    total = len(found.labelled)
    cells = found.fires.new_zeros(len(found.fires) * total)
    starts = found.lengths.cumsum(0) - found.lengths
    for some in torch.arange(len(found.pattern), device=cells.device).split(NUMBERS_AT_ONCE // 8):
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
        step = max(1, NUMBERS_AT_ONCE // (8 * width))
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
    for some in torch.arange(len(shared), device=of.device).split(max(1, NUMBERS_AT_ONCE // len(of))):
        weights = holds(lambda c: shows[:, c], concepts[some], operators[some]) * sizes[:, None]
        shared[some] += shared.new_zeros(shared.shape[1], len(some)).index_add_(0, concept, weights[of]).T


def _at(shows: Tensor, patterns: Tensor, concepts: Tensor) -> Tensor:
    return shows[patterns, concepts]


def _spelt_out(found: Patterns, starts: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
    """What some patterns (n,) show: the place among them, and the concept, one pair for each concept of each."""
    lengths = found.lengths[which]
    place = torch.arange(len(which), device=which.device).repeat_interleave(lengths)
    return place, found.concepts[spread(starts[which], lengths)]
