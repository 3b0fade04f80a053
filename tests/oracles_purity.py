"""Distances inside and between clusters, and their correlations, pair by pair."""

import math

import numpy as np


def separation(points: np.ndarray, labels: np.ndarray) -> tuple[float, float, float]:
    """Intra, inter and overall of one unit's points (m, D) with labels (m,)."""
    intra, inter = [], []
    for i, a in enumerate(points):
        for j, b in enumerate(points):
            if i != j and labels[i] >= 0 and labels[j] >= 0:
                (intra if labels[i] == labels[j] else inter).append(math.dist(a, b))
    mean = [sum(some) / len(some) if some else None for some in (intra, inter, intra + inter)]
    if mean[2] is None:
        return math.nan, math.nan, math.nan
    return (
        mean[1] if mean[0] is None else mean[0],
        mean[0] if mean[1] is None else mean[1],
        mean[2],
    )


def correlation(a: list[np.ndarray], b: list[np.ndarray]) -> float:
    """Of the distances between points of units (m, D) in two spaces, over the pairs of all of them together."""
    x, y = [], []
    for one, other in zip(a, b, strict=True):
        for i in range(len(one)):
            for j in range(len(one)):
                both = math.dist(one[i], one[j]), math.dist(other[i], other[j])
                if i != j and both[0] * both[1] != 0:
                    x.append(both[0])
                    y.append(both[1])
    return float(np.corrcoef(x, y)[0, 1])
