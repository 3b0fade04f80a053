"""The published searches among the concepts that the elastic net ranks first, for all units at once.

Every candidate of every unit is tried in closed form: with the inverse of the Gram block of the concepts chosen so far,
one more concept costs a Schur complement, not a fit.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from neuronx.methods.linear.moments import ConceptMoments
from neuronx.progress import progress

COLLINEAR = 1e-9
"""A concept is a combination of others when they explain all but this share of it."""


@dataclass(frozen=True)
class FoundFormulas:
    """For each of K units, activation ~ bias + sum of weight times concept, with at most L terms.

    Attributes:
        chosen: (K, L) int64 columns of the concepts in the order of choice, -1 where a formula has fewer terms; all -1
            for a unit that never changes.
        weights: (K, L) float64, 0 where there is no term.
        bias: (K,) float64; the mean for a unit that never changes.
        correlation: (K,) float64, of formula and unit on the val images; 0 where either never changes.
    """

    chosen: Tensor
    weights: Tensor
    bias: Tensor
    correlation: Tensor


def fit(train: ConceptMoments, val: ConceptMoments, chosen: Tensor) -> FoundFormulas:
    """Fits each unit to its chosen concepts (K, L) by least squares on train. The chosen must not be collinear."""
    weights = least_squares(train, chosen)
    there = chosen >= 0
    bias = train.unit_mean - (train.concept_mean[chosen.clamp(min=0)] * weights).sum(1)
    return FoundFormulas(torch.where(there, chosen, -1), weights, bias, correlation(val, chosen, weights))


def least_squares(train: ConceptMoments, chosen: Tensor) -> Tensor:
    """Weights (K, L) of the least squares fit of each unit to its chosen concepts (K, L); 0 where chosen is -1."""
    there, index = chosen >= 0, chosen.clamp(min=0)
    gram = train.gram[index[:, :, None], index[:, None, :]]
    gram = torch.where(there[:, :, None] & there[:, None, :], gram, 0.0)
    scale = torch.where(there, gram.diagonal(dim1=1, dim2=2), 1.0).rsqrt()
    gram = gram * scale[:, :, None] * scale[:, None, :]  # rare and common concepts on one scale
    gram.diagonal(dim1=1, dim2=2).masked_fill_(~there, 1.0)
    cross = torch.where(there, of_own_unit(train.cross, index), 0.0)
    return torch.linalg.solve(gram, cross * scale) * scale


def correlation(val: ConceptMoments, chosen: Tensor, weights: Tensor) -> Tensor:
    """(K,) correlation of each formula (chosen (K, L), weights (K, L)) with its unit; 0 where either never changes."""
    index = chosen.clamp(min=0)
    covariance = (of_own_unit(val.cross, index) * weights).sum(1)
    gram = val.gram[index[:, :, None], index[:, None, :]]
    variance = torch.einsum("ki,kij,kj->k", weights, gram, weights)
    return pearson(covariance, variance, val.squares)


def pearson(covariance: Tensor, variance: Tensor, squares: Tensor) -> Tensor:
    """Correlation from centred sums of products and squares; 0 where one of the two never changes."""
    norm = (variance.clamp(min=0) * squares).sqrt()
    return torch.where(norm > 0, covariance / norm, 0.0).clamp(-1, 1)


def of_own_unit(cross: Tensor, index: Tensor) -> Tensor:
    """Takes from (C, K) the entries of each unit's own concepts (K, L): result[k, l] = cross[index[k, l], k]."""
    return cross[index, torch.arange(cross.shape[1], device=cross.device)[:, None]]


_ENTRIES = 2**18  # Largest number of float64 in an array of units times concepts: 2 MiB stay near the processor.
_EQUAL_GAINS = (
    1e-6  # Gains that differ by no more than this share are equal, and rounding must not choose between them.
)


def forward(
    train: ConceptMoments,
    val: ConceptMoments,
    *,
    max_length: int = 10,
    tolerance: float = 0.003,
    positive: bool = False,
) -> FoundFormulas:
    """Chooses, one by one, the concept that explains most of what the others leave over on the train images.

    The val images decide only the length: the formula ends where its correlation on val, less `tolerance` for each
    term, is largest. (Choosing the concepts by val as well picks what fits its few images by chance.) Every unit that
    changes gets at least one concept. Of concepts that explain equally much, such as a concept and its opposite, the
    first that goes together with what is left over is chosen, or else the first.

    Concepts are kept orthogonal to the chosen ones, which on the Gram matrix is its Cholesky factorisation with the
    concepts as pivots: a step costs a unit one row of C entries, not C least squares fits.

    Args:
        train: ConceptMoments of the train images, for choosing and fitting.
        val: ConceptMoments of the val images, for the length.
        max_length: Largest number of terms L.
        tolerance: Gain in correlation on val that is worth a term.
        positive: Choose only concepts that go together with what is left over, never against it.
    """
    chosen = torch.full((len(train.unit_mean), max_length), -1, device=train.gram.device)
    parts = train.live_units.nonzero().squeeze(1).split(max(1, _ENTRIES // len(train.gram)))
    for units in progress(parts, "searching terms"):
        chosen[units] = _path(train, units, max_length, positive)
    worth = torch.stack([_prefix_correlation(train, val, chosen, n) - tolerance * n for n in range(1, max_length + 1)])
    length = worth.max(0).indices + 1  # the shortest among equals
    return fit(train, val, _prefix(chosen, length[:, None]))


def _path(train: ConceptMoments, units: Tensor, length: int, positive: bool) -> Tensor:
    # (k,) -> (k, length): the concepts in the order of choice, -1 once none is left.
    squares = train.gram.diagonal()
    left = train.cross[:, units].T.contiguous()  # (k, C) covariance of each concept's own part with the unit
    rest = squares.repeat(len(units), 1)  # (k, C) squares of each concept's own part
    least = torch.where(train.live_concepts, COLLINEAR * squares, torch.inf)
    chosen: list[Tensor] = []
    rows: list[Tensor] = []  # (k, C) each, of the Cholesky factor
    for _ in range(length):
        gain = torch.where(rest > least, left.square() / rest, -1.0)
        if positive:
            gain.masked_fill_(left <= 0, -1.0)
        found = gain.amax(1, keepdim=True)
        possible = found > 0
        near = gain >= found * (1 - _EQUAL_GAINS)
        pick = (near.byte() + (near & (left > 0)).byte()).argmax(1, keepdim=True)
        row = train.gram[pick.squeeze(1)]
        for above in rows:
            row.addcmul_(above, above.gather(1, pick), value=-1)
        scale = torch.where(possible, rest.gather(1, pick).rsqrt(), 0.0)
        row *= scale
        left.addcmul_(row, left.gather(1, pick) * scale, value=-1)
        rest.addcmul_(row, row, value=-1)
        rows.append(row)
        chosen.append(torch.where(possible, pick, -1))
    return torch.cat(chosen, 1)


def _prefix(chosen: Tensor, length: int | Tensor) -> Tensor:
    return torch.where(torch.arange(chosen.shape[1], device=chosen.device) < length, chosen, -1)


def _prefix_correlation(train: ConceptMoments, val: ConceptMoments, chosen: Tensor, length: int) -> Tensor:
    first = chosen[:, :length]
    return correlation(val, first, least_squares(train, first))


_EQUAL = 1e-8  # Correlations that differ by less are equal, and rounding must not choose between them.


@dataclass(frozen=True)
class _Trial:
    """What k units become when one of w candidates joins their r chosen concepts.

    Attributes:
        concepts: (k, w) the candidates.
        shared: (k, r, w) weights with which the chosen concepts make up each candidate.
        rest: (k, w) the candidate's sum of squares that they leave over.
        weight: (k, w) of the candidate.
        weights: (k, r, w) of the chosen beside it.
        possible: (k, w), false where the candidate is a combination of the chosen ones or never changes.
    """

    concepts: Tensor
    shared: Tensor
    rest: Tensor
    weight: Tensor
    weights: Tensor
    possible: Tensor


@dataclass(frozen=True)
class _Growing:
    """Least squares fits of k units to r chosen concepts each, ready to take one more."""

    units: Tensor  # (k,) columns
    chosen: Tensor  # (k, r)
    inverse: Tensor  # (k, r, r) of the Gram block of the chosen
    weights: Tensor  # (k, r)

    @classmethod
    def empty(cls, units: Tensor, like: Tensor) -> "_Growing":
        k = len(units)
        return cls(units, units.new_empty((k, 0)), like.new_empty((k, 0, 0)), like.new_empty((k, 0)))

    def attempt(self, train: ConceptMoments, concepts: Tensor) -> _Trial:
        between = train.gram[self.chosen[:, :, None], concepts[:, None, :]]
        squares = train.gram[concepts, concepts]
        shared = self.inverse @ between
        rest = squares - (between * shared).sum(1)
        possible = rest > COLLINEAR * squares
        left = train.cross[concepts, self.units[:, None]] - (between * self.weights[:, :, None]).sum(1)
        weight = torch.where(possible, left / rest, 0.0)
        return _Trial(concepts, shared, rest, weight, self.weights[:, :, None] - shared * weight[:, None, :], possible)

    def correlations(self, val: ConceptMoments, trial: _Trial) -> Tensor:
        """(k, w) correlations on the val images."""
        unit = self.units[:, None]
        inside = val.gram[self.chosen[:, :, None], self.chosen[:, None, :]]
        between = val.gram[self.chosen[:, :, None], trial.concepts[:, None, :]]
        squares = val.gram[trial.concepts, trial.concepts]
        covariance = (val.cross[self.chosen, unit][:, :, None] * trial.weights).sum(1)
        covariance = covariance + val.cross[trial.concepts, unit] * trial.weight
        variance = (trial.weights * (inside @ trial.weights + 2 * between * trial.weight[:, None, :])).sum(1)
        return pearson(covariance, variance + squares * trial.weight.square(), val.squares[unit])

    def grow(self, trial: _Trial, rows: Tensor, pick: Tensor) -> "_Growing":
        """The units at `rows`, each with its candidate number `pick`."""
        shared = trial.shared[rows, :, pick]
        rest = trial.rest[rows, pick][:, None]
        column = -shared / rest
        top = torch.cat([self.inverse[rows] - column[:, :, None] * shared[:, None, :], column[:, :, None]], 2)
        bottom = torch.cat([column, 1 / rest], 1)[:, None, :]
        return _Growing(
            self.units[rows],
            torch.cat([self.chosen[rows], trial.concepts[rows, pick][:, None]], 1),
            torch.cat([top, bottom], 1),
            torch.cat([trial.weights[rows, :, pick], trial.weight[rows, pick][:, None]], 1),
        )


def greedy(
    train: ConceptMoments,
    val: ConceptMoments,
    ranking: Tensor,
    *,
    max_length: int = 10,
    tolerance: float = 0.02,
    width: int = 10,
) -> FoundFormulas:
    """The published greedy search (Oikarinen and Weng 2024), with least squares solved exactly.

    Each round tries, beside the concepts chosen so far, the `width` concepts ranked highest that were neither chosen
    nor discarded; fits are by least squares on train, judged by their correlation on val. From the second round on, a
    candidate that gains less than `tolerance` is discarded for good; the best of the others is chosen, and where there
    is none the search ends. The best candidate of the first round is chosen even if its correlation is not positive, so
    that every unit that changes is explained. The formula consists of the chosen concepts, never of those tried last.

    Args:
        train: ConceptMoments of the train images, for fitting.
        val: ConceptMoments of the val images, for choosing.
        ranking: (K, M) int64, columns of concepts, best first; M = max_length * width is always enough.
        max_length: Largest number of terms L.
        tolerance: Smallest gain in correlation that is worth a term.
        width: Candidates tried in a round.
    """
    chosen = ranking.new_full((len(ranking), max_length), -1)
    nowhere = ranking.shape[1]
    ranking = torch.cat(
        [ranking, ranking.new_zeros((len(ranking), 1))], 1
    )  # one place more, for "no candidate is left"
    place = torch.arange(nowhere + 1, device=ranking.device)
    fits = _Growing.empty(train.live_units.nonzero().squeeze(1), train.gram)
    free = train.live_concepts[ranking[fits.units]] & (place < nowhere)
    best = train.gram.new_full((len(free), 1), -torch.inf)
    for length in range(max_length):
        places = torch.where(free, place, nowhere).topk(min(width, nowhere), largest=False, sorted=True).values
        trial = fits.attempt(train, ranking[fits.units[:, None], places])
        score = torch.where(trial.possible & (places < nowhere), fits.correlations(val, trial), -torch.inf)
        gain = score - best
        worth = score > -torch.inf if length == 0 else gain >= tolerance
        score = torch.where(worth, score, -torch.inf)
        pick = (score / _EQUAL).round().argmax(1, keepdim=True)  # the first among equals
        best = score.gather(1, pick)
        kept = (trial.possible if length == 0 else worth).scatter(1, pick, False)
        free = free.scatter(1, places, kept & (places < nowhere))
        rows = (best.squeeze(1) > -torch.inf).nonzero().squeeze(1)
        if not len(rows):
            break
        fits, best, free = fits.grow(trial, rows, pick[rows].squeeze(1)), best[rows], free[rows]
        chosen[fits.units, length] = fits.chosen[:, -1]
    return fit(train, val, chosen)


def top(train: ConceptMoments, val: ConceptMoments, ranking: Tensor, *, length: int = 5) -> FoundFormulas:
    """The published search without greedy steps: the first concepts in rank, fitted together by least squares on train.

    Takes the `length` first that change and are no combination of those before them.
    """
    gram = train.gram[ranking[:, :, None], ranking[:, None, :]]  # (K, M, M)
    taken = torch.zeros_like(ranking, dtype=torch.bool)
    rows = torch.zeros_like(gram)  # of the Cholesky factor, 0 for concepts left out
    for j in range(ranking.shape[1]):
        row = gram[:, j] - (rows[:, :j] * rows[:, :j, j, None]).sum(1)
        taken[:, j] = (row[:, j] > COLLINEAR * gram[:, j, j]) & (taken.sum(1) < length) & train.live_units
        rows[:, j] = torch.where(taken[:, j, None], row * row[:, j, None].abs().rsqrt(), 0.0)
    first = taken.int().sort(dim=1, descending=True, stable=True).indices[:, :length]
    chosen = ranking.new_full((len(ranking), length), -1)
    chosen[:, : first.shape[1]] = torch.where(taken, ranking, -1).gather(1, first)
    return fit(train, val, chosen)
