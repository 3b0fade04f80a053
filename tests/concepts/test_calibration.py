"""The sigmoid's fit against planted parameters, scikit-learn and a published trace."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuronx.concepts import clip
from neuronx.concepts.clip import fit_sigmoid, sigmoid_scores
from neuronx.errors import UserError


def planted(a, b, rows=400, columns=50, seed=0):
    generator = torch.Generator().manual_seed(seed)
    cosines = torch.randn(rows, columns, generator=generator) * 0.04 - b - 0.05
    return cosines, torch.rand(rows, columns, generator=generator) < sigmoid_scores(cosines, a, b)


@settings(max_examples=6, deadline=None)
@given(st.floats(10, 100), st.floats(-0.3, 0.1))
def test_planted_parameters_come_back(a, b):
    found = fit_sigmoid(*planted(a, b))
    assert found[0] == pytest.approx(a, rel=0.15) and found[1] == pytest.approx(b, abs=0.02)


@pytest.mark.parametrize("chunk", [4_000_000, 1000])
def test_equals_logistic_regression(monkeypatch, chunk):
    from sklearn.linear_model import LogisticRegression

    monkeypatch.setattr(clip, "CHUNK", chunk)
    cosines, truth = planted(58, -0.13)
    model = LogisticRegression(C=1e12, tol=1e-10, max_iter=10_000)
    model.fit(cosines.double().reshape(-1, 1).numpy(), truth.flatten().numpy())
    slope = model.coef_[0, 0]
    a, b = fit_sigmoid(cosines, truth)
    assert a == pytest.approx(slope, rel=1e-5) and b == pytest.approx(model.intercept_[0] / slope, rel=1e-5)


def test_beats_every_point_of_the_published_grid():
    cosines, truth = planted(47.3, -0.118, rows=300, columns=20)

    def loss(a, b):
        return torch.nn.functional.binary_cross_entropy_with_logits(a * (cosines + b), truth.float()).item()

    best = min(loss(a, b / 100) for a in range(2, 151, 4) for b in range(-30, 11))
    assert loss(*fit_sigmoid(cosines, truth)) <= best + 1e-7


def test_separable_data_end_in_a_steep_slope():
    cosines = torch.linspace(-1, 1, 100)[:, None]
    a, b = fit_sigmoid(cosines, cosines > 0.2)
    assert a > 100 and -0.25 < b < -0.15


def test_rare_concepts():
    generator = torch.Generator().manual_seed(0)
    cosines = torch.randn(3000, 200, generator=generator) * 0.03
    truth = torch.rand(3000, 200, generator=generator) < sigmoid_scores(cosines, 60, -0.15)
    assert truth.float().mean() < 0.005
    a, b = fit_sigmoid(cosines, truth)
    assert a == pytest.approx(60, rel=0.05) and b == pytest.approx(-0.15, abs=0.01)


def test_nothing_to_learn_from_is_an_error():
    cosines, truth = planted(60, -0.1)
    with pytest.raises(UserError, match="some show a concept and some do not"):
        fit_sigmoid(cosines, torch.zeros_like(truth))
    with pytest.raises(UserError, match="do not rise"):
        fit_sigmoid(-cosines, truth)


def test_half_lies_at_minus_b():
    assert sigmoid_scores(torch.tensor([0.13]), 58, -0.13).item() == pytest.approx(0.5)
