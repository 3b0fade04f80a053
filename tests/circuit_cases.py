"""Small networks and pictures that the tests of circuits share."""

import timm
import torch
from torch import Tensor, nn

from neuronx.data.probe import Probe
from neuronx.targets.target import Target


class Pictures(Probe):
    """Random float pictures, ready for the network."""

    name = "pictures"
    domain = "natural"

    def __init__(self, images: int = 7, side: int = 16, seed: int = 0, batch_size: int = 3) -> None:
        super().__init__(batch_size=batch_size)
        self.images = torch.randn(images, 3, side, side, generator=torch.Generator().manual_seed(seed))
        self.loaded: list[int] = []

    def __len__(self) -> int:
        return len(self.images)

    @property
    def fingerprint(self) -> str:
        return str(float(self.images.sum()))

    def load(self, rows) -> Tensor:
        self.loaded += rows
        return self.images[rows]


class Block(nn.Module):
    """A residual block that writes wherever it can."""

    def __init__(self, width: int, out: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out)
        self.conv2, self.bn2 = nn.Conv2d(out, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out)
        self.relu = nn.ReLU(inplace=True)
        self.down = nn.Sequential(nn.Conv2d(width, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x):
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += self.down(x)
        return self.relu(out)


class Small(nn.Module):
    """Three stages and a head; `times` as wide."""

    def __init__(self, times: int = 1) -> None:
        super().__init__()
        a, b, c = 6 * times, 8 * times, 10 * times
        self.stem = nn.Sequential(nn.Conv2d(3, a, 3, padding=1), nn.ReLU(inplace=True))
        self.stage1, self.stage2 = nn.Sequential(Block(a, b, 2)), nn.Sequential(Block(b, c), Block(c, c))
        self.head = nn.Linear(c, 5)

    def forward(self, x):
        return self.head(self.stage2(self.stage1(self.stem(x))).mean((2, 3)))


def timm_resnet(block: type) -> nn.Module:
    """A narrow one."""
    return timm.models.resnet.ResNet(block, [1, 1, 1, 2], channels=(8, 8, 16, 16), num_classes=5)


def settled(network: nn.Module, seed: int = 0, biases: bool = True) -> nn.Module:
    """Batch norms as after some training; without biases, nothing absorbs relevance."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, generator=generator)
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            if biases:
                module.bias.data.normal_(0.2, 0.1, generator=generator)
                module.running_mean.normal_(0, 0.1, generator=generator)
    return network.eval()


def small_target(**options) -> Target:
    """The small network, always the same."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = settled(Small())
    return Target("small", network, nn.Identity(), options.pop("layers", {"stage2": "avg"}), input_size=16, **options)


def untouched(network: nn.Module) -> bool:
    """No wrapper, hook or changed epsilon is left."""
    return not any(
        "forward" in module.__dict__
        or module._forward_hooks
        or module._forward_pre_hooks
        or getattr(module, "eps", 1) == 0
        for module in network.modules()
    )
