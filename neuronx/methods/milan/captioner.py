"""From the features of units' exemplars to sentences, and back to how likely a sentence is."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from neuronx.errors import UserError, unknown
from neuronx.methods.milan.decoder import Decoder
from neuronx.methods.milan.language_model import LanguageModel
from neuronx.methods.milan.pmi import Pmi, rerank
from neuronx.methods.milan.search import Beams, Writer, beam, forced, greedy, sample, write
from neuronx.methods.milan.vocabulary import Vocabulary

STRATEGIES = ("greedy", "sample", "beam", "rerank")


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
        strategy: str | Tensor | None = None,
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
            strategy: `greedy`, `sample`, `beam`, `rerank` (the beam by log p(d | E), its best by PMI), or the tokens
                (U, T) to write.
            pmi: Whether words are scored by log p(w | E) - lambda log p(w) rather than log p(w | E); when None they are
                if there is a language model and the strategy is not rerank, which scores whole captions.
            temperature: lambda.
            beam_size: Width of the beam.
            length: Tokens, stop included.
            generator: Of `sample`.
            published_lm_score: As in `rerank`.

        Raises:
            UserError: Features that do not fit or are not finite, an unknown strategy, one that needs a language model
                where there is none, tokens of another shape or vocabulary, a beam or length that is out of range.
        """
        strategy = self.strategy if strategy is None else strategy
        weight = self.temperature if temperature is None else temperature
        width, length = beam_size or self.beam_size, self.length if length is None else length
        if isinstance(strategy, str) and strategy not in STRATEGIES:
            raise unknown("strategy", strategy, STRATEGIES)
        if length < 1:
            raise UserError(f"The length is {length}; a caption has at least 1 token.")
        if isinstance(strategy, str) and strategy == "rerank":
            if pmi:
                raise UserError("rerank weighs whole captions by PMI already: leave pmi out, or use strategy=beam.")
            beams = beam(self.decoder, _finite(features), width, length)
            return self._best(rerank(beams, self._needed_language_model("rerank"), weight, published_lm_score))
        writer = self._writer(pmi, weight)
        if isinstance(strategy, str) and strategy == "beam":
            return self._best(beam(writer, _finite(features), width, length))
        if isinstance(strategy, Tensor):
            tokens = self._checked(strategy, len(features)).to(features.device)
            choose, length = forced(tokens), tokens.shape[1]
        else:
            choose = greedy if strategy == "greedy" else sample(generator)
        tokens, scores = write(writer, _finite(features), choose, length)
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
        return write(writer, _finite(features), forced(tokens), tokens.shape[1], unit)[1]

    def _writer(self, pmi: bool | None, weight: float) -> Writer:
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

    def _checked(self, tokens: Tensor, units: int) -> Tensor:
        if tokens.ndim != 2 or len(tokens) != units or not tokens.shape[1]:
            raise UserError(f"The tokens to write have shape {tuple(tokens.shape)}; they need ({units}, length).")
        if not 0 <= int(tokens.min()) <= int(tokens.max()) < self.vocabulary.specials.size:
            raise UserError(f"The tokens to write go beyond the vocabulary's 0 to {self.vocabulary.specials.unknown}.")
        return tokens


def _finite(features: Tensor) -> Tensor:
    if not features.isfinite().all():
        unit = int((~features.isfinite()).flatten(1).any(1).nonzero()[0])
        raise UserError(f"The features of unit {unit} (counted from 0) are not all finite (NaN or infinite).")
    return features
