"""Writing captions: greedily, by chance, as given, or by beam search.

All of it works on a `Writer`, whatever it scores words by. Captions of many units are written together; one that has
come to its stop drops out, and costs nothing from then on.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from neuronx.errors import UserError
from neuronx.methods.milan.vocabulary import Specials

_GROUP = 16  # so many neighbouring scores are looked at together when the best are sought
_ROWS = 1024  # so many captions are in a beam search at once: enough to keep a processor busy


class Writer(Protocol):
    """What scores words: a decoder, or a decoder less a language model."""

    specials: Specials

    def start(self, features: Tensor, unit: Tensor | None = None) -> Any:
        """The state before the first word, for units with features (U, k, D)."""
        ...

    def step(self, tokens: Tensor, state: Any, parents: Tensor | None = None) -> tuple[Tensor, Any]:
        """Reads words (R,) after rows `parents` (R,) of the state; scores (R, n) of the next, and the new state."""
        ...


@dataclass(frozen=True)
class Beams:
    """The W best captions found for each of U units, best first.

    Attributes:
        tokens: (U, W, T) int64: words, then stops. T is at most the length asked for, less where all stop earlier.
        scores: (U, W), the sum of the scores of the words and the first stop.
    """

    tokens: Tensor
    scores: Tensor


@torch.no_grad()
def write(
    writer: Writer,
    features: Tensor,
    choose: Callable[[Tensor, Tensor, int], Tensor],
    length: int,
    unit: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Writes one caption for each row, word by word.

    Args:
        writer: Scores the words.
        features: (U, k, D).
        choose: Given scores (R, n), the captions' rows (R,) and the step t, the tokens (R,) that come next.
        length: Number of tokens, stop included, after which a caption ends whether it has come to its stop or not.
        unit: (B,) the unit that each of B captions is about; one caption for each unit when None.

    Returns:
        Tokens (B, T), stops after the first stop, and scores (B,), sums over the words and the first stop.
    """
    state = writer.start(features, unit)
    rows = torch.arange(len(features) if unit is None else len(unit), device=features.device)
    tokens = torch.full((len(rows), length), writer.specials.stop, device=features.device)
    scores, state = writer.step(torch.full_like(rows, writer.specials.start), state)
    totals = scores.new_zeros(len(rows))
    for t in range(length):
        words = choose(scores, rows, t)
        tokens[rows, t] = words
        totals[rows] += scores.gather(1, words.unsqueeze(1)).squeeze(1)
        going = (words != writer.specials.stop).nonzero().squeeze(1)
        if not len(going):
            return tokens[:, : t + 1], totals
        if t + 1 < length:
            rows = rows[going]
            scores, state = writer.step(words[going], state, going)
    return tokens, totals


def greedy(scores: Tensor, rows: Tensor, t: int) -> Tensor:
    """The best word."""
    return scores.max(1).indices  # a third of the time of argmax


def sample(generator: torch.Generator | None = None) -> Callable[[Tensor, Tensor, int], Tensor]:
    """Words drawn with probabilities in proportion to exp(score)."""
    return lambda scores, rows, t: scores.softmax(1).multinomial(1, generator=generator).squeeze(1)


def forced(tokens: Tensor) -> Callable[[Tensor, Tensor, int], Tensor]:
    """The given tokens (B, T)."""
    return lambda scores, rows, t: tokens[rows, t]


@torch.no_grad()
def beam(writer: Writer, features: Tensor, width: int, length: int) -> Beams:
    """Beam search: at each step the `width` captions of each unit whose scores sum to most are kept.

    One that has come to its stop stays as it is and competes with the others; there is no allowance for length. The
    search of a unit ends when all have stopped or have `length` tokens. These are the rules of AllenNLP's BeamSearch.

    Args:
        writer: Scores the words.
        features: (U, k, D); memory does not grow with U beyond what is returned.
        width: W.
        length: Number of tokens, stop included.

    Raises:
        UserError: The width is not between 1 and the number of tokens that there are.
    """
    specials = writer.specials
    if not 1 <= width <= specials.size:
        raise UserError(f"The beam is {width} wide; it can be 1 to {specials.size}, the number of tokens there are.")
    found = [_beam(writer, block, width, length) for block in features.split(max(1, _ROWS // width))]
    longest = max(one.tokens.shape[2] for one in found)
    tokens = [F.pad(one.tokens, (0, longest - one.tokens.shape[2]), value=specials.stop) for one in found]
    return Beams(torch.cat(tokens), torch.cat([one.scores for one in found]))


def _beam(writer: Writer, features: Tensor, width: int, length: int) -> Beams:
    stop = writer.specials.stop
    start = torch.full((len(features),), writer.specials.start, device=features.device)
    scores, state = writer.step(start, writer.start(features))
    tokens = start.new_empty(len(start), 1, 0)
    totals, going = scores.new_zeros(len(start), 1), torch.ones_like(start, dtype=torch.bool).unsqueeze(1)
    for t in range(length):
        row = (going.flatten().cumsum(0) - 1).view(going.shape)  # of the state, for captions that go on
        totals, caption, words = _best(totals, going, scores, row, width, stop)
        tokens = torch.cat([tokens.gather(1, caption.unsqueeze(2).expand(-1, -1, t)), words.unsqueeze(2)], 2)
        going = words != stop
        if t + 1 == length or not going.any():
            break
        scores, state = writer.step(words[going], state, row.gather(1, caption)[going])
    return Beams(tokens, totals)


def _best(
    totals: Tensor, going: Tensor, scores: Tensor, row: Tensor, width: int, stop: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The best continuations of each unit's captions, best first.

    The scores are read once, for the largest of each group of neighbours: `width` groups hold the best of a unit.

    Args:
        totals: (U, B) of the captions so far.
        going: (U, B) whether each goes on; the others compete as they are.
        scores: (R, n) of the next words, for the R that go on.
        row: (U, B) where among the R each is.
        width: W.
        stop: Token of those that do not go on.

    Returns:
        Totals (U, W), the captions continued (U, W) in 0..B-1, the words (U, W).
    """
    units, captions = totals.shape
    peaks = F.max_pool1d(scores.unsqueeze(1), _GROUP, ceil_mode=True).squeeze(1)
    groups = peaks.shape[1]
    table = peaks.new_full((units, captions, groups), -torch.inf)
    table[going] = peaks + totals[going].unsqueeze(1)
    chosen = table.flatten(1).topk(min(width, captions * groups)).indices.repeat_interleave(_GROUP, 1)
    caption = chosen // groups
    word = chosen % groups * _GROUP + torch.arange(chosen.shape[1], device=chosen.device) % _GROUP
    exists = going.gather(1, caption) & (word < scores.shape[1])
    each = scores[row.gather(1, caption).clamp(min=0), word.clamp(max=scores.shape[1] - 1)]
    continued = (totals.gather(1, caption) + each).where(exists, -torch.inf)
    best, place = torch.cat([continued, totals.masked_fill(going, -torch.inf)], 1).topk(width)
    every = torch.arange(captions, device=totals.device).expand(units, -1)
    caption, word = torch.cat([caption, every], 1), torch.cat([word, torch.full_like(every, stop)], 1)
    return best, caption.gather(1, place), word.gather(1, place)
