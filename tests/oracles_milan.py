"""MILAN's captioner from its equations: one unit, one exemplar and one word at a time, in float64 NumPy.

Weights go by the names of the published checkpoints.
"""

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def log_softmax(x):
    x = x - x.max()
    return x - np.log(np.exp(x).sum())


def softmax(x):
    return np.exp(log_softmax(x))


def lstm(w_in, w_hidden, b_in, b_hidden, x, h, c):
    i, f, g, o = np.split(w_in @ x + b_in + w_hidden @ h + b_hidden, 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


class Weights:
    """The tensors of a state dict in float64."""

    def __init__(self, state, words):
        self.state = {name: np.asarray(value, dtype=np.float64) for name, value in state.items()}
        self.start, self.stop, self.pad, self.unknown = range(words, words + 4)

    def linear(self, name, x):
        return self.state[f"{name}.weight"] @ x + self.state[f"{name}.bias"]


def begin(weights, v):
    pooled = v.mean(0)
    return np.tanh(weights.linear("init_h.0", pooled)), np.tanh(weights.linear("init_c.0", pooled))


def step(weights, v, token, h, c):
    """log p of the next token, h, c and the attention, for features v (k, D)."""
    query = weights.linear("attend.query_to_hidden", h)
    energy = [
        float(weights.linear("attend.output.0", np.tanh(query + weights.linear("attend.key_to_hidden", one)))[0])
        for one in v
    ]
    attention = softmax(np.array(energy))
    context = sum(a * one for a, one in zip(attention, v, strict=True))
    gate = sigmoid(weights.linear("feature_gate.0", h))
    x = np.concatenate([weights.state["embedding.weight"][token], gate * context])
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    h, c = lstm(*(weights.state[f"lstm.{name}"] for name in names), x, h, c)
    return log_softmax(weights.linear("output.1", h)), h, c, attention


def follow(weights, v, tokens):
    """log p (T, n) and attention (T, k) at every step of a given caption."""
    h, c = begin(weights, v)
    predicted, attentions = [], []
    for before in [weights.start, *tokens][: len(tokens)]:
        log_p, h, c, attention = step(weights, v, before, h, c)
        predicted.append(log_p)
        attentions.append(attention)
    return np.array(predicted), np.array(attentions)


def follow_language(weights, tokens, layers=2):
    """log p_lm (T, n) at every step of a given caption."""
    size = weights.state["lm.lstm.weight_hh_l0"].shape[1]
    states = [(np.zeros(size), np.zeros(size)) for _ in range(layers)]
    predicted = []
    for before in [weights.start, *tokens][: len(tokens)]:
        x = weights.state["lm.embedding.weight"][before]
        for n in range(layers):
            names = (f"weight_ih_l{n}", f"weight_hh_l{n}", f"bias_ih_l{n}", f"bias_hh_l{n}")
            states[n] = lstm(*(weights.state[f"lm.lstm.{name}"] for name in names), x, *states[n])
            x = states[n][0]
        predicted.append(log_softmax(weights.linear("lm.output.0", x)))
    return np.array(predicted)


def until_stop(tokens, stop):
    tokens = list(tokens)
    return tokens[: tokens.index(stop) + 1] if stop in tokens else tokens


def score(predicted, tokens, stop):
    """Sum of predicted (T, n) at the tokens up to the first stop, and that."""
    return sum(predicted[t][token] for t, token in enumerate(until_stop(tokens, stop)))


def weigh(weights, v, tokens, weight):
    """Scores (T, n) of the words at every step of a caption: log p - weight log p_lm."""
    predicted, _ = follow(weights, v, tokens)
    return predicted - weight * follow_language(weights, tokens) if weight else predicted


def greedy(weights, v, length, weight=0.0):
    tokens = []
    while len(tokens) < length and weights.stop not in tokens:
        tokens.append(int(weigh(weights, v, [*tokens, 0], weight)[-1].argmax()))
    return tokens


def beam(weights, v, width, length, weight=0.0):
    """Captions and their scores, best first: every continuation of every caption is scored from its first word on."""
    kept = [([], 0.0)]
    for _ in range(length):
        found = []
        for tokens, total in kept:
            if weights.stop in tokens:
                found.append(([*tokens, weights.stop], total))
                continue
            each = weigh(weights, v, [*tokens, 0], weight)[-1]
            best = np.argsort(-each, kind="stable")[:width]
            found += [([*tokens, int(word)], total + each[word]) for word in best]
        kept = sorted(found, key=lambda one: -one[1])[:width]
        if all(weights.stop in tokens for tokens, _ in kept):
            break
    return kept


def rerank(weights, kept, weight, published=False):
    """Scores of a beam's captions by PMI; the published ones count the stop that follows the stop."""
    scores = []
    for tokens, total in kept:
        predicted = follow_language(weights, tokens)
        prior = score(predicted, tokens, weights.stop)
        end = len(until_stop(tokens, weights.stop))
        if published and end < len(tokens):
            prior += predicted[end][weights.stop]
        scores.append(total - weight * prior)
    return scores
