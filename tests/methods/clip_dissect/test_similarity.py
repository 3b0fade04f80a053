import json
from pathlib import Path

import numpy as np
import oracles_similarity as oracle
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuronx.errors import UserError
from neuronx.methods.clip_dissect.similarity import (
    SIMILARITIES,
    cos_similarity,
    cos_similarity_cubed,
    labels,
    rank_reorder,
    soft_wpmi,
    wpmi,
)

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "clip_dissect_similarity.json").read_text())
CASES = {
    "cos_similarity": lambda P, T: cos_similarity(P, T),
    "cos_similarity_cubed": lambda P, T: cos_similarity_cubed(P, T),
    "soft_wpmi_topk4_defaults": lambda P, T: soft_wpmi(P, T, top_k=4),
    "soft_wpmi_topk12_lam0.5_a2": lambda P, T: soft_wpmi(P, T, top_k=12, lam=0.5, a=2),
    "wpmi_topk4_defaults": lambda P, T: wpmi(P, T, top_k=4),
    "rank_reorder_top_fraction0.5_deterministic_expected_baseline": lambda P, T: rank_reorder(P, T, top_fraction=0.5),
}
FEW = {  # options that make sense with few images
    "cos_similarity": {},
    "cos_similarity_cubed": {},
    "rank_reorder": {"top_fraction": 0.3},
    "wpmi": {"top_k": 9},
    "soft_wpmi": {"top_k": 11},
}


def case(seed, N=40, C=17, K=6):
    rng = np.random.default_rng(seed)
    P = 0.2 + 0.06 * rng.standard_normal((N, C))
    T = np.maximum(rng.standard_normal((N, K)), -0.3) + 1e-3 * rng.random((N, K))
    return torch.tensor(P, dtype=torch.float32), torch.tensor(T, dtype=torch.float32)


@pytest.mark.parametrize("name", CASES)
def test_published_numbers(name):
    P, T = torch.tensor(GOLDEN["clip_feats_NxC"]), torch.tensor(GOLDEN["target_feats_NxK"])
    torch.testing.assert_close(CASES[name](P, T), torch.tensor(GOLDEN[name]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", FEW)
@pytest.mark.parametrize("seed", range(3))
def test_formula(name, seed):
    P, T = case(seed)
    expected = getattr(oracle, name)(P.double().numpy(), T.double().numpy(), **FEW[name])
    np.testing.assert_allclose(SIMILARITIES[name](P, T, **FEW[name]), expected, atol=3e-5, rtol=3e-5)


@pytest.mark.parametrize("name", FEW)
@given(seed=st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_order_of_images_units_and_concepts_does_not_matter(name, seed):
    P, T = case(seed)
    f, options = SIMILARITIES[name], FEW[name]
    S = f(P, T, **options)
    images, concepts, units = (torch.randperm(n) for n in (len(P), P.shape[1], T.shape[1]))
    torch.testing.assert_close(f(P[images], T[images], **options), S, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(f(P[:, concepts], T[:, units], **options), S[units][:, concepts], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["soft_wpmi", "wpmi", "rank_reorder", "cos_similarity"])
@given(seed=st.integers(0, 1000), scale=st.floats(0.1, 50))
@settings(max_examples=10, deadline=None)
def test_scale_of_activations_does_not_matter(name, seed, scale):
    P, T = case(seed)
    f, options = SIMILARITIES[name], FEW[name]
    torch.testing.assert_close(f(P, T * scale, **options), f(P, T, **options), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", FEW)
def test_memory_bound_does_not_change_results(name):
    P, T = case(0, N=20_000, C=30, K=5)
    f, options = SIMILARITIES[name], FEW[name] | ({"top_fraction": 0.01} if name == "rank_reorder" else {})
    torch.testing.assert_close(f(P, T, memory_mb=1, **options), f(P, T, **options), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", FEW)
def test_constant_units_score_zero_and_leave_the_others_alone(name):
    P, T = case(1)
    f, options = SIMILARITIES[name], FEW[name]
    dead = torch.cat([T, torch.zeros(len(T), 1), torch.full((len(T), 1), 0.7)], 1)
    S = f(P, dead, **options)
    assert (S[-2:] == 0).all()
    torch.testing.assert_close(S[:-2], f(P, T, **options), atol=1e-6, rtol=1e-6)
    assert (f(P, torch.ones(len(P), 2), **options) == 0).all()


def test_negative_cosines_are_comparable():
    P, T = case(2)
    S = rank_reorder(P - 0.5, T, top_fraction=0.3)
    assert S.isfinite().all()
    assert (S.argmax(1) == rank_reorder(P - 0.6, T, top_fraction=0.3).argmax(1)).all()


def test_a_concept_that_orders_the_images_like_the_unit_wins():
    P, T = case(3, N=400, C=30, K=8)
    P[:, :8] = 0.2 + 0.1 * T
    for name in ("rank_reorder", "cos_similarity_cubed"):
        assert (SIMILARITIES[name](P, T).argmax(1) == torch.arange(8)).all()


def test_equal_cosines_are_put_in_the_worst_order():
    T = torch.arange(40.0).flip(0)[:, None]
    P = torch.full((40, 2), 0.2)
    P[:, 1] = 0.2 - 1e-3 * torch.arange(40)
    tied, perfect = rank_reorder(P, T, top_fraction=0.5)[0]
    reversed_ = rank_reorder(0.2 + 1e-3 * torch.arange(40.0)[:, None], T, top_fraction=0.5)[0, 0]
    assert perfect == 0
    assert tied < 0 and abs(tied / reversed_ - 1) < 0.1


def test_many_factors_cannot_overflow():
    P = torch.zeros(300, 3)
    P[:, 0] = 1  # Q is 1 for the first concept: every factor is as large as it can be
    T = torch.rand(300, 2)
    S = soft_wpmi(P, T, a=100, top_k=300, p_start=1, lam=0.5)
    expected = oracle.soft_wpmi(P.double().numpy(), T.double().numpy(), a=100, top_k=300, p_start=1, lam=0.5)
    assert S.isfinite().all()
    np.testing.assert_allclose(S, expected, rtol=1e-4, atol=1e-3)


def test_labels():
    scores = torch.tensor([[0.1, 0.5, 0.5], [3.0, 2.0, 1.0]])
    assert labels(scores, "abc")[0][0] == ("b", 0.5)
    assert [name for name, _ in labels(scores, "abc", 2)[1]] == ["a", "b"]
    assert [name for name, _ in labels(scores, "abc", 9)[0]] == ["b", "c", "a"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda P, T: soft_wpmi(P, T), "top_k is 100 and there are 40 images"),
        (lambda P, T: wpmi(P, T, top_k=0), "top_k is 0"),
        (lambda P, T: rank_reorder(P, T, top_fraction=0.04), "1 of 40"),
        (lambda P, T: cos_similarity(P[1:], T), "same images"),
        (lambda P, T: cos_similarity(P, T / 0), "not all finite"),
        (lambda P, T: cos_similarity(P * torch.nan, T), "cosines are not all finite"),
        (lambda P, T: soft_wpmi(P, T, top_k=5, p_start=1.2), "p_start"),
    ],
)
def test_mistakes(call, message):
    with pytest.raises(UserError, match=message):
        call(*case(0))
