import numpy as np
import torch
from oracles_simulation import Rows, planted
from sklearn.linear_model import Ridge

from neuronx.concepts.formula import Formulas
from neuronx.scoring.predictors import PENALTIES, JudgedConcepts, fit_ridge


def ridge_on(judge, layer, probe, trainer, concepts):
    """What predicts the units of a layer from the first concepts, and the penalties."""
    formulas = Formulas(judge.names)
    judged = JudgedConcepts(formulas, judge.judge(formulas.atoms, probe, trainer))
    train, val = probe.split("train"), probe.split("val")
    return fit_ridge(judged, torch.arange(concepts), {"layer": layer}, train, val, 64)["layer"]


def test_ridge_with_the_penalty_that_is_best_on_val(trainer):
    judge, layer, _ = planted(noise=2.0, units=6)
    layer.values.add_(1000)  # a large mean costs no digits
    probe = Rows(1000)
    found, penalty = ridge_on(judge, layer, probe, trainer, 40)
    X, Y = judge.scores.double().numpy(), layer.values.double().numpy()
    train, val = (probe.split(split).numpy() for split in ("train", "val"))
    fit = np.concatenate((train, val))

    def fitted(rows, unit, penalty):
        return Ridge(penalty * len(rows) * X[rows].var(0).mean()).fit(X[rows], Y[rows, unit]).coef_

    for unit in range(6):
        r = [np.corrcoef(X[val] @ fitted(train, unit, p), Y[val, unit])[0, 1] for p in PENALTIES]
        best = PENALTIES[int(np.argmax(r))]
        assert penalty[unit] == best
        np.testing.assert_allclose(found.weights[unit], fitted(fit, unit, best), atol=1e-6)


def test_constant_units_and_concepts_break_nothing(trainer):
    judge, layer, _ = planted(units=4)
    judge.scores[:, 3] = 0.5
    judge.scores[:, 4] = judge.scores[:, 5]
    layer.values[:, 0] = 7
    found, _ = ridge_on(judge, layer, Rows(1000), trainer, 40)
    assert found.weights.isfinite().all()
    assert (found.weights[0].abs() < 1e-9).all() and (found.weights[:, 3] == 0).all()


def test_more_concepts_than_images(trainer):
    judge, layer, _ = planted(n=60, concepts=200, units=3)
    assert ridge_on(judge, layer, Rows(60), trainer, 200)[0].weights.isfinite().all()
