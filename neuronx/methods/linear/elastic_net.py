"""The elastic net, solved exactly for all units together on the moments of the images.

With concepts x and units y standardised by the means and the unbiased deviations of the train images, the criterion of
a unit, that of GLM-SAGA (Wong, Santurkar and Madry 2021) with the constants of Linear Explanations, is

    1/(2n) sum_i (y_i - w.x_i)^2 + l1 |w|_1 + l2/2 |w|_2^2      with l1 = lam, l2 = lam (1 - alpha) / alpha.

It depends on the images only through G = X'X/n and q = X'y/n. Few concepts matter to a unit, so each round takes the
concepts that violate optimality most into the unit's block, solves the block and looks again, until the residual of the
optimality conditions over all concepts is below the tolerance. Units that are done drop out.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from neuronx.methods.linear.moments import ConceptMoments
from neuronx.progress import progress

_GROWTH = 12  # Concepts that may enter a unit's block in one round, at least.
_SWEEPS = 4  # Sweeps of coordinate descent between two tries at the direct solution.
_UNITS = 256  # Units solved together.
_EQUAL = 1e-8  # Differences in rank that are none.
_STILL = 1e-15  # Smallest relative change of the largest weight that is one; less is rounding, and as good as it gets.
_CHUNK = 2**22  # Largest number of float64 in the blocks held at once: 32 MiB.


@dataclass(frozen=True)
class ElasticNet:
    """The elastic net problems of K units that share C concepts, in standardised coordinates.

    Attributes:
        gram: (C, C) float64, X'X/n; zero rows and columns for concepts that never change, which get no weight.
        cross: (K, C) float64, y'X/n; zero rows for units that never change.
        squares: (K,) float64, y'y/n.
        l1: Weight of the absolute values.
        l2: Weight of half the squares.
    """

    gram: Tensor
    cross: Tensor
    squares: Tensor
    l1: float
    l2: float


def standardised(moments: ConceptMoments, lam: float = 0.05, alpha: float = 0.99) -> ElasticNet:
    """The problem of the published criterion on the train moments; `lam` > 0, `alpha` in (0, 1] is the share of L1."""
    n = moments.count
    x, y = (
        torch.where(live, ((n - 1) / squares).sqrt(), 0.0)
        for live, squares in (
            (moments.live_concepts, moments.gram.diagonal()),
            (moments.live_units, moments.squares),
        )
    )
    gram = moments.gram * (x / n)
    gram *= x[:, None]
    cross = moments.cross.T * y[:, None]
    cross *= x / n
    return ElasticNet(gram, cross, moments.squares * y.square() / n, lam, lam / alpha * (1 - alpha))


def solve(problem: ElasticNet, tolerance: float = 1e-8) -> tuple[Tensor, Tensor]:
    """Solves all units.

    Args:
        problem: K units, C concepts.
        tolerance: Bound on the residual of the optimality conditions of every unit; see `kkt_residual`.

    Returns:
        Weights (K, C) float64 in standardised coordinates, most of them exactly 0, and the correlations (K, C) of the
        concepts with what the weights leave over, X'(y - Xw)/n.
    """
    weights, left = torch.zeros_like(problem.cross), torch.zeros_like(problem.cross)
    for start in progress(range(0, len(weights), _UNITS), "fitting weights"):
        part = slice(start, start + _UNITS)
        mine = replace(problem, cross=problem.cross[part], squares=problem.squares[part])
        weights[part], left[part] = _solve_some(mine, tolerance)
    return weights, left


def _solve_some(problem: ElasticNet, tolerance: float) -> tuple[Tensor, Tensor]:
    weights, left = torch.zeros_like(problem.cross), problem.cross.clone()
    l1, l2 = problem.l1, problem.l2
    violation = violations(weights, left, l1, l2)
    todo = (violation.amax(1) > tolerance).nonzero().squeeze(1)
    while len(todo):
        used = weights[todo] != 0
        width = min(int(1.5 * used.sum(1).max()) + _GROWTH, used.shape[1])
        moved = torch.zeros_like(todo, dtype=torch.bool)
        blocks = violation[todo].masked_fill(used, torch.inf).topk(width, dim=1).indices
        for part in torch.arange(len(todo), device=todo.device).split(max(1, _CHUNK // width**2)):
            units, block = todo[part], blocks[part]
            gram = problem.gram[block[:, :, None], block[:, None, :]]
            cross, before = problem.cross[units], weights[units]
            found = _solve_blocks(gram, cross.gather(1, block), before.gather(1, block), l1, l2, tolerance / 2)
            weights[units] = before.scatter(1, block, found)
            moved[part] = (weights[units] - before).abs().amax(1) > _STILL * found.abs().amax(1)
            left[units] = cross - embedding_bag(block, problem.gram, mode="sum", per_sample_weights=found)
        violation[todo] = violations(weights[todo], left[todo], l1, l2)
        todo = todo[moved & (violation[todo].amax(1) > tolerance)]
    return weights, left


def _solve_blocks(gram: Tensor, cross: Tensor, weights: Tensor, l1: float, l2: float, tolerance: float) -> Tensor:
    # (k, m, m), (k, m), (k, m) -> (k, m). Coordinate descent finds the signs; given the signs the rest is linear.
    found = weights.clone()
    todo = torch.arange(len(gram), device=gram.device)
    while len(todo):
        before = weights
        weights = _walk(gram, cross, _descend(gram, cross, weights, l1, l2), l1, l2)
        left = cross - (gram @ weights[:, :, None]).squeeze(2)
        moved = (weights - before).abs().amax(1) > _STILL * weights.abs().amax(1)
        open_ = moved & (violations(weights, left, l1, l2).amax(1) > tolerance)
        found[todo] = weights
        todo, gram, cross, weights = todo[open_], gram[open_], cross[open_], weights[open_]
    return found


def _walk(gram: Tensor, cross: Tensor, weights: Tensor, l1: float, l2: float) -> Tensor:
    # Goes to the best weights with the signs given. Where a weight would change its sign on the way, it is set to 0
    # there and the rest walks on, as in the feature-sign search of Lee et al. (2007): downhill all the way.
    result = weights.clone()
    todo = torch.arange(len(gram), device=gram.device)
    while len(todo):
        goal = _given_signs(gram, cross, weights.sign(), l1, l2)
        crosses = (weights != 0) & (goal.sign() != weights.sign())
        way = torch.where(crosses, weights / (weights - goal), torch.inf)
        step = way.amin(1, keepdim=True).clamp(max=1)
        weights = torch.where(way == step, 0.0, torch.where(step == 1, goal, weights + step * (goal - weights)))
        good = weights.isfinite().all(1)
        result[todo[good]] = weights[good]
        on = good & crosses.any(1)
        todo, gram, cross, weights = todo[on], gram[on], cross[on], weights[on]
    return result


def _descend(gram: Tensor, cross: Tensor, weights: Tensor, l1: float, l2: float) -> Tensor:
    weights = weights.T.contiguous()  # (m, k): a coordinate of all units lies together
    columns = gram.permute(1, 2, 0).contiguous()  # (m, m, k)
    diagonal = gram.diagonal(dim1=1, dim2=2).T.contiguous()
    left = cross.T - (columns * weights).sum(1)
    for _ in range(_SWEEPS):
        for j in range(len(weights)):
            z = left[j] + diagonal[j] * weights[j]
            new = torch.nn.functional.softshrink(z, l1) / (diagonal[j] + l2)
            left -= columns[j] * (new - weights[j])
            weights[j] = new
    return weights.T


def _given_signs(gram: Tensor, cross: Tensor, sign: Tensor, l1: float, l2: float) -> Tensor:
    # Solves (G + l2) w = q - l1 sign on the support of each unit; elsewhere the equation is w = 0.
    on = sign != 0
    inside = on[:, :, None] & on[:, None, :]
    matrix = torch.where(inside, gram, 0.0)
    # Pure L1 may leave a face without a lowest point; this much L2 gives it one, far below the tolerance.
    matrix.diagonal(dim1=1, dim2=2).add_(max(l2, 1e-10)).masked_fill_(~on, 1.0)
    solution, _ = torch.linalg.solve_ex(matrix, torch.where(on, cross - l1 * sign, 0.0))
    return solution * on


def violations(weights: Tensor, left: Tensor, l1: float, l2: float) -> Tensor:
    """By how much each weight (K, C) misses its optimality condition; below 0 where one without weight is far from any.

    Args:
        weights: (K, C).
        left: (K, C), correlations of the concepts with what the weights leave over, X'(y - Xw)/n.
        l1: Weight of the absolute values.
        l2: Weight of half the squares.
    """
    slope = left - l2 * weights
    return torch.where(weights != 0, (slope - l1 * weights.sign()).abs(), slope.abs() - l1)


def kkt_residual(problem: ElasticNet, weights: Tensor) -> Tensor:
    """(K,): by how much each unit's weights (K, C) miss the optimality conditions; 0 at the solution.

    The largest over the concepts of |r - l1 sign w| where w is not 0 and of max(|r| - l1, 0) where it is, with
    r = X'(y - Xw)/n - l2 w, the descent direction of the smooth part.
    """
    left = problem.cross - weights @ problem.gram
    return violations(weights, left, problem.l1, problem.l2).amax(1).clamp(min=0)


def objective(problem: ElasticNet, weights: Tensor) -> Tensor:
    """(K,): the criterion of each unit at weights (K, C)."""
    fit = ((weights @ problem.gram - 2 * problem.cross) * weights).sum(1) + problem.squares
    return 0.5 * fit + problem.l1 * weights.abs().sum(1) + 0.5 * problem.l2 * weights.square().sum(1)


def ranking(weights: Tensor, left: Tensor, length: int) -> Tensor:
    """Orders the concepts of each unit, best first: by signed weight, concepts without weight by what they could add.

    Sorts by w + X'(y - Xw)/n, the point that soft thresholding maps to w: it grows with w where w is not 0, and is the
    correlation with the rest of the unit, between -l1 and l1, where it is.

    Args:
        weights: (K, C) of `solve`.
        left: (K, C) of `solve`.
        length: Number of concepts wanted.

    Returns:
        (K, min(length, C)) int64.
    """
    size = weights.shape[1]
    key = ((weights + left).double() / _EQUAL).round()
    key -= torch.arange(size, device=key.device) / (2 * size)  # equal ones keep their own order, whatever the rounding
    return key.topk(min(length, size), dim=1).indices
