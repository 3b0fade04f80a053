"""The tail of a network gives what the whole network gives, whatever the architecture, and leaves no trace."""

import pytest
import torch
import torchvision
from torch import nn

from neuronx.errors import UserError
from neuronx.targets.preprocess import Preprocess
from neuronx.targets.replay import Tail
from neuronx.targets.target import Target

B = 3


class Twice(nn.Module):
    """One activation that runs before and after the layer, in place."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.act = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.ReLU(inplace=True)
        self.head = nn.Linear(4, 5)

    def forward(self, x):
        x = self.act(self.one(x))
        x = self.act(self.two(x)) + x
        return self.head(x.mean((2, 3)))


class Again(nn.Module):
    """A module that runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.Linear(4, 5)

    def forward(self, x):
        return self.head(self.two(self.two(self.one(x)).relu()).mean((2, 3)))


NETWORKS = {
    "resnet": (lambda: torchvision.models.resnet18(num_classes=5), ["layer3", "layer2.0.bn2", "avgpool"], 64),
    "squeezenet": (lambda: torchvision.models.squeezenet1_1(num_classes=5), ["features.6", "features.6.squeeze"], 64),
    "vit": (
        lambda: torchvision.models.VisionTransformer(32, 8, 2, 2, 32, 64, num_classes=5),
        ["encoder.layers.encoder_layer_0", "encoder.layers.encoder_layer_1.mlp.1"],
        32,
    ),
    "twice": (Twice, ["one", "two"], 8),
    "again": (Again, ["one", "two", "two#1", "two#2"], 8),
}


@pytest.mark.parametrize(("name", "layer"), [(name, layer) for name, (_, own, _) in NETWORKS.items() for layer in own])
def test_it_agrees_with_the_whole_network(name, layer):
    make, _, side = NETWORKS[name]
    torch.manual_seed(0)
    module = make()
    for parameter in module.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape)  # some heads start as zero
    target = Target(name, module, Preprocess(), {layer: "avg"})
    tail = Tail(target, layer)
    for size in (B, B - 1):  # another batch, another size
        images = torch.randn(size, 3, side, side)

        def change(units, size=size):
            for k, copy in enumerate(units.unflatten(0, (2, size))):
                copy[:, k + 1] += 6 * k - 3

        with torch.inference_mode():
            tail.load(images)
            logits = tail.run(2, change).unflatten(0, (2, size))
            assert torch.allclose(tail.run(1), tail.logits, atol=1e-5)
            for k in range(2):
                with target.edit(layer, lambda units, k=k: units[:, k + 1].add_(6 * k - 3)):
                    expected = target.module(images)
                assert torch.allclose(logits[k], expected, atol=1e-5)
            assert (logits - tail.logits).abs().max() > 1e-5
    assert tail.partial, "the calls before the layer's own do not run again"
    assert not any("forward" in module.__dict__ for module in target.module.modules())


def test_what_has_no_logits_is_refused():
    target = Target("maps", nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), Preprocess(), {"0": "avg"})
    with pytest.raises(UserError, match="maps has no class head"):
        Tail(target, "0").load(torch.zeros(2, 3, 8, 8))
    with pytest.raises(UserError, match="no layer"):
        Tail(target, "layer4")
