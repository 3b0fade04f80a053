"""Known answers: units planted in the embedded world, and the case of the bench beside the checkout."""

import importlib.util
import sys

import numpy as np
import pytest
import torch

from neuronx.methods.linear.moments import moments
from neuronx.methods.linear.search import forward


@pytest.mark.parametrize("low", [0.5, 1.0])
def test_two_concepts_of_the_embedded_world_are_both_found(low):
    from neuronx.world.pictures.probe import ShapesProbe

    probe = ShapesProbe()
    names, truth = probe.truth
    truth = truth.float()
    chance = torch.Generator().manual_seed(0)
    pairs = torch.stack([torch.randperm(len(names), generator=chance)[:2] for _ in range(400)])
    weights = low + 2 * torch.rand(400, 2, generator=chance)
    signal = (truth[:, pairs] * weights).sum(2)
    values = signal + signal.std(0) * torch.randn(signal.shape, generator=chance)
    train, val = (moments([(truth[rows], values[rows])]) for rows in (probe.splits["train"], probe.splits["val"]))
    found = forward(train, val)
    both = [set(pair) <= set(chosen) for pair, chosen in zip(pairs.tolist(), found.chosen.tolist(), strict=True)]
    assert np.mean(both) >= 0.95
    assert (found.chosen >= 0).sum(1).double().mean() < 2.1


@pytest.mark.parametrize("function", ["run", "run_forward"])
def test_the_case_of_the_bench(shared, monkeypatch, function):
    monkeypatch.setattr(sys, "argv", ["linear_bench.py"])
    spec = importlib.util.spec_from_file_location("linear_bench", shared / "bench" / "linear_bench.py")
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    case = bench.make_data()
    case["keep"] = np.arange(case["P"].shape[1])
    from benchmarks import linear

    found = getattr(linear, function)(case["P"], case["A"], case["train_ids"], case["val_ids"], 0.05, 10, 0.02, 10)
    quality = bench.evaluate(found, case, case["P"])
    assert quality["mean_test_corr"] >= 0.6876
    assert quality["concept_precision"] >= 0.99
    assert quality["concept_recall"] >= 0.87
    assert quality["reported_mean_val_corr"] == pytest.approx(quality["recomputed_mean_val_corr"], abs=1e-5)
