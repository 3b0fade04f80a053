"""Networks for pictures of 32 pixels: the ResNets of He et al. 2016 (section 4.2), and VGG-16 with batch norms."""

import torch
from torch import Tensor, nn
from torchvision.models.vgg import cfgs, make_layers


class Block(nn.Module):
    """Two 3 x 3 convolutions around a shortcut; (B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.new = stride, outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        """Runs the block."""
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        short = x[:, :, :: self.stride, :: self.stride]
        before = self.new // 2
        return torch.relu(y + nn.functional.pad(short, (0, 0, 0, 0, before, self.new - before)))


class CifarResNet(nn.Module):
    """(B, 3, 32, 32) float32 to logits (B, classes); layers conv1, bn1, layer1 to layer3, linear.

    Three stages of 16, 32 and 64 channels. Where a stage begins, the shortcut takes every second pixel and pads the new
    channels with zeros (option A).

    Args:
        blocks: A stage; the depth is 6 blocks + 2.
        classes: Number of outputs.
    """

    def __init__(self, blocks: int, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, 1, blocks)
        self.layer2 = _stage(16, 32, 2, blocks)
        self.layer3 = _stage(32, 64, 2, blocks)
        self.linear = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Classifies."""
        x = torch.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


def _stage(inputs: int, outputs: int, stride: int, blocks: int) -> nn.Sequential:
    rest = [Block(outputs, outputs, 1) for _ in range(blocks - 1)]
    return nn.Sequential(Block(inputs, outputs, stride), *rest)


def resnet20(classes: int = 10) -> CifarResNet:
    """ResNet-20."""
    return CifarResNet(3, classes)


def resnet56(classes: int = 10) -> CifarResNet:
    """ResNet-56."""
    return CifarResNet(9, classes)


class CifarVGG(nn.Module):
    """VGG-16: torchvision's features, a classifier of 512 units a layer.

    (B, 3, 32, 32) float32 to logits (B, classes); layers features.0 to features.43, classifier.0 to classifier.6.

    Names and shapes are those of chenyaofo/pytorch-cifar-models, so that its weights fit.

    Args:
        classes: Number of outputs.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.features = make_layers(cfgs["D"], batch_norm=True)
        hidden = [part for _ in range(2) for part in (nn.Linear(512, 512), nn.ReLU(), nn.Dropout())]
        self.classifier = nn.Sequential(*hidden, nn.Linear(512, classes))

    def forward(self, x: Tensor) -> Tensor:
        """Classifies."""
        return self.classifier(self.features(x).flatten(1))


def vgg16_bn(classes: int = 100) -> CifarVGG:
    """VGG-16-BN."""
    return CifarVGG(classes)
