"""The captioner's decoder: an LSTM that attends to the exemplars of a unit while it writes (Hernandez et al., 2022).

With the features v (k, D) of a unit's k exemplars and the LSTM's h and c (H):

* h and c begin as tanh(W_h mean(v) + b) and tanh(W_c mean(v) + b);
* attention a = softmax over the exemplars of u . tanh(W_q h + b_q + W_k v_i + b_k) + b_u;
* context = sum of a_i v_i, gated by sigmoid(W_g h + b_g);
* (h, c) = LSTM cell of [embedding of the word before ; gated context], log p = log softmax(W_o h + b_o).

Attention and gate look at the h before the word, so they are the same for all words that may follow one beginning:
`step` computes them once for each beginning, however many words continue it. W_k v never changes: `start` computes it.

The v are the encoder's features, or these less their mean, in units of their standard deviation: where few units are
known, features of unequal scale are learned from slowly, and the few large ones drown the rest. Published captioners
read them as they are: mean 0, deviation 1.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from neuronx.errors import UserError
from neuronx.methods.milan.late_gradient import late_gradient
from neuronx.methods.milan.vocabulary import Specials


@dataclass(frozen=True)
class State:
    """What R unfinished captions have come to.

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
    """What the layers have that work at every step: weights, or what is added to their products."""

    query: Tensor
    gate: Tensor
    seen: Tensor
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
        gates, _, _ = self._look(state, state.keys.index_select(0, state.unit), weights, constants)
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
        seens: list[Tensor] = []
        queries, gates = (layer.bias.expand(*read.shape[:2], -1) for layer in (self.query, self.gate))
        words = F.linear(read, of_word, self.cell.bias_ih + self.cell.bias_hh)
        queries = late_gradient(queries, weights.query, hiddens)
        gates = late_gradient(gates, weights.gate, hiddens)
        words = late_gradient(late_gradient(words, weights.seen, seens), weights.hidden, hiddens)
        outputs, attentions = [], []
        for query, gate, word in zip(queries.unbind(), gates.unbind(), words.unbind(), strict=True):
            hiddens.append(state.h.detach())
            drive, attention, seen = self._look(state, keys, detached, _PerStep(query, gate, word, word))
            seens.append(seen.detach())
            h, c = lstm_cell(drive, state.c)
            state = replace(state, h=h, c=c)
            outputs.append(h)
            attentions.append(attention)
        return torch.stack(outputs, 1), torch.stack(attentions, 1)

    def predict(self, outputs: Tensor) -> Tensor:
        """Logits (..., n) of the words from the LSTM's outputs (..., H), with dropout in training."""
        return self.output(self.dropout(outputs))

    def _weights(self) -> tuple[_PerStep, Tensor]:
        """The weights of what looks at h and at the exemplars, and the LSTM's weights of the word."""
        of_word, of_seen = self.cell.weight_ih.split([self.embedding.embedding_dim, self.gate.out_features], 1)
        return _PerStep(self.query.weight, self.gate.weight, of_seen, self.cell.weight_hh), of_word

    def _look(
        self, state: State, keys: Tensor, weights: _PerStep, constants: _PerStep
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What h and the exemplars add to the LSTM's gates (R, 4 H), attention (R, k) and gated context (R, D).

        Args:
            state: Of R captions.
            keys: (R, k, A), those of their units.
            weights: Of the layers.
            constants: What is added; `seen` alone for the LSTM.
        """
        query = torch.addmm(constants.query, state.h, weights.query.T)
        attention = self.attention((keys + query.unsqueeze(1)).tanh_()).squeeze(-1).softmax(-1)
        k = keys.shape[1]
        # A weighted sum of rows of the features, which are never copied for each caption.
        rows = state.unit.unsqueeze(1) * k + torch.arange(k, device=keys.device)
        weighting = attention.to(state.features.dtype)
        context = F.embedding_bag(rows, state.features.flatten(0, 1), per_sample_weights=weighting, mode="sum")
        seen = torch.sigmoid(torch.addmm(constants.gate, state.h, weights.gate.T)) * context
        gates = torch.addmm(constants.seen, seen, weights.seen.T)
        return torch.addmm(gates, state.h, weights.hidden.T), attention, seen


def lstm_cell(gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """An LSTM's next h and c (R, H) from the sums (R, 4 H) at its gates; torch's order: input, forget, new, output."""
    i, f, g, o = gates.chunk(4, -1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c
