"""A segment gives what the network gives, with gradients, runs nothing else, and leaves no trace."""

import pytest
import timm
import torch
import torchvision
from torch import nn

from neuronx.errors import UserError
from neuronx.targets.segment import Segment
from neuronx.targets.target import Target


class Again(nn.Module):
    """A layer that runs three times, one that runs in between, and a shortcut from the input."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.act = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.ReLU(inplace=True)

    def forward(self, x):
        y = self.act(self.two(self.act(self.one(x))))
        return self.act(self.two(y) + x[:, :1])


class Folds(nn.Module):
    """Works on halves of pictures, as windows are."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm, self.two = nn.Conv2d(3, 4, 1), nn.GroupNorm(1, 4), nn.Conv2d(4, 5, 1)

    def forward(self, x):
        halves = torch.cat(self.one(x).chunk(2, 3))
        return self.two(torch.cat(self.norm(halves).chunk(2), 3))


CASES = {
    "resnet": (lambda: torchvision.models.resnet18(num_classes=5), "layer3", "layer4", ("layer3",)),
    "inside": (
        lambda: torchvision.models.resnet18(num_classes=5),
        "layer3.1.bn1",
        "layer4.0.conv1",
        ("layer3.0", "layer3.1.bn1"),
    ),
    "squeezenet": (
        lambda: torchvision.models.squeezenet1_1(num_classes=5),
        "features.6",
        "features.9",
        ("features.6",),
    ),
    "densenet": (
        lambda: torchvision.models.DenseNet(8, (2, 2, 2), 16, num_classes=5),
        "features.transition1",
        "features.denseblock2.denselayer2",
        ("features.transition1",),
    ),
    "vit": (lambda: timm.create_model("test_vit", img_size=32, num_classes=5), "blocks.0", "blocks.1", ("blocks.0",)),
    "again": (Again, "act", "two", ("act",)),
    "shortcut": (Again, "two", "act", ("inputs", "two")),
    "folds": (Folds, "norm", "two", ("inputs",)),
}


def clean(network: nn.Module) -> bool:
    return not any(
        "forward" in part.__dict__ or part._forward_hooks or part._forward_pre_hooks for part in network.modules()
    )


@pytest.mark.parametrize("case", CASES)
def test_it_gives_what_the_network_gives(case):
    make, lower, layer, reads = CASES[case]
    torch.manual_seed(0)
    network = make()
    for parameter in network.parameters():
        parameter.data += 0.02 * torch.randn(parameter.shape)  # some are made as zero
    target = Target(case, network, nn.Identity(), {layer: "avg"}, input_size=32)
    images, rows = torch.randn(4, 3, 32, 32), [3, 0, 0, 1, 2]
    segment = Segment(target, lower, layer)
    segment.trace(images[:2])
    assert segment.reads == reads
    features = segment.features(images)
    with target.record([layer, lower]) as found:
        network(images)
    x, y = segment.run([part[rows] for part in features])
    assert y.shape[2 if y.ndim == 3 else 1] == segment.units and segment.canonical(x).shape[1:] == segment.shape
    assert torch.allclose(y, found[layer][rows], atol=1e-5, rtol=1e-4)
    weights = torch.randn(y.shape)
    gradient = segment.gradient(y, x, weights)
    # A small step along the gradient does what the gradient says.
    step = 1e-3 * gradient / gradient.norm()
    module = dict(network.named_modules())[lower]
    runs = []

    def moved(_, __, output):
        runs.append(1)
        return output + (step if len(runs) == segment.call[1] + 1 else 0)

    handle = module.register_forward_hook(moved)
    with target.record([layer]) as changed:
        network(images[rows])
    handle.remove()
    if case not in ("again", "folds"):  # there the hook or the folds come elsewhere
        gain = ((changed[layer] - found[layer][rows]) * weights).sum()
        assert torch.allclose(gain, (gradient * step).sum(), rtol=0.1)
    assert clean(network)


def test_nothing_else_runs():
    network, ran = torchvision.models.resnet18(num_classes=5), []
    target = Target("resnet", network, nn.Identity(), {"layer3": "avg"}, input_size=32)
    segment = Segment(target, "layer2", "layer3")
    segment.trace(torch.randn(2, 3, 32, 32))
    features = segment.features(torch.randn(2, 3, 32, 32))
    for name, part in network.named_modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            forward = part.forward
            part.forward = lambda x, name=name, forward=forward: ran.append(name) or forward(x)
    segment.run(features)
    assert ran and all(name.startswith("layer3.") for name in ran)
    ran.clear()
    segment.features(torch.randn(2, 3, 32, 32))
    assert ran and not any(name.startswith(("layer3", "layer4", "fc")) for name in ran)


@pytest.mark.parametrize(
    ("lower", "layer", "wrong"),
    [
        ("layer3", "layer3", "does not run before"),
        ("layer4", "layer3", "does not run before"),
        ("layer4", "layer4.0", "does not run before"),
        ("features", "layer3", "no layer"),
        ("layer3.0.conv2", "layer3.0.downsample", "No path leads from layer `layer3.0.conv2`"),
    ],
)
def test_pairs_without_a_path(lower, layer, wrong):
    network = torchvision.models.resnet18(num_classes=5)
    target = Target("resnet", network, nn.Identity(), {"layer3": "avg"}, input_size=32)
    with pytest.raises(UserError, match=wrong):
        Segment(target, lower, layer).trace(torch.randn(2, 3, 32, 32))
    assert clean(network)
