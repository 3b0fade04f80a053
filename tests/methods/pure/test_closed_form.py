"""The closed form equals what autograd finds at the inputs of the last linear operation."""

import pytest
import timm
import torch
import torchvision
from circuit_cases import Pictures, settled, small_target, timm_resnet, untouched
from oracles_pure_circuits import relevance
from timm.models.resnet import BasicBlock, Bottleneck
from torch import nn

from neuronx.errors import UserError
from neuronx.methods.pure.circuits import circuit_vectors
from neuronx.targets.target import Target

ROWS, UNITS = torch.tensor([0, 2, 2, 1]), torch.tensor([1, 1, 4, 3])


class Plain(nn.Module):
    """One after the other, nothing in place: every operation's input is the output of the module before."""

    def __init__(self, last: nn.Module, tail: nn.Module) -> None:
        super().__init__()
        self.before = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU())
        self.stage = nn.Sequential(last, tail)

    def forward(self, x):
        return self.stage(self.before(x))


@pytest.mark.parametrize("positions", ["activation", "peak", "one"])
@pytest.mark.parametrize(
    ("last", "tail"),
    [
        (lambda: nn.Conv2d(8, 6, 3, 2, 1), lambda: nn.Sequential(nn.BatchNorm2d(6), nn.ReLU())),
        (lambda: nn.Conv2d(8, 8, (3, 1), dilation=2, groups=4, padding="valid"), nn.GELU),
        (lambda: nn.Conv2d(8, 6, 1), nn.Identity),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(392, 6)), nn.ReLU),
    ],
    ids=["norm", "groups", "bare", "linear"],
)
def test_it_equals_autograd(trainer, last, tail, positions):
    torch.manual_seed(0)
    network = settled(Plain(last(), tail()))
    target, probe = Target("plain", network, nn.Identity(), {"stage": "avg"}, input_size=16), Pictures(3)
    found = circuit_vectors(
        target, probe, trainer, "stage", ROWS, UNITS, rule="adjacent", positions=positions, norm=False
    ).vectors
    lower = "stage.0.0" if found.shape[1] == 392 else "before"
    expected = [
        relevance(network, lower, "stage", probe.images[row], int(unit), positions)
        for row, unit in zip(ROWS, UNITS, strict=True)
    ]
    assert torch.allclose(found, torch.stack(expected), atol=1e-6, rtol=1e-5) and found.abs().max() > 1e-3
    assert untouched(network)


@pytest.mark.parametrize(
    ("make", "layer", "lower", "unit_inputs"),
    [
        (lambda: small_target().module, "stage2", "stage2.1.relu", 10),
        (lambda: timm_resnet(BasicBlock), "layer4.1", "layer4.1.act1", 16),
        (lambda: timm_resnet(Bottleneck), "layer4.0", "layer4.0.act2", 16),
        (lambda: timm.create_model("test_vit", img_size=64, num_classes=5), "blocks.1", "blocks.1.mlp.act", None),
    ],
    ids=["small", "basic", "bottleneck with a projection", "vit"],
)
def test_a_shortcut_has_an_entry_of_its_own(trainer, make, layer, lower, unit_inputs):
    torch.manual_seed(0)
    network = settled(make())
    for name, parameter in network.named_parameters():
        if name.endswith("gamma"):
            parameter.data.uniform_(0.5, 1)
    target, probe = Target("network", network, nn.Identity(), {layer: "avg"}, input_size=64), Pictures(3, 64)
    found = circuit_vectors(target, probe, trainer, layer, ROWS, UNITS, rule="adjacent", norm=False).vectors
    assert unit_inputs is None or found.shape[1] == unit_inputs + 1
    with target.record([layer]) as outputs, torch.no_grad():
        network(probe.images)
    for row, unit, vector in zip(ROWS, UNITS, found, strict=True):
        if lower != "stage2.1.relu":  # which runs again for the shortcut's sum
            expected = relevance(network, lower, layer, probe.images[row], int(unit))
            assert torch.allclose(vector[:-1], expected, atol=1e-6, rtol=1e-4)
        map_ = outputs[layer][row, unit] if outputs[layer].ndim == 4 else outputs[layer][row, :, unit]
        assert vector.abs().sum() > 0 or map_.max() <= 0
    if not any(module.bias is not None for module in network.modules() if isinstance(module, nn.Conv2d)):
        # What is not by the inputs or the shortcut is the batch norm's constant.
        norm = dict(network.named_modules())[
            {"stage2": "stage2.1.bn2", "layer4.1": "layer4.1.bn2"}.get(layer, "layer4.0.bn3")
        ]
        constant = norm.bias - norm.running_mean * norm.weight / (norm.running_var + norm.eps).sqrt()
        maps = outputs[layer][ROWS, UNITS].clamp(min=0)
        total = (maps**2).sum((1, 2)) - constant[UNITS] * maps.sum((1, 2))
        assert torch.allclose(found.sum(1), total, rtol=1e-4, atol=1e-5)
    assert untouched(network)


@pytest.mark.parametrize(
    ("make", "layer"),
    [
        (lambda: torchvision.models.squeezenet1_1(num_classes=5), "features.12"),  # two operations side by side
        (lambda: torchvision.models.resnet18(num_classes=5), "avgpool"),
        (lambda: nn.Sequential(nn.Conv2d(3, 6, 3, padding=1, padding_mode="circular"), nn.ReLU()), "1"),
    ],
)
def test_layers_without_a_closed_form_are_named(trainer, make, layer):
    target = Target("network", make(), nn.Identity(), {layer: "avg"}, input_size=64)
    with pytest.raises(UserError, match=r"no closed form; use rule=gradient"):
        circuit_vectors(target, Pictures(3, 64), trainer, layer, ROWS, UNITS, rule="adjacent")
    assert untouched(target.module)


def test_it_finds_its_lower_layer_itself(trainer):
    with pytest.raises(UserError, match="finds the lower layer itself"):
        circuit_vectors(small_target(), Pictures(), trainer, "stage2", ROWS, UNITS, lower="stage1", rule="adjacent")
