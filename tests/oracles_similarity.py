"""The similarity functions as plainly as their formulas, unit by unit, in float64. Slow."""

import numpy as np
import torch

from neuronx.recording.tally import lots


def top(t, k):
    """The k largest, of equal ones by lot."""
    drawn = lots(torch.arange(len(t)), torch.tensor(0)).numpy()
    return np.lexsort((drawn, -t))[:k]


def softmax(x):
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def less_prior(L, lam):
    return L - lam * (np.logaddexp.reduce(L, axis=0) - np.log(len(L)))


def cos_similarity(P, T):
    S = np.empty((T.shape[1], P.shape[1]))
    for k, t in enumerate(T.T):
        for c, p in enumerate(P.T):
            S[k, c] = t @ p / np.sqrt((t @ t) * (p @ p))
    return S


def cos_similarity_cubed(P, T, min_norm=1e-3):
    def prepared(x):
        x = (x - x.mean()) ** 3
        return x / max(np.sqrt(x @ x), min_norm)

    return np.array([[prepared(t) @ prepared(p) for p in P.T] for t in T.T])


def rank_reorder(P, T, p=3, top_fraction=0.05, scale_p=0.5):
    n = int(len(P) * top_fraction)
    S = np.empty((T.shape[1], P.shape[1]))
    for k in range(T.shape[1]):
        rows = top(T[:, k], n)
        t = T[rows, k]
        s = t[::-1]
        b = np.mean([[abs(x - y) ** p for x in t] for y in t])
        for c in range(P.shape[1]):
            g = P[rows, c]
            rank = np.argsort(np.argsort(g, kind="stable"), kind="stable")
            S[k, c] = -(np.mean(np.abs(t - s[rank]) ** p) / b) / max(g.mean(), 1e-3) ** scale_p
    return S


def wpmi(P, T, top_k=28, a=2, lam=0.6, min_prob=1e-7):
    Q = softmax(a * P)
    L = np.array([np.log(Q[top(t, top_k)] + min_prob).sum(0) for t in T.T])
    return less_prior(L, lam)


def soft_wpmi(P, T, top_k=100, a=10, lam=1, p_start=0.998, p_end=0.97, min_prob=1e-7):
    Q = softmax(a * P)
    w = np.array([p_start - j / top_k * (p_start - p_end) for j in range(top_k)])
    L = np.array([np.log(1 + w[:, None] * (Q[top(t, top_k)] - 1) + min_prob).sum(0) for t in T.T])
    return less_prior(L, lam)
