"""References by relevance: what matters most for the class, exactly, in one pass that is never made twice."""

import pytest
import torch
from circuit_cases import Pictures, small_target, untouched
from torch import nn

from neuronx.errors import UserError
from neuronx.methods.pure.relevant import find_relevant
from neuronx.targets.target import Target

ROWS = torch.tensor([0, 1, 2, 4, 5, 6])


def by_autograd(target, images, classes):
    """Gradient times activation (N, K, H, W) of the class's logit at stage1."""
    found = []
    for image, label in zip(images, classes, strict=True):
        network = target.module
        x = network.stage1(network.stem(image[None])).detach().requires_grad_()
        logit = network.head(network.stage2(x.clone()).mean((2, 3)))[0, label]
        found.append((x * torch.autograd.grad(logit, x)[0]).detach()[0])
    return torch.stack(found)


def test_it_is_the_top_of_gradient_times_activation(trainer):
    target, probe = small_target(), Pictures()
    found = find_relevant(target, probe, trainer, "stage1", 3, "gradient", ROWS)
    wanted = target.module(probe.images).argmax(1)
    maps = by_autograd(target, probe.images[ROWS], wanted[ROWS]).flatten(2)
    peaks, places = maps.max(2)
    values, order = peaks.T.topk(3)
    assert torch.equal(found.rows, ROWS[order]) and torch.allclose(found.peaks, values, atol=1e-6)
    assert torch.equal(found.places, places.T.gather(1, order)) and found.grid == (8, 8)
    assert len(found.units) == 8 and found.layer == "stage1" and untouched(target.module)
    probe.loaded.clear()
    again = find_relevant(target, probe, trainer, "stage1", 3, "gradient", ROWS)
    assert torch.equal(again.peaks, found.peaks) and not probe.loaded


def test_by_lrp_it_differs_from_activation(trainer):
    pytest.importorskip("zennit", reason="zennit is not installed (pip install neuronx[pure])")
    target = small_target()
    found = find_relevant(target, Pictures(), trainer, "stage1", 2, "lrp", ROWS)
    by_gradient = find_relevant(target, Pictures(), trainer, "stage1", 2, "gradient", ROWS)
    assert found.peaks.isfinite().all() and not torch.equal(found.rows, by_gradient.rows)
    assert untouched(target.module)


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        ({"rule": "adjacent"}, "no rule `adjacent`"),
        ({"layer": "stage9"}, "no layer of small"),
        ({"k": 9}, "k=9"),
    ],
)
def test_bad_input(trainer, options, wrong):
    given = {"layer": "stage1", "k": 2, "rule": "gradient", "rows": ROWS} | options
    with pytest.raises(UserError, match=wrong):
        find_relevant(small_target(), Pictures(), trainer, **given)


def test_a_network_without_classes_is_named(trainer):
    whole = small_target()
    headless = Target("headless", nn.Sequential(whole.module.stem, whole.module.stage1), nn.Identity(), {"0": "avg"})
    with pytest.raises(UserError, match="headless has no class head"):
        find_relevant(headless, Pictures(), trainer, "0", 2, "gradient", ROWS)
