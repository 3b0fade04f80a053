"""Descriptions that suit this unit rather than any: log p(d | E) - lambda log p(d), word by word or for whole captions.

Pointwise mutual information, weighted by lambda (Hernandez et al., 2022, equation 3), where p(d) is a language model.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from neuronx.methods.milan.decoder import Decoder, State
from neuronx.methods.milan.language_model import LanguageModel, Prefixes
from neuronx.methods.milan.search import Beams


@dataclass(frozen=True)
class PmiState:
    """What R unfinished captions have come to in the decoder and in the language model.

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
