"""From the features of units' exemplars to sentences, and back to how likely a sentence is.

Captions are written word by word, greedily or by chance, or searched for by beams. Words are scored by a decoder, or by
pointwise mutual information: log p(d | E) - lambda log p(d), where p(d) is a language model, so that a description that
suits every unit gains nothing by it (Hernandez et al., 2022, equation 3). Captions of many units are written together;
one that has come to its stop drops out, and costs nothing from then on.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from neuronx.errors import UserError, unknown
from neuronx.methods.milan.networks import Decoder, LanguageModel, Prefixes, Specials, State, Vocabulary

STRATEGIES = ("greedy", "sample", "beam", "rerank")
_GROUP = 16  # so many neighbouring scores are compared at once when the best are sought
_ROWS = 1024  # so many captions are in a beam search at once: enough to keep a processor busy


@dataclass(frozen=True)
class Beams:
    """The W best captions found for each of U units, best first.

    Attributes:
        tokens: (U, W, T) int64: words, then stops. T is at most the length asked for, less where all stop earlier.
        scores: (U, W), the sum of the scores of the words and the first stop.
    """

    tokens: Tensor
    scores: Tensor


@dataclass(frozen=True)
class Captions:
    """One caption for each of U units.

    Attributes:
        captions: As sentences.
        scores: (U,) float, what the strategy maximises: sums over the words and the first stop.
        tokens: (U, T) int64, stops after the first stop.
        beams: The captions that `beam` and `rerank` chose from, best first.
    """

    captions: tuple[str, ...]
    scores: Tensor
    tokens: Tensor
    beams: Beams | None = None


class Captioner(nn.Module):
    """A decoder with its vocabulary and, where it has one, its language model. Writing captions uses no dropout."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        decoder: Decoder,
        language_model: LanguageModel | None = None,
        strategy: str | None = None,
        temperature: float = 0.2,
        beam_size: int = 50,
        length: int = 15,
    ) -> None:
        """Joins the parts; the options are the defaults of `forward`.

        Args:
            vocabulary: Of both models.
            decoder: p(d | E).
            language_model: p(d).
            strategy: rerank with a language model, beam without one when None.
            temperature: lambda, the weight of log p(d).
            beam_size: Number of captions in the beam.
            length: Tokens of a caption, stop included.
        """
        super().__init__()
        for model in (decoder, language_model):
            if model is not None and model.specials != vocabulary.specials:
                raise UserError(
                    f"The {type(model).__name__} has {model.specials.start} words and the vocabulary "
                    f"{len(vocabulary.words)}: they do not belong together."
                )
        self.vocabulary, self.decoder, self.language_model = vocabulary, decoder, language_model
        self.strategy = strategy or ("beam" if language_model is None else "rerank")
        self.temperature, self.beam_size, self.length = temperature, beam_size, length

    def forward(
        self,
        features: Tensor,
        strategy: str | None = None,
        pmi: bool | None = None,
        temperature: float | None = None,
        beam_size: int | None = None,
        length: int | None = None,
        generator: torch.Generator | None = None,
        published_lm_score: bool = False,
    ) -> Captions:
        """Describes U units.

        Args:
            features: (U, k, D) of their exemplars.
            strategy: `greedy`, `sample`, `beam`, `rerank` (the beam by log p(d | E), its best by PMI).
            pmi: Whether words are scored by log p(w | E) - lambda log p(w) rather than log p(w | E); when None they are
                if there is a language model and the strategy is not rerank, which scores whole captions.
            temperature: lambda.
            beam_size: Width of the beam.
            length: Tokens, stop included.
            generator: Of `sample`.
            published_lm_score: As in `rerank`.

        Raises:
            UserError: Features that do not fit or are not finite, an unknown strategy, one that needs a language model
                where there is none, a beam or length that is out of range.
        """
        strategy = self.strategy if strategy is None else strategy
        weight = self.temperature if temperature is None else temperature
        width, length = beam_size or self.beam_size, self.length if length is None else length
        if strategy not in STRATEGIES:
            raise unknown("strategy", strategy, STRATEGIES)
        if length < 1:
            raise UserError(f"The length is {length}; a caption has at least 1 token.")
        if strategy == "rerank":
            if pmi:
                raise UserError("rerank weighs whole captions by PMI already: leave pmi out, or use strategy=beam.")
            beams = beam(self.decoder, _finite(features), width, length)
            return self._best(rerank(beams, self._needed_language_model("rerank"), weight, published_lm_score))
        writer = self._writer(pmi, weight)
        if strategy == "beam":
            return self._best(beam(writer, _finite(features), width, length))
        tokens, scores = write(writer, _finite(features), greedy if strategy == "greedy" else sample(generator), length)
        return Captions(self.vocabulary.sentences(tokens), scores, tokens)

    def score(
        self, captions: Sequence[str], features: Tensor, pmi: bool | None = None, temperature: float | None = None
    ) -> Tensor:
        """How well captions describe units: the sum over their words and the stop, (B,) float.

        Args:
            captions: B texts, of any length.
            features: (B, k, D) of the unit that each is about, or (1, k, D) of one that all are about.
            pmi: As in `forward`; log p(d | E) when False.
            temperature: lambda.

        Raises:
            UserError: Another number of units than 1 or B, or features that do not fit.
        """
        if len(features) not in (1, len(captions)):
            raise UserError(
                f"There are {len(captions)} captions and {len(features)} units: give one unit, or one each."
            )
        tokens = self.vocabulary.index(captions).to(features.device)
        unit = torch.zeros_like(tokens[:, 0]) if len(features) == 1 else None
        writer = self._writer(pmi, self.temperature if temperature is None else temperature)
        return write(writer, _finite(features), lambda _, rows, t: tokens[rows, t], tokens.shape[1], unit)[1]

    def _writer(self, pmi: bool | None, weight: float) -> "Writer":
        if pmi is None:
            pmi = self.language_model is not None
        return Pmi(self.decoder, self._needed_language_model("pmi"), weight) if pmi else self.decoder

    def _needed_language_model(self, what: str) -> LanguageModel:
        if self.language_model is None:
            raise UserError(
                f"{what} needs a language model, which this captioner has not: use strategy=beam pmi=false."
            )
        return self.language_model

    def _best(self, beams: Beams) -> Captions:
        tokens = beams.tokens[:, 0]
        return Captions(self.vocabulary.sentences(tokens), beams.scores[:, 0], tokens, beams)


def _finite(features: Tensor) -> Tensor:
    if not features.isfinite().all():
        unit = int((~features.isfinite()).flatten(1).any(1).nonzero()[0])
        raise UserError(f"The features of unit {unit} (counted from 0) are not all finite (NaN or infinite).")
    return features


class Writer(Protocol):
    """Scores words: a decoder, or a decoder less a language model."""

    specials: Specials

    def start(self, features: Tensor, unit: Tensor | None = None) -> Any:
        """The state before the first word, for units with features (U, k, D)."""
        ...

    def step(self, tokens: Tensor, state: Any, parents: Tensor | None = None) -> tuple[Tensor, Any]:
        """Reads words (R,) after rows `parents` (R,) of the state; scores (R, n) of the next, and the new state."""
        ...


@dataclass(frozen=True)
class PmiState:
    """The state of R unfinished captions in the decoder and in the language model.

    Attributes:
        decoder: Of the R captions.
        prefixes: Of the distinct beginnings among them, whichever unit they are about.
        prefix: (R,) int64, which of the beginnings each caption has.
    """

    decoder: State
    prefixes: Prefixes
    prefix: Tensor


class Pmi:
    """A writer that scores words by log p(w | E, words before) - lambda log p(w | words before)."""

    def __init__(self, decoder: Decoder, language_model: LanguageModel, weight: float = 0.2) -> None:
        """Joins the two; they have the same vocabulary. `weight` is lambda, which MILAN calls temperature."""
        self.decoder, self.language_model, self.weight = decoder, language_model, weight
        self.specials = decoder.specials

    def start(self, features: Tensor, unit: Tensor | None = None) -> PmiState:
        """As `Decoder.start`."""
        state = self.decoder.start(features, unit)
        return PmiState(state, self.language_model.start(), torch.zeros_like(state.unit))

    def step(self, tokens: Tensor, state: PmiState, parents: Tensor | None = None) -> tuple[Tensor, PmiState]:
        """As `Decoder.step`, with scores (R, n) in place of log p. No beginning is read twice."""
        scores, decoder = self.decoder.step(tokens, state.decoder, parents)
        prefix = state.prefix if parents is None else state.prefix[parents]
        distinct, prefix = (prefix * self.specials.size + tokens).unique(return_inverse=True)
        log_p, prefixes = self.language_model.step(
            distinct % self.specials.size, state.prefixes, distinct // self.specials.size
        )
        scores.sub_(log_p.index_select(0, prefix), alpha=self.weight)
        return scores, PmiState(decoder, prefixes, prefix)


@torch.no_grad()
def rerank(beams: Beams, language_model: LanguageModel, weight: float = 0.2, published_lm_score: bool = False) -> Beams:
    """The captions of each unit by log p(d | E) - lambda log p(d), best first; equal ones in the order they had.

    Args:
        beams: With log p(d | E) as scores.
        language_model: p(d).
        weight: lambda.
        published_lm_score: Count in log p(d) one stop after the stop of captions that end before the longest of the
            call, as the published code does by mistake; they gain by it.
    """
    log_p = language_model.score(beams.tokens.flatten(0, 1), past_stop=published_lm_score).view_as(beams.scores)
    scores, order = (beams.scores - weight * log_p).sort(dim=1, descending=True, stable=True)
    return Beams(beams.tokens.gather(1, order.unsqueeze(2).expand_as(beams.tokens)), scores)


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
    blocks = [_beam(writer, block, width, length) for block in features.split(max(1, _ROWS // width))]
    longest = max(block.tokens.shape[2] for block in blocks)
    tokens = [F.pad(block.tokens, (0, longest - block.tokens.shape[2]), value=specials.stop) for block in blocks]
    return Beams(torch.cat(tokens), torch.cat([block.scores for block in blocks]))


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
