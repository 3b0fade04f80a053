import oracles_linear as oracle
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from linear_cases import planted

from neuronx.methods.linear.elastic_net import ranking, solve, standardised
from neuronx.methods.linear.moments import moments
from neuronx.methods.linear.search import fit, forward, greedy, top

CASE = planted()
TRAIN, VAL = CASE.moments("train"), CASE.moments("val")
RANK = ranking(*solve(standardised(TRAIN)), 40)

SEARCHES = {
    "greedy": lambda train, val: greedy(train, val, ranking(*solve(standardised(train)), 40)),
    "forward": forward,
    "top": lambda train, val: top(train, val, ranking(*solve(standardised(train)), 40)),
}


def names(found, k):
    return [c for c in found.chosen[k].tolist() if c >= 0]


def check_against(chosen, found, k):
    """The k-th formula has the chosen concepts in order, with their least squares weights and val correlation."""
    assert names(found, k) == chosen
    (X, Y), (V, U) = CASE.arrays("train"), CASE.arrays("val")
    weights, bias = oracle.least_squares(X, Y[:, k], chosen)
    torch.testing.assert_close(found.weights[k, : len(chosen)], torch.from_numpy(weights), rtol=1e-7, atol=1e-9)
    assert float(found.bias[k]) == pytest.approx(bias, rel=1e-6, abs=1e-9)
    expected = oracle.val_correlation(X, Y[:, k], V, U[:, k], chosen)
    assert float(found.correlation[k]) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("max_length", "tolerance", "width"), [(10, 0.02, 10), (3, 0.0, 4), (6, -1.0, 2), (2, 0.02, 1)]
)
def test_greedy_is_the_published_search(max_length, tolerance, width):
    found = greedy(TRAIN, VAL, RANK, max_length=max_length, tolerance=tolerance, width=width)
    (X, Y), (V, U) = CASE.arrays("train"), CASE.arrays("val")
    for k in range(Y.shape[1]):
        chosen = oracle.greedy(X, Y[:, k], V, U[:, k], RANK[k].tolist(), max_length, tolerance, width)
        check_against(chosen, found, k)


@pytest.mark.parametrize(("max_length", "tolerance"), [(4, 0.003), (3, -1.0), (4, 0.05)])
def test_forward_is_forward_selection(max_length, tolerance):
    found = forward(TRAIN, VAL, max_length=max_length, tolerance=tolerance)
    (X, Y), (V, U) = CASE.arrays("train"), CASE.arrays("val")
    for k in range(0, Y.shape[1], 3):
        check_against(oracle.forward(X, Y[:, k], V, U[:, k], max_length, tolerance), found, k)


@pytest.mark.parametrize("length", [1, 4])
def test_top_are_the_first_in_rank(length):
    found = top(TRAIN, VAL, RANK, length=length)
    for k in range(12):
        check_against(RANK[k, :length].tolist(), found, k)


@pytest.mark.parametrize("search", ["greedy", "forward"])
def test_planted_concepts_are_found(search):
    case = planted(images=2000, noise=0.3, seed=5)
    found = SEARCHES[search](case.moments("train"), case.moments("val"))
    for k in range(12):
        truth = set(case.weights[k].nonzero().flatten().tolist())
        assert set(names(found, k)) == truth
        weights = torch.zeros(40, dtype=torch.float64).scatter(0, found.chosen[k].clamp(min=0), found.weights[k])
        torch.testing.assert_close(weights[list(truth)], case.weights[k][list(truth)], rtol=0.15, atol=0.05)
        assert float(found.bias[k]) == pytest.approx(0.3, abs=0.1)


def test_golden_values():
    """Taken from the oracles of this case."""
    golden = {"greedy": 0.89648814298618, "forward": 0.89798113485602, "top": 0.89567954218747}
    for name, search in SEARCHES.items():
        assert float(search(TRAIN, VAL).correlation.mean()) == pytest.approx(golden[name], abs=1e-9)


@pytest.mark.parametrize("max_length", [1, 2, 3])
def test_the_concepts_are_the_chosen_not_the_last_tried(max_length):
    """Defect B1: at full length, or with few concepts, the published search returns the last candidate tried."""
    scores, values = CASE.scores[:, :4], CASE.scores[:, [0]] + 0.5 * CASE.scores[:, [2]]
    train, val = (moments([(scores[rows], values[rows])]) for rows in (CASE.train, CASE.val))
    found = greedy(train, val, torch.tensor([[0, 2, 1, 3]]), max_length=max_length, tolerance=0.0)
    assert names(found, 0)[:2] == [0, 2][:max_length]
    assert float(found.correlation) == pytest.approx(1.0 if max_length > 1 else float(found.correlation), abs=1e-9)


@pytest.mark.parametrize("search", SEARCHES)
def test_units_that_never_change_are_inactive_and_touch_nobody(search):
    """Defects B2 and B3."""
    values = CASE.values.clone()
    values[:, 4] = 0.75
    train, val = (moments([(CASE.scores[rows], values[rows])]) for rows in (CASE.train, CASE.val))
    found, whole = SEARCHES[search](train, val), SEARCHES[search](TRAIN, VAL)
    assert names(found, 4) == [] and not found.weights[4].any()
    assert float(found.bias[4]) == pytest.approx(0.75)
    assert float(found.correlation[4]) == 0
    others = torch.arange(12) != 4
    assert torch.equal(found.chosen[others], whole.chosen[others])
    torch.testing.assert_close(found.weights[others], whole.weights[others])


@pytest.mark.parametrize("search", SEARCHES)
def test_a_unit_without_positive_correlation_is_explained_all_the_same(search):
    """Defect B3: on val the unit goes against everything that it goes with on train; or it does not change there."""
    for on_val in (-CASE.values, torch.full_like(CASE.values, 2.0)):
        train = TRAIN
        val = moments([(CASE.scores[CASE.val], on_val[CASE.val])])
        found = SEARCHES[search](train, val)
        for k in range(12):
            assert len(names(found, k)) >= 1
        assert found.weights.isfinite().all() and found.correlation.isfinite().all()


@pytest.mark.parametrize("search", SEARCHES)
def test_concepts_constant_on_train_are_never_chosen(search):
    scores = CASE.scores.clone()
    strongest = int(CASE.weights[0].argmax())
    scores[CASE.train, strongest] = 0.5
    train, val = (moments([(scores[rows], CASE.values[rows])]) for rows in (CASE.train, CASE.val))
    found = SEARCHES[search](train, val)
    assert not (found.chosen == strongest).any()
    assert found.weights.isfinite().all() and found.correlation.isfinite().all()


@pytest.mark.parametrize("search", SEARCHES)
def test_concepts_constant_on_val_do_no_harm(search):
    scores = CASE.scores.clone()
    scores[CASE.val, int(CASE.weights[0].argmax())] = 0.5
    train, val = (moments([(scores[rows], CASE.values[rows])]) for rows in (CASE.train, CASE.val))
    found = SEARCHES[search](train, val)
    assert found.weights.isfinite().all() and found.correlation.isfinite().all()


@pytest.mark.parametrize("search", SEARCHES)
def test_equal_and_dependent_concepts_are_chosen_once(search):
    scores = torch.cat([CASE.scores, CASE.scores, CASE.scores[:, :1] + CASE.scores[:, 1:2]], 1)
    train, val = (moments([(scores[rows], CASE.values[rows])]) for rows in (CASE.train, CASE.val))
    found = SEARCHES[search](train, val)
    for k in range(12):
        chosen = [c % 40 for c in names(found, k) if c < 80]
        assert len(set(chosen)) == len(chosen)
    assert found.weights.isfinite().all() and found.weights.abs().max() < 1e3


@pytest.mark.parametrize("search", SEARCHES)
def test_rounding_does_not_choose_between_equal_concepts(search):
    """Images in another order change the last bits only; opposites and copies explain exactly as much."""
    some = (CASE.scores[:, :12] > 0.5).float()
    scores = torch.cat([some, 1 - some, some], 1)
    values = CASE.values + 2 * some[:, :1] - some[:, 1:2]
    chance = torch.Generator().manual_seed(0)
    found = []
    for _ in range(6):
        order = [rows[torch.randperm(len(rows), generator=chance)] for rows in (CASE.train, CASE.val)]
        train, val = (moments((scores[i], values[i]) for i in rows.split(100)) for rows in order)
        found.append(SEARCHES[search](train, val))
    assert all(torch.equal(one.chosen, found[0].chosen) for one in found)
    for one in found:
        torch.testing.assert_close(one.weights, found[0].weights, rtol=1e-10, atol=1e-10)


def test_of_a_concept_and_its_opposite_forward_takes_the_one_that_goes_along():
    some = (CASE.scores[:, :3] > 0.5).float()
    scores = torch.cat([some, 1 - some], 1)
    values = torch.cat([some[:, 1:2], -some[:, 1:2]], 1)
    train, val = (moments([(scores[rows], values[rows])]) for rows in (CASE.train, CASE.val))
    found = forward(train, val)
    assert names(found, 0) == [1] and names(found, 1) == [4]


@settings(max_examples=8, deadline=None)
@given(st.sampled_from(sorted(SEARCHES)), st.permutations(range(12)), st.floats(1e-3, 1e3), st.floats(-5, 5))
def test_units_are_explained_one_by_one_whatever_their_scale(search, order, scale, offset):
    order = torch.tensor(order)
    values = CASE.values[:, order].double() * scale + offset
    train, val = (moments([(CASE.scores[rows], values[rows])]) for rows in (CASE.train, CASE.val))
    found, plain = SEARCHES[search](train, val), SEARCHES[search](TRAIN, VAL)
    assert torch.equal(found.chosen, plain.chosen[order])
    torch.testing.assert_close(found.weights, plain.weights[order] * scale, rtol=1e-6, atol=1e-9 * scale)
    torch.testing.assert_close(found.bias, plain.bias[order] * scale + offset, rtol=1e-6, atol=1e-6 * scale)


def test_positive_forward_takes_only_what_goes_together():
    values = -CASE.scores[:, :1] + 0.2 * CASE.values[:, :1]
    train, val = (moments([(CASE.scores[rows], values[rows])]) for rows in (CASE.train, CASE.val))
    assert (forward(train, val, max_length=1).weights < 0).all()
    assert (forward(train, val, max_length=1, positive=True).weights > 0).all()


def test_a_formula_may_be_shorter_than_the_others():
    found = fit(TRAIN, VAL, torch.tensor([[0, -1, -1], [3, 5, 7]] * 6))
    check_against([0], found, 0)
    check_against([3, 5, 7], found, 1)
