"""References by relevance: what matters most for the class, exactly, in one pass that is never made twice."""

import pytest
import torch
from circuit_cases import Pictures, small_target, untouched
from torch import nn

from neuronx.errors import UserError
from neuronx.methods.pure.relevant import find_relevant, find_relevant_by_class
from neuronx.targets.target import Target

ROWS = torch.tensor([0, 1, 2, 4, 5, 6])


class Labelled(Pictures):
    labels = torch.tensor([4, 0, 1, 2, 0, 3, 1])


def by_autograd(target, images, classes):
    """Gradient times activation (N, K, H, W) of the class's logit at stage1."""
    found = []
    for image, label in zip(images, classes, strict=True):
        network = target.module
        x = network.stage1(network.stem(image[None])).detach().requires_grad_()
        logit = network.head(network.stage2(x.clone()).mean((2, 3)))[0, label]
        found.append((x * torch.autograd.grad(logit, x)[0]).detach()[0])
    return torch.stack(found)


@pytest.mark.parametrize("classes", ["true", "predicted"])
def test_it_is_the_top_of_gradient_times_activation(trainer, classes):
    target, probe = small_target(), Labelled()
    found = find_relevant(target, probe, trainer, "stage1", 3, classes=classes, rule="gradient", rows=ROWS)
    wanted = probe.labels if classes == "true" else target.module(probe.images).argmax(1)
    maps = by_autograd(target, probe.images[ROWS], wanted[ROWS]).flatten(2)
    peaks, places = maps.max(2)
    values, order = peaks.T.topk(3)
    assert torch.equal(found.rows, ROWS[order]) and torch.allclose(found.peaks, values, atol=1e-6)
    assert torch.equal(found.places, places.T.gather(1, order)) and found.grid == (8, 8)
    assert len(found.units) == 8 and found.layer == "stage1" and untouched(target.module)
    probe.loaded.clear()
    again = find_relevant(target, probe, trainer, "stage1", 3, classes=classes, rule="gradient", rows=ROWS)
    assert torch.equal(again.peaks, found.peaks) and not probe.loaded


def test_by_lrp_it_differs_from_activation(trainer):
    pytest.importorskip("zennit", reason="zennit is not installed (pip install neuronx[pure])")
    target = small_target()
    found = find_relevant(target, Labelled(), trainer, "stage1", 2, rows=ROWS)
    by_gradient = find_relevant(target, Labelled(), trainer, "stage1", 2, rule="gradient", rows=ROWS)
    assert found.peaks.isfinite().all() and not torch.equal(found.rows, by_gradient.rows)
    assert untouched(target.module)


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        ({"classes": "all"}, "no kind of classes `all`"),
        ({"rule": "adjacent"}, "no rule `adjacent`"),
        ({"layer": "stage9"}, "no layer of small"),
        ({"probe": Pictures()}, "have no labels; use classes=predicted"),
        ({"k": 9}, "k=9"),
    ],
)
def test_bad_input(trainer, options, wrong):
    given = {"probe": Labelled(), "layer": "stage1", "k": 2, "rows": ROWS, "rule": "gradient"} | options
    with pytest.raises(UserError, match=wrong):
        find_relevant(small_target(), given.pop("probe"), trainer, given.pop("layer"), **given)


def test_a_network_without_classes_is_named(trainer):
    whole = small_target()
    headless = Target("headless", nn.Sequential(whole.module.stem, whole.module.stage1), nn.Identity(), {"0": "avg"})
    with pytest.raises(UserError, match="headless has no class head"):
        find_relevant(headless, Labelled(), trainer, "0", 2, rule="gradient", rows=ROWS)


def test_by_class_only_images_of_the_class_count(trainer):
    target, probe = small_target(), Labelled()
    probe.class_names = tuple("abcdefghij")
    found = find_relevant_by_class(target, probe, trainer, "stage1", ["b", "a"], 3, rule="gradient", rows=ROWS)
    assert list(found) == ["b", "a"] and [len(one.rows[0]) for one in found.values()] == [2, 2]
    for name, own in (("a", [1, 4]), ("b", [2, 6])):
        labels = [probe.class_names.index(name)] * 2
        peaks = by_autograd(target, probe.images[own], labels).flatten(2).amax(2)
        values, order = peaks.T.sort(1, descending=True)
        assert torch.equal(found[name].rows, torch.tensor(own)[order])
        assert torch.allclose(found[name].peaks, values, atol=1e-6)
    with pytest.raises(UserError, match="no class `z`"):
        find_relevant_by_class(target, probe, trainer, "stage1", ["z"], rule="gradient", rows=ROWS)
    with pytest.raises(UserError, match="is of class `j`"):
        find_relevant_by_class(target, probe, trainer, "stage1", ["j"], rule="gradient", rows=ROWS)
    with pytest.raises(UserError, match="have no labels"):
        find_relevant_by_class(target, Pictures(), trainer, "stage1", ["a"])
