import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles_importance import image_impact, share_in_top
from torch import nn

from neuronx.data.in_memory import probe_of
from neuronx.errors import UserError
from neuronx.report.importance import importance_figure, importance_table, mean_and_std
from neuronx.scoring.ablation.importance import (
    CUTOFFS,
    UnitImportance,
    cumulative_shares,
    impacts,
    importance,
    importance_of,
)
from neuronx.targets.preprocess import Preprocess
from neuronx.targets.target import Target
from neuronx.types import Unit


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.integers(0, 10_000))
def test_shares_are_those_of_the_plain_loop(n, seed):
    generator = torch.Generator().manual_seed(seed)
    impact = torch.randn(3, n, generator=generator, dtype=torch.float64)
    activations = torch.randint(0, 4, (n, 3), generator=generator).float()  # many ties
    shares, at, curves = importance_of(impact, activations)
    for k in range(3):
        for x, cutoff in enumerate(CUTOFFS):
            expected = share_in_top(impact[k].tolist(), activations[:, k].tolist(), cutoff)
            assert shares[k, x].item() == pytest.approx(expected, abs=1e-12)
    assert at[-1] == 1 and bool((curves[:, -1] > 1 - 1e-12).all())
    assert bool((curves.diff(dim=1) >= 0).all()) and len(at) == curves.shape[1] <= 120


def test_the_published_index_counts_one_image_more():
    impact = torch.ones(1, 10_000)
    shares, _, _ = importance_of(impact, torch.rand(10_000, 1))
    # 0.0003 * 10,000 is 2.9999999999999996 in floating point
    counted = [int(cutoff * 10_000) + 1 for cutoff in CUTOFFS]
    assert counted == [3, 21, 51, 201, 1001, 5001]
    assert (shares[0] * 10_000).tolist() == pytest.approx(counted)


def test_ties_are_ordered_by_lot_and_the_sign_of_an_impact_does_not_matter():
    impact = torch.tensor([[5.0, 0, 0, -5]])
    sorted_by_class = torch.zeros(1, 1000)
    sorted_by_class[:, :500] = 1
    shares = cumulative_shares(sorted_by_class, torch.ones(1000, 1), torch.tensor([99, 999]))
    assert shares[0, 0].item() == pytest.approx(0.1, abs=0.03) and shares[0, 1] == 1
    assert cumulative_shares(impact, torch.arange(4.0)[:, None], torch.arange(4)).tolist() == [[0.5, 0.5, 0.5, 1]]


def test_a_unit_without_effect_has_no_share():
    impact, activations = torch.zeros(2, 20), torch.rand(20, 2)
    impact[1, 3] = 1
    shares, _, curves = importance_of(impact, activations)
    assert bool(shares[0].isnan().all()) and bool(shares[1].isfinite().all()) and bool(curves[0].isnan().all())
    assert mean_and_std(shares)[0].tolist() == shares[1].tolist()
    assert bool(mean_and_std(shares)[1].isnan().all())


def test_impact_is_half_accuracy_and_half_loss():
    generator = np.random.default_rng(0)
    logits, changed = generator.normal(size=(50, 4)), generator.normal(size=(50, 4))
    labels = generator.integers(0, 4, 50)

    def judged(outputs):
        scores, truth = torch.tensor(outputs), torch.tensor(labels)
        return nn.functional.cross_entropy(scores, truth, reduction="none"), scores.argmax(1) == truth

    (intact, right), (loss, still) = judged(logits), judged(changed)
    found = impacts(intact, right, loss[None], still[None])[0]
    assert found.numpy() == pytest.approx(image_impact(logits, changed, labels), abs=1e-12)


def test_nothing_to_lose_is_no_loss():
    zero = torch.zeros(3)
    assert impacts(zero, zero.bool(), zero[None], zero[None].bool()).eq(0).all()


@pytest.mark.parametrize("cutoff", [0, 1, -0.1, 2])
def test_cutoffs_are_shares(cutoff):
    with pytest.raises(UserError, match="between 0 and 1"):
        importance_of(torch.ones(1, 5), torch.ones(5, 1), (cutoff,))


def test_impacts_and_activations_must_fit():
    with pytest.raises(UserError, match="images, units"):
        importance_of(torch.ones(2, 5), torch.ones(5, 3))


def found(layer="layer4", target="net", silent=1):
    generator = torch.Generator().manual_seed(0)
    impact, activations = torch.rand(6, 400, generator=generator), torch.rand(400, 6, generator=generator)
    impact[:silent] = 0
    shares, at, curves = importance_of(impact, activations)
    units = tuple(Unit(layer, k) for k in range(6))
    return UnitImportance(target, "avg", units, "probe:400", CUTOFFS, shares, at, curves)


def test_the_table_has_a_row_a_layer_and_one_for_all():
    text = importance_table([found(), found("layer3", silent=0), found(target="other")])
    lines = [line.split() for line in text.splitlines()]
    assert lines[2][:2] == ["layer4", "5"] and lines[2][-1] == "1"
    assert lines[3][:2] == ["layer3", "6"] and lines[4][:2] == ["all", "11"]
    assert "top 0.03 %" in text and "no effect" in text and text.count("all") == 1
    assert found().n_no_effect == 1


def test_the_figure_has_a_band_and_a_curve_for_each_layer():
    figure = importance_figure([found(), found("layer3"), found(target="other")])
    assert [trace.name for trace in figure.data if trace.name] == [
        "layer4",
        "layer3",
        "every image alike",
        "layer4",
        "every image alike",
    ]
    assert all(math.isfinite(y) for trace in figure.data for y in trace.y)
    assert not importance_figure([]).data


def classifier(linear):
    """Two layers of four maps each; the head reads the second linearly. Unit 3 of both is dead."""
    torch.manual_seed(3)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    net.append(nn.Linear(4, 3))
    for layer in (net[0], net[2]):
        layer.bias.data = torch.tensor([0.5, 0.5, 0.5, -1e3])
    return Target("net", net, Preprocess(), {"3" if linear else "1": "avg"})


@pytest.mark.parametrize("linear", [True, False])
def test_importance_is_that_of_one_pass_for_each_unit(linear, trainer):
    generator = torch.Generator().manual_seed(0)
    probe = probe_of((torch.rand(60, 3, 8, 8, generator=generator) * 255).to(torch.uint8))
    probe.labels, probe.class_names = torch.randint(0, 3, (60,), generator=generator), ("a", "b", "c")
    target, rows = classifier(linear), torch.arange(5, 55)
    (layer,) = target.layers
    found = importance(target, probe, trainer, rows, (0.02, 0.5))[layer]
    images, _ = next(iter(probe.loader(target.transform, rows, batch_size=50)))
    with target.record([layer]) as recorded, torch.no_grad():
        logits = target.module(images).double().numpy()
    activations, labels = recorded[layer].mean((2, 3)), probe.labels[rows].numpy()
    for k in range(3):
        with target.replace(layer, k, 0.0), torch.no_grad():
            changed = target.module(images).double().numpy()
        impact = image_impact(logits, changed, labels)
        expected = [share_in_top(impact.tolist(), activations[:, k].tolist(), cutoff) for cutoff in (0.02, 0.5)]
        assert found.shares[k].tolist() == pytest.approx(expected, abs=1e-4)
    assert found.n_no_effect == 1 and bool(found.shares[3].isnan().all())
    assert found.images == f"{probe.name}:50"


def test_only_the_units_asked_for_are_measured(trainer):
    generator = torch.Generator().manual_seed(0)
    probe = probe_of((torch.rand(40, 3, 8, 8, generator=generator) * 255).to(torch.uint8))
    target = classifier(True)
    whole = importance(target, probe, trainer, labels="predicted")["3"]
    some = importance(target.select(units=[1, 2]), probe, trainer, labels="predicted")["3"]
    assert [unit.index for unit in some.units] == [1, 2] and torch.equal(some.shares, whole.shares[1:3])
    with pytest.raises(UserError, match="has no labels"):
        importance(target, probe, trainer)
