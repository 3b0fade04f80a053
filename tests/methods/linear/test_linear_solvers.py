"""The solvers that go through the images: the published library, and proximal steps."""

import builtins
import logging

import pytest
import torch
from linear_cases import planted

from neuronx.errors import UserError
from neuronx.methods.linear.elastic_net import kkt_residual, objective, solve, standardised
from neuronx.methods.linear.moments import Rows
from neuronx.methods.linear.solvers import ProximalNet, saga

CASE = planted()
PROBLEM = standardised(CASE.moments("train"))
EXACT, _ = solve(PROBLEM)


def rows(batch_size=100):
    everything = torch.arange(40), [CASE.values], [torch.arange(12)]
    return Rows(CASE.scores, *everything, CASE.train, CASE.val, batch_size)


def proximal(tolerance=1e-4, epochs=2000, batch_size=100):
    return ProximalNet(rows(batch_size), tolerance=tolerance).fit(epochs)


def test_proximal_steps_reach_the_exact_optimum():
    net = proximal(1e-5)
    weights = net.net.double()
    assert net.residual < 1e-5
    assert kkt_residual(PROBLEM, weights).max() < 2e-5
    excess = objective(PROBLEM, weights) - objective(PROBLEM, EXACT)
    assert (excess > -1e-9).all() and (excess < 1e-6).all()
    torch.testing.assert_close(weights, EXACT, atol=1e-3, rtol=0)
    torch.testing.assert_close(net.left.double(), PROBLEM.cross - weights @ PROBLEM.gram, atol=1e-4, rtol=0)


def test_proximal_steps_do_not_depend_on_the_batches():
    one, other = proximal(batch_size=37), proximal(batch_size=1000)
    torch.testing.assert_close(one.net, other.net, atol=1e-3, rtol=0)


def test_running_out_of_epochs_is_said(caplog):
    with caplog.at_level(logging.WARNING, logger="neuronx"):
        proximal(1e-7, epochs=5)
    assert "stopped after 5 epochs at a residual" in caplog.text


def test_dead_units_and_concepts_are_left_out_of_proximal_steps():
    scores, values = CASE.scores.clone(), CASE.values.clone()
    scores[:, 5], values[:, 2] = 0.25, 1.5
    data = Rows(scores, torch.arange(40), [values], [torch.arange(12)], CASE.train, CASE.val, 100)
    net = ProximalNet(data).fit()
    assert net.residual < 1e-4 and not net.net[2].any() and not net.net[:, 5].any()


def test_exact_is_never_worse_than_glm_saga():
    pytest.importorskip("glm_saga")
    scores, values = CASE.scores[CASE.train], CASE.values[CASE.train].clone()
    weights, left = saga(scores, values, step=2e-2)
    exact, approximate = objective(PROBLEM, EXACT), objective(PROBLEM, weights)
    assert (exact <= approximate + 1e-12).all()
    assert (approximate < 1.1 * exact).all()
    assert (EXACT.argmax(1) == weights.argmax(1)).float().mean() > 0.8
    torch.testing.assert_close(left, PROBLEM.cross - weights @ PROBLEM.gram, atol=1e-4, rtol=0)


def test_saga_survives_dead_units_and_concepts():
    """Defect B2: one dead unit made its whole group NaN and ended in an UnboundLocalError."""
    pytest.importorskip("glm_saga")
    scores, values = CASE.scores[CASE.train].clone(), CASE.values[CASE.train].clone()
    scores[:, 5], values[:, 2] = 0.1, 0.1
    weights, left = saga(scores, values, epochs=20, step=5e-3)
    assert weights.isfinite().all() and left.isfinite().all()
    assert not weights[2].any() and not left[2].any() and not weights[:, 5].any()
    assert weights[3].any()
    again, _ = saga(scores, values, epochs=20, step=5e-3)
    assert torch.equal(weights, again)


def test_saga_without_the_library_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("glm_saga"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"neuronx\[saga\]"):
        saga(CASE.scores, CASE.values)
