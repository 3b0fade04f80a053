"""Hartigan's dip as it is defined: a linear program for each place of the mode."""

import numpy as np
from scipy.optimize import linprog


def smallest_distance(sample: np.ndarray) -> float:
    """Of the empirical distribution of n different numbers from a distribution that is convex, then concave."""
    x = np.sort(sample)
    return min(_with_mode_at(x, k) for k in range(len(x)))


def _with_mode_at(x: np.ndarray, k: int) -> float:
    """Unknown are the distribution at x_0 to x_k, from the left, at x_k to x_n, from the right, and the distance."""
    n = len(x)
    columns, at_most = [], []

    def add(terms: dict[int, float], bound: float) -> None:
        row = np.zeros(n + 2)
        for column, weight in terms.items():
            row[column] += weight
        columns.append(row)
        at_most.append(bound)

    at = {**{("left", i): i for i in range(k + 1)}, **{("right", i): i + 1 for i in range(k, n)}}
    for (side, i), column in at.items():
        before, after = i / n, (i + 1) / n
        if i == k:
            before = after = before if side == "left" else after
        add({column: 1, n + 1: -1}, before)
        add({column: -1, n + 1: -1}, -after)
    for column in range(n):
        add({column: 1, column + 1: -1}, 0)
    for i in range(1, n - 1):
        if i != k:
            column = at["left" if i < k else "right", i]
            up, down = (1 if i < k else -1) / (x[i] - x[i - 1]), (1 if i < k else -1) / (x[i + 1] - x[i])
            add({column: up + down, column - 1: -up, column + 1: -down}, 0)
    cost = np.zeros(n + 2)
    cost[-1] = 1
    return float(linprog(cost, A_ub=np.array(columns), b_ub=at_most, bounds=[(0, 1)] * (n + 2)).fun)
