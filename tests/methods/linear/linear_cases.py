"""Planted units: every one is 0.3 plus a few concepts plus noise, and we know which."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from neuronx.methods.linear.moments import ConceptMoments, moments


@dataclass(frozen=True)
class Case:
    scores: Tensor  # (N, C) float32
    values: Tensor  # (N, K) float32
    weights: Tensor  # (K, C)
    train: Tensor
    val: Tensor
    test: Tensor

    def moments(self, split: str, size: int = 1024) -> ConceptMoments:
        rows = getattr(self, split)
        return moments((self.scores[part], self.values[part]) for part in rows.split(size))

    def arrays(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        rows = getattr(self, split)
        return self.scores[rows].double().numpy(), self.values[rows].double().numpy()


def planted(images=900, concepts=40, units=12, noise=0.5, seed=0) -> Case:
    """Correlated concepts in [0, 1], mostly near 0, and units of one to three of them."""
    chance = np.random.default_rng(seed)
    topics = chance.standard_normal((images, 8)) @ chance.standard_normal((8, concepts)) / 3
    scores = 1 / (1 + np.exp(-4 * (topics + chance.standard_normal((images, concepts)) - 1.2)))
    weights = np.zeros((units, concepts))
    for k in range(units):
        ids = chance.choice(concepts, chance.integers(1, 4), replace=False)
        weights[k, ids] = chance.uniform(0.8, 3, len(ids))
    signal = scores.astype(np.float32) @ weights.T
    values = 0.3 + signal + noise * signal.std(0) * chance.standard_normal(signal.shape)
    order = torch.from_numpy(chance.permutation(images))
    a, b = int(0.7 * images), int(0.8 * images)
    return Case(
        torch.from_numpy(scores.astype(np.float32)),
        torch.from_numpy(values.astype(np.float32)),
        torch.from_numpy(weights),
        *(part.sort().values for part in (order[:a], order[a:b], order[b:])),
    )
