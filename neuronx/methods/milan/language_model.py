"""The captioner's language model p(d): a two-layer LSTM over words, which knows nothing of any unit.

Descriptions are ranked by log p(d | E) - lambda log p(d), so that one that suits every unit gains nothing by it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from neuronx.methods.milan.decoder import lstm_cell
from neuronx.methods.milan.vocabulary import Specials


@dataclass(frozen=True)
class Prefixes:
    """What R beginnings of captions have come to.

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
        weight = self.output.weight
        zeros = weight.new_zeros(self.lstm.num_layers, 1, self.lstm.hidden_size)
        return Prefixes(zeros, zeros)

    def step(self, tokens: Tensor, state: Prefixes, parents: Tensor) -> tuple[Tensor, Prefixes]:
        """Reads one word for each of R beginnings and predicts the next; without dropout.

        Args:
            tokens: (R,) int64, the word read; `specials.start` at first.
            state: Of the beginnings that are continued.
            parents: (R,) int64, which of them each word continues. What is the same for all words that continue one is
                computed once.

        Returns:
            log p (R, n) of the next token, and the state of the R beginnings.
        """
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
        """Sums log p(d) of B captions over their words and the first stop.

        No beginning is looked at twice: captions that begin alike share the work, whichever unit they are about.

        Args:
            tokens: (B, T) int64, each row up to a stop and more stops, or without one.
            past_stop: Count one stop after the first, where there is room for it, as the published code does.

        Returns:
            (B,) float.
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
