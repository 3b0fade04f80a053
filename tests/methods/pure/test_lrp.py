"""Relevance is conserved where the rules promise it, whatever class the blocks are of; nothing stays on the network."""

import sys
from functools import partial

import pytest
import timm
import torch
import torchvision
from circuit_cases import Pictures, Small, settled, small_target, timm_resnet, untouched
from oracles_pure_circuits import of_crp
from timm.models.resnet import BasicBlock, Bottleneck
from torch import nn
from torchvision.ops import SqueezeExcitation

from neuronx.errors import UserError
from neuronx.methods.pure.circuits import circuit_vectors
from neuronx.targets.target import Target

ROWS, UNITS = torch.tensor([0, 2, 2, 1]), torch.tensor([1, 1, 4, 9])


def needs_zennit(test):
    return pytest.mark.usefixtures("zennit")(test)


@pytest.fixture
def zennit():
    return pytest.importorskip("zennit", reason="zennit is not installed (pip install neuronx[pure])")


@needs_zennit
@pytest.mark.parametrize(
    ("make", "lower", "layer"),
    [
        # In narrow ones nothing positive reaches some positions, which z-plus then cannot share relevance out to.
        (partial(Small, 6), "stage1", "stage2"),
        (partial(Small, 6), "stem", "stage2"),
        (partial(Small, 6), "stage1", "head"),
        (lambda: timm_resnet(BasicBlock), "layer3", "layer4"),
        (lambda: timm_resnet(Bottleneck), "layer3", "layer4"),
        (lambda: torchvision.models.mobilenet_v2(width_mult=0.25, num_classes=5), "features.11", "features.14"),
        pytest.param(lambda: torchvision.models.resnet18(num_classes=5), "layer3", "layer4", marks=pytest.mark.slow),
        pytest.param(lambda: torchvision.models.resnet50(num_classes=5), "layer3", "layer4", marks=pytest.mark.slow),
        pytest.param(lambda: timm.create_model("resnet34"), "layer2", "layer4", marks=pytest.mark.slow),
        pytest.param(lambda: timm.create_model("resnet50"), "layer3", "layer4", marks=pytest.mark.slow),
        pytest.param(lambda: torchvision.models.vgg11_bn(), "features.13", "features.20", marks=pytest.mark.slow),
    ],
)
def test_relevance_is_conserved(trainer, make, lower, layer):
    torch.manual_seed(0)
    network = settled(make(), biases=False)
    for parameter in (module.bias for module in network.modules() if getattr(module, "bias", None) is not None):
        parameter.data.zero_()
    target, probe = Target("network", network, nn.Identity(), {layer: "avg"}, input_size=64), Pictures(3, 64)
    with target.record([layer]) as outputs, torch.no_grad():
        network(probe.images)
    units = outputs[layer].flatten(2).amax((0, 2)).topk(4).indices if layer != "head" else torch.arange(4)
    total = outputs[layer][ROWS, units].clamp(min=0).reshape(4, -1).sum(1)
    found = circuit_vectors(target, probe, trainer, layer, ROWS, units, lower=lower, rule="lrp", norm=False).vectors
    assert total.max() > 0.01 and torch.allclose(found.sum(1), total, rtol=1e-3)
    assert untouched(network)


@needs_zennit
def test_biases_absorb_relevance(trainer):
    target = small_target()
    found = circuit_vectors(target, Pictures(), trainer, "stage2", ROWS, UNITS, rule="lrp", norm=False).vectors
    with target.record(["stage2"]) as outputs:
        target.module(Pictures().images)
    total = outputs["stage2"][ROWS, UNITS].clamp(min=0).sum((1, 2))
    assert (found.sum(1) <= total).all() and (found.sum(1)[total > 0] < 0.99 * total[total > 0]).all()
    assert target.module.stage1[0].conv1.bias is None


@pytest.mark.slow
def test_it_is_what_zennit_crp_finds_with_the_canonizer_of_torchvision(trainer):
    pytest.importorskip("crp", reason="zennit-crp is not installed (pip install neuronx[pure])")
    from zennit.composites import EpsilonPlus
    from zennit.torchvision import ResNetCanonizer

    torch.manual_seed(0)
    network = settled(torchvision.models.resnet18(num_classes=5))
    target = Target("network", network, nn.Identity(), {"layer4": "avg"}, input_size=64)
    found = circuit_vectors(target, Pictures(3, 64), trainer, "layer4", ROWS, UNITS, rule="lrp").vectors
    composite = EpsilonPlus(canonizers=[ResNetCanonizer()])
    expected = of_crp(network, "layer3", "layer4", Pictures(3, 64).images[ROWS], UNITS, composite)
    assert (found - expected).abs().max() < 5e-5  # zennit 0.4 leaves the epsilon of merged batch norms


@needs_zennit
@pytest.mark.parametrize(
    ("make", "lower", "layer", "what"),
    [
        (lambda: timm.create_model("test_vit", img_size=64, num_classes=5), "blocks.0", "blocks.1", "layer_norm"),
        (lambda: nn.Sequential(nn.Conv2d(3, 8, 3), SqueezeExcitation(8, 4), nn.Conv2d(8, 10, 3)), "0", "2", "sigmoid"),
    ],
)
def test_what_the_rules_do_not_cover_is_named(trainer, make, lower, layer, what):
    target = Target("network", make(), nn.Identity(), {layer: "avg"}, input_size=64)
    with pytest.raises(UserError, match=f"does not cover `{what}`.*use rule=gradient"):
        circuit_vectors(target, Pictures(3, 64), trainer, layer, ROWS, UNITS, lower=lower, rule="lrp")
    assert untouched(target.module)


def test_without_zennit_the_way_to_it_is_named(trainer, monkeypatch):
    monkeypatch.setitem(sys.modules, "zennit", None)
    with pytest.raises(UserError, match=r"pip install neuronx\[pure\]"):
        circuit_vectors(small_target(), Pictures(), trainer, "stage2", ROWS, UNITS, rule="lrp")
