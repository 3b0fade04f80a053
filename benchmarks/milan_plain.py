"""A plain captioner: the same equations written as they stand, keys recomputed at every step, every beam on its own."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PlainDecoder(nn.Module):
    """MILAN's decoder, one module for each line of its definition."""

    def __init__(self, words: int, feature_size: int, embedding: int = 128, hidden: int = 512) -> None:
        super().__init__()
        n = words + 4
        self.start, self.stop, self.pad = words, words + 1, words + 2
        self.initial_h, self.initial_c = nn.Linear(feature_size, hidden), nn.Linear(feature_size, hidden)
        self.embedding = nn.Embedding(n, embedding)
        self.query, self.key = nn.Linear(hidden, hidden), nn.Linear(feature_size, hidden)
        self.attention = nn.Linear(hidden, 1)
        self.gate = nn.Linear(hidden, feature_size)
        self.cell = nn.LSTMCell(embedding + feature_size, hidden)
        self.output = nn.Linear(hidden, n)
        self.dropout = nn.Dropout(0.5)

    def begin(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """The LSTM's h and c before the first word."""
        pooled = features.mean(1)
        return torch.tanh(self.initial_h(pooled)), torch.tanh(self.initial_c(pooled))

    def step(self, features: Tensor, tokens: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
        """Scores log p of the next word, h, c and the attention."""
        energy = self.attention(torch.tanh(self.query(h).unsqueeze(1) + self.key(features)))
        attention = energy.softmax(1)
        context = (attention * features).sum(1)
        gated = torch.sigmoid(self.gate(h)) * context
        h, c = self.cell(torch.cat([self.embedding(tokens), gated], 1), (h, c))
        return self.output(self.dropout(h)).log_softmax(1), h, c, attention.squeeze(2)

    def loss(self, features: Tensor, targets: Tensor) -> Tensor:
        """Mean NLL over targets that are no pads, and the regulariser of the attention."""
        h, c = self.begin(features)
        tokens = torch.full_like(targets[:, 0], self.start)
        predicted, attentions = [], []
        for t in range(targets.shape[1]):
            log_p, h, c, attention = self.step(features, tokens, h, c)
            predicted.append(log_p)
            attentions.append(attention)
            tokens = targets[:, t]
        nll = F.nll_loss(torch.stack(predicted, 1).flatten(0, 1), targets.flatten(), ignore_index=self.pad)
        return nll + ((1 - torch.stack(attentions, 1).sum(1)) ** 2).mean()


class PlainLanguageModel(nn.Module):
    """MILAN's language model."""

    def __init__(self, words: int, embedding: int = 128, hidden: int = 512) -> None:
        super().__init__()
        self.start, self.stop = words, words + 1
        self.embedding = nn.Embedding(words + 4, embedding, padding_idx=words + 2)
        self.lstm = nn.LSTM(embedding, hidden, 2, dropout=0.5, batch_first=True)
        self.output = nn.Linear(hidden, words + 4)

    def score(self, tokens: Tensor) -> Tensor:
        """Sums log p of captions (B, T), up to and with the first stop."""
        start = torch.full_like(tokens[:, :1], self.start)
        hidden, _ = self.lstm(self.embedding(torch.cat([start, tokens[:, :-1]], 1)))
        each = self.output(hidden).log_softmax(2).gather(2, tokens.unsqueeze(2)).squeeze(2)
        ended = (tokens == self.stop).cumsum(1) - (tokens == self.stop).long()
        return each.masked_fill(ended > 0, 0).sum(1)


@torch.no_grad()
def greedy(decoder: PlainDecoder, features: Tensor, length: int = 15) -> Tensor:
    """The likeliest word at every step."""
    h, c = decoder.begin(features)
    tokens, written = torch.full((len(features),), decoder.start), []
    for _ in range(length):
        log_p, h, c, _ = decoder.step(features, tokens, h, c)
        tokens = log_p.argmax(1)
        written.append(tokens)
    return torch.stack(written, 1)


@torch.no_grad()
def beam(decoder: PlainDecoder, features: Tensor, width: int = 50, length: int = 15) -> tuple[Tensor, Tensor]:
    """Beam search whose features are repeated for every beam: tokens (U, width, T) and scores (U, width)."""
    units = len(features)
    log_p, h, c, _ = decoder.step(features, torch.full((units,), decoder.start), *decoder.begin(features))
    scores, words = log_p.topk(width)
    tokens = words.unsqueeze(2)
    features, h, c = (x.repeat_interleave(width, 0) for x in (features, h, c))
    for _ in range(length - 1):
        if (words == decoder.stop).all():
            break
        log_p, h, c, _ = decoder.step(features, words.flatten(), h, c)
        ended = (words == decoder.stop).flatten()
        log_p[ended] = torch.finfo(log_p.dtype).min
        log_p[ended, decoder.stop] = 0
        each, next_words = log_p.topk(width)
        totals = (scores.unsqueeze(2) + each.view(units, width, width)).flatten(1)
        scores, chosen = totals.topk(width)
        words, parents = next_words.view(units, -1).gather(1, chosen), chosen // width
        tokens = torch.cat([tokens.gather(1, parents.unsqueeze(2).expand_as(tokens)), words.unsqueeze(2)], 2)
        rows = (parents + width * torch.arange(units).unsqueeze(1)).flatten()
        features, h, c = features[rows], h[rows], c[rows]
    return tokens, scores


@torch.no_grad()
def rerank(
    decoder: PlainDecoder, lm: PlainLanguageModel, features: Tensor, width: int = 50, weight: float = 0.2
) -> Tensor:
    """The beam whose log p(d | E) less `weight` log p(d) is largest: tokens (U, T)."""
    tokens, scores = beam(decoder, features, width)
    scores = scores - weight * lm.score(tokens.flatten(0, 1)).view(scores.shape)
    return tokens[torch.arange(len(tokens)), scores.argmax(1)]
