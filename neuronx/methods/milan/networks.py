"""The captioner's two networks (Hernandez et al., 2022): a decoder p(d | E) of exemplars E, and a language model p(d).

The decoder is an LSTM that attends to the exemplars of a unit while it writes. With the features v (k, D) of a unit's k
exemplars and the LSTM's h and c (H):

* h and c begin as tanh(W_h mean(v) + b) and tanh(W_c mean(v) + b);
* attention a = softmax over the exemplars of u . tanh(W_q h + b_q + W_k v_i + b_k) + b_u;
* context = sum of a_i v_i, gated by sigmoid(W_g h + b_g);
* (h, c) = LSTM cell of [embedding of the word before ; gated context], log p = log softmax(W_o h + b_o).

Attention and gate read the h before the word, so they are the same for all words that may follow one beginning: `step`
computes them once for each beginning, however many words continue it. W_k v never changes: `start` computes it.

The v are the encoder's features, or these less their mean, in units of their standard deviation: where few units are
known, features of unequal scale are learned slowly, and the few large ones drown the rest. Published captioners read
them as they are: mean 0, deviation 1.

The language model is a two-layer LSTM over words, which knows nothing of any unit.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from neuronx.errors import UserError

if TYPE_CHECKING:
    from spacy.tokenizer import Tokenizer


class Specials(NamedTuple):
    """Ids of the tokens that are no words; they follow those of the V words."""

    start: int
    stop: int
    pad: int
    unknown: int

    @classmethod
    def after(cls, words: int) -> "Specials":
        """Of a vocabulary of so many words."""
        return cls(words, words + 1, words + 2, words + 3)

    @property
    def size(self) -> int:
        """Number of all ids, n = V + 4."""
        return self.unknown + 1


@dataclass(frozen=True)
class Vocabulary:
    """The words that a captioner knows: word i has id i, the special tokens follow.

    Attributes:
        words: The V words, distinct.
    """

    words: tuple[str, ...]

    def __post_init__(self) -> None:
        repeated = [word for word, count in Counter(self.words).items() if count > 1]
        if repeated or not self.words:
            what = f"has `{repeated[0]}` more than once" if repeated else "has no words"
            raise UserError(f"The vocabulary {what}; it needs distinct words.")

    @classmethod
    def build(cls, descriptions: Iterable[str | Sequence[str]]) -> "Vocabulary":
        """All tokens of the descriptions, the most frequent first; of equally frequent ones the first seen.

        Args:
            descriptions: Of each unit, all of them or the only one. Those of one unit are tokenised as one text.

        Raises:
            UserError: There is no word in them.
        """
        counts: Counter[str] = Counter()
        for unit in descriptions:
            counts.update(tokens(unit if isinstance(unit, str) else " ".join(unit)))
        return cls(tuple(word for word, _ in counts.most_common()))

    @cached_property
    def specials(self) -> Specials:
        """Ids of start, stop, pad and unknown."""
        return Specials.after(len(self.words))

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {word: i for i, word in enumerate(self.words)}

    def index(self, texts: Sequence[str], length: int | None = None) -> Tensor:
        """Ids (B, T) int64 of B texts: their words, then stop, then pad up to the longest.

        Args:
            texts: Anything; words that are not in the vocabulary become `unknown`, a blank text is stop alone.
            length: Keep this many words of a text at most, before stop.
        """
        known, unknown = self._ids, self.specials.unknown
        rows = [[known.get(token, unknown) for token in tokens(text)[:length]] for text in texts]
        ids = torch.full((len(rows), 1 + max(map(len, rows), default=0)), self.specials.pad)
        for i, row in enumerate(rows):
            ids[i, : len(row) + 1] = torch.tensor([*row, self.specials.stop])
        return ids

    def sentence(self, ids: Tensor | Sequence[int]) -> str:
        """The text that one row of ids (T,) stands for, up to the first stop, spelt like a sentence.

        Special tokens are left out, punctuation and hyphens are joined to their words and each sentence begins with a
        capital. No full stop is added; clitics stay apart ("people 's faces").
        """
        ids = ids.tolist() if isinstance(ids, Tensor) else list(ids)
        if self.specials.stop in ids:
            ids = ids[: ids.index(self.specials.stop)]
        text = " ".join(self.words[i] for i in ids if i < len(self.words))
        for mark in ".,;:-":
            text = text.replace(f" {mark}", mark)
        sentences = text.replace("- ", "-").split(".")
        return ". ".join(sentence.strip().capitalize() for sentence in sentences).strip()

    def sentences(self, ids: Tensor) -> tuple[str, ...]:
        """The texts of B rows of ids (B, T)."""
        return tuple(map(self.sentence, ids.tolist()))


def tokens(text: str) -> list[str]:
    """The lower-case tokens of an English text; punctuation and common words stay, white space does not.

    "black-and-white" gives black - and - white, "people's" gives people 's.
    """
    return [token.lower_ for token in _tokenizer()(text) if not token.is_space]


@lru_cache(maxsize=1)
def _tokenizer() -> "Tokenizer":
    import spacy

    return spacy.blank("en").tokenizer


@dataclass(frozen=True)
class State:
    """The decoder's state of R unfinished captions.

    Attributes:
        h: (R, H) output of the LSTM.
        c: (R, H) its memory.
        unit: (R,) int64, which unit each is about: a row of the features.
        features: (U, k, D) of the units' exemplars, standardised.
        keys: (U, k, A) of the attention, W_k v + b_k.
    """

    h: Tensor
    c: Tensor
    unit: Tensor
    features: Tensor
    keys: Tensor

    def of(self, rows: Tensor) -> "State":
        """The state of some rows (R',)."""
        return replace(self, h=self.h[rows], c=self.c[rows], unit=self.unit[rows])


class _PerStep(NamedTuple):
    """Of the layers that work at every step: their weights, or what is added to their products."""

    query: Tensor
    gate: Tensor
    context: Tensor
    hidden: Tensor


class Decoder(nn.Module):
    """Words from features: one step at a time to write captions, all steps of given captions to learn from them.

    Attributes:
        mean: (D,) what is taken from features.
        deviation: (D,) what they are then divided by.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        words: int,
        feature_size: int,
        embedding_size: int = 128,
        hidden_size: int = 512,
        attention_size: int | None = None,
        dropout: float = 0.5,
    ) -> None:
        """Begins with torch's default initialisation.

        Args:
            words: Size V of the vocabulary, without the special tokens.
            feature_size: D.
            embedding_size: Of words.
            hidden_size: H, of the LSTM.
            attention_size: A; the smaller of 512 and D when None.
            dropout: On the LSTM's outputs where the words are predicted, in training only.
        """
        super().__init__()
        attention_size = attention_size or min(512, feature_size)
        self.specials = Specials.after(words)
        self.initial_h = nn.Linear(feature_size, hidden_size)
        self.initial_c = nn.Linear(feature_size, hidden_size)
        self.embedding = nn.Embedding(self.specials.size, embedding_size)
        self.query = nn.Linear(hidden_size, attention_size)
        self.key = nn.Linear(feature_size, attention_size)
        self.attention = nn.Linear(attention_size, 1)
        self.gate = nn.Linear(hidden_size, feature_size)
        self.cell = nn.LSTMCell(embedding_size + feature_size, hidden_size)
        self.output = nn.Linear(hidden_size, self.specials.size)
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("mean", torch.zeros(feature_size))
        self.register_buffer("deviation", torch.ones(feature_size))

    def start(self, features: Tensor, unit: Tensor | None = None) -> State:
        """The state before the first word.

        Args:
            features: (U, k, D) of U units.
            unit: (R,) int64, the unit that each caption is about; one caption for each unit when None.

        Raises:
            UserError: The features have another shape.
        """
        if features.ndim != 3 or features.shape[2] != self.key.in_features or not features.shape[1]:
            raise UserError(
                f"The captioner takes features (units, exemplars, {self.key.in_features}), not "
                f"{tuple(features.shape)}: use the encoder that it was trained with."
            )
        unit = torch.arange(len(features), device=features.device) if unit is None else unit
        features = (features.to(self.key.weight.dtype) - self.mean) / self.deviation
        pooled = features.mean(1)
        h, c = (torch.tanh(initial(pooled)).index_select(0, unit) for initial in (self.initial_h, self.initial_c))
        return State(h, c, unit, features, self.key(features))

    def step(self, tokens: Tensor, state: State, parents: Tensor | None = None) -> tuple[Tensor, State]:
        """Reads one word for each of R captions and predicts the next; without dropout.

        Args:
            tokens: (R,) int64, the word read; `specials.start` at first.
            state: Of the captions that are continued.
            parents: (R,) int64, which row of the state each continues; row i when None. Several words may continue one
                row, which is worked on once, and rows that nothing continues cost nothing.

        Returns:
            log p (R, n) of the next token, and the state of the R captions.
        """
        if parents is not None:
            used, parents = parents.unique(return_inverse=True)
            state = state.of(used)
        weights, of_word = self._weights()
        bias = self.cell.bias_ih + self.cell.bias_hh
        constants = _PerStep(self.query.bias, self.gate.bias, bias, bias)
        gates, _, _ = self._attend(state, state.keys.index_select(0, state.unit), weights, constants)
        gates, c, unit = (x if parents is None else x.index_select(0, parents) for x in (gates, state.c, state.unit))
        h, c = lstm_cell(gates + F.linear(self.embedding(tokens), of_word), c)
        return self.output(h).log_softmax(-1), replace(state, h=h, c=c, unit=unit)

    def forward(self, features: Tensor, targets: Tensor, unit: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Follows given captions: at each step the word before is the target of the step before.

        Args:
            features: (U, k, D).
            targets: (B, T) int64, words, stop and pads.
            unit: (B,) int64, the unit that each caption is about, so that several may share the work on its features;
                caption i is about unit i when None.

        Returns:
            The LSTM's outputs h (B, T, H), for `predict`, and the attention (B, T, k).
        """
        state = self.start(features, unit)
        keys = state.keys if unit is None else state.keys.index_select(0, unit)
        start = torch.full_like(targets[:, :1], self.specials.start)
        read = self.embedding(torch.cat([start, targets[:, :-1]], 1).T)
        weights, of_word = self._weights()
        detached = _PerStep(*(weight.detach() for weight in weights))
        hiddens: list[Tensor] = []
        contexts: list[Tensor] = []
        queries, gates = (layer.bias.expand(*read.shape[:2], -1) for layer in (self.query, self.gate))
        words = F.linear(read, of_word, self.cell.bias_ih + self.cell.bias_hh)
        queries = late_gradient(queries, weights.query, hiddens)
        gates = late_gradient(gates, weights.gate, hiddens)
        words = late_gradient(late_gradient(words, weights.context, contexts), weights.hidden, hiddens)
        outputs, attentions = [], []
        for query, gate, word in zip(queries.unbind(), gates.unbind(), words.unbind(), strict=True):
            hiddens.append(state.h.detach())
            drive, attention, context = self._attend(state, keys, detached, _PerStep(query, gate, word, word))
            contexts.append(context.detach())
            h, c = lstm_cell(drive, state.c)
            state = replace(state, h=h, c=c)
            outputs.append(h)
            attentions.append(attention)
        return torch.stack(outputs, 1), torch.stack(attentions, 1)

    def predict(self, outputs: Tensor) -> Tensor:
        """Logits (..., n) of the words from the LSTM's outputs (..., H), with dropout in training."""
        return self.output(self.dropout(outputs))

    def _weights(self) -> tuple[_PerStep, Tensor]:
        """The weights of the layers that read h and the exemplars, and the LSTM's weights of the word."""
        of_word, of_context = self.cell.weight_ih.split([self.embedding.embedding_dim, self.gate.out_features], 1)
        return _PerStep(self.query.weight, self.gate.weight, of_context, self.cell.weight_hh), of_word

    def _attend(
        self, state: State, keys: Tensor, weights: _PerStep, constants: _PerStep
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What h and the exemplars add to the LSTM's gates (R, 4 H), attention (R, k) and gated context (R, D).

        Args:
            state: Of R captions.
            keys: (R, k, A), those of their units.
            weights: Of the layers.
            constants: What is added; `context` alone for the LSTM.
        """
        query = torch.addmm(constants.query, state.h, weights.query.T)
        attention = self.attention((keys + query.unsqueeze(1)).tanh_()).squeeze(-1).softmax(-1)
        k = keys.shape[1]
        # A weighted sum of rows of the features, which are never copied for each caption.
        rows = state.unit.unsqueeze(1) * k + torch.arange(k, device=keys.device)
        weighting = attention.to(state.features.dtype)
        context = F.embedding_bag(rows, state.features.flatten(0, 1), per_sample_weights=weighting, mode="sum")
        context = torch.sigmoid(torch.addmm(constants.gate, state.h, weights.gate.T)) * context
        gates = torch.addmm(constants.context, context, weights.context.T)
        return torch.addmm(gates, state.h, weights.hidden.T), attention, context


@dataclass(frozen=True)
class Prefixes:
    """The language model's state of R beginnings of captions.

    Attributes:
        h: (layers, R, H) outputs of the LSTM's layers.
        c: (layers, R, H) their memories.
    """

    h: Tensor
    c: Tensor


class LanguageModel(nn.Module):
    """log p of the next word from the words before."""

    def __init__(
        self, words: int, embedding_size: int = 128, hidden_size: int = 512, layers: int = 2, dropout: float = 0.5
    ) -> None:
        """Begins with torch's default initialisation.

        Args:
            words: Size V of the vocabulary, without the special tokens.
            embedding_size: Of words; that of pad is 0.
            hidden_size: H.
            layers: Of the LSTM.
            dropout: Between the layers, in training only.
        """
        super().__init__()
        self.specials = Specials.after(words)
        self.embedding = nn.Embedding(self.specials.size, embedding_size, padding_idx=self.specials.pad)
        self.lstm = nn.LSTM(embedding_size, hidden_size, layers, dropout=dropout if layers > 1 else 0, batch_first=True)
        self.output = nn.Linear(hidden_size, self.specials.size)

    def forward(self, targets: Tensor) -> Tensor:
        """Follows given captions (B, T) of words, stop and pads; the LSTM's outputs (B, T, H), for `predict`."""
        start = torch.full_like(targets[:, :1], self.specials.start)
        return self.lstm(self.embedding(torch.cat([start, targets[:, :-1]], 1)))[0]

    def predict(self, outputs: Tensor) -> Tensor:
        """Logits (..., n) of the next words from the LSTM's outputs (..., H)."""
        return self.output(outputs)

    def start(self) -> Prefixes:
        """The state before the first word: one empty beginning, which every caption has."""
        zeros = self.output.weight.new_zeros(self.lstm.num_layers, 1, self.lstm.hidden_size)
        return Prefixes(zeros, zeros)

    def step(self, tokens: Tensor, state: Prefixes, parents: Tensor) -> tuple[Tensor, Prefixes]:
        """As `Decoder.step`; what is the same for all words that continue one beginning is computed once."""
        used, parents = parents.unique(return_inverse=True)
        x, hs, cs = self.embedding(tokens), [], []
        for layer in range(self.lstm.num_layers):
            w_in, w_hidden, b_in, b_hidden = self.lstm.all_weights[layer]
            gates = F.linear(state.h[layer, used], w_hidden, b_in + b_hidden).index_select(0, parents)
            x, c = lstm_cell(torch.addmm(gates, x, w_in.T), state.c[layer, used].index_select(0, parents))
            hs.append(x)
            cs.append(c)
        return self.output(x).log_softmax(-1), Prefixes(torch.stack(hs), torch.stack(cs))

    @torch.no_grad()
    def score(self, tokens: Tensor, past_stop: bool = False) -> Tensor:
        """Sums log p(d) of B captions over their words and the first stop: (B,) float.

        Captions that begin alike share the work, whichever unit they are about.

        Args:
            tokens: (B, T) int64, each row up to a stop and more stops, or without one.
            past_stop: Count one stop after the first, where there is room for it, as the published code does.
        """
        n, stop = self.specials.size, self.specials.stop
        total = torch.zeros(len(tokens), dtype=self.output.weight.dtype, device=tokens.device)
        rows = torch.arange(len(tokens), device=tokens.device)
        prefix, state = torch.zeros_like(rows), self.start()
        read = torch.full_like(rows, self.specials.start)
        for words in tokens.unbind(1):
            distinct, prefix = (prefix * n + read).unique(return_inverse=True)
            log_p, state = self.step(distinct % n, state, distinct // n)
            total[rows] += log_p[prefix, words[rows]]
            going = words[rows] != stop if not past_stop else read != stop
            rows, prefix, read = rows[going], prefix[going], words[rows][going]
            if not len(rows):
                break
        return total


def lstm_cell(gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """An LSTM's next h and c (R, H) from the sums (R, 4 H) at its gates; torch's order: input, forget, new, output."""
    i, f, g, o = gates.chunk(4, -1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def late_gradient(base: Tensor, weight: Tensor, inputs: list[Tensor]) -> Tensor:
    """Returns `base`, through which `weight` gets the gradient of T steps by one product.

    A recurrent layer y_t = x_t W' + b_t has the gradient sum over t of dy_t' x_t for W. Autograd adds T products of a
    small batch, each as large as W itself; one product of all steps costs a fraction where W is large.

    The steps use `base[t]` as their constant and the detached weight: y_t = addmm(base[t], x_t, weight.detach().T), and
    append each detached x_t to `inputs`, in order.

    Args:
        base: (T, B, out), whatever is added to the products; it needs a gradient, as a bias does.
        weight: (out, in).
        inputs: Empty yet; T tensors (B, in) by the time of the backward pass.
    """
    return _LateGradient.apply(base, weight, inputs)


class _LateGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, base: Tensor, weight: Tensor, inputs: list[Tensor]) -> Tensor:
        ctx.inputs, ctx.dtype = inputs, weight.dtype
        return base.view_as(base)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        inputs = torch.cat(ctx.inputs).to(ctx.dtype)
        return grad, grad.flatten(0, 1).to(ctx.dtype).T @ inputs, None
