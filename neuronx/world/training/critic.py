"""Who tells a generator's pictures from rendered ones: a trained classifier with small judges at every depth.

Looking through features that know colours, textures and outlines already makes adversarial training several times
shorter (Sauer et al., "Projected GANs converge faster", 2021).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.nn.utils.parametrizations import spectral_norm

from neuronx.world import networks as shapes
from neuronx.world.generator import CLASSES, ClassVectors


class Verdict(nn.Module):
    """Says at every place of a map how real a picture of a class looks.

    The class enters by a projection (Miyato and Koyama, "cGANs with projection discriminator", 2018); weights are
    normalised by their largest singular value (Miyato et al., "Spectral normalization", 2018).

    Args:
        narrow: Channels of the map.
        wide: Channels of the convolutions.
        strides: One 3 x 3 convolution for each.
        classes: How many values the two factors have that make a class.
    """

    def __init__(self, narrow: int, wide: int, strides: Sequence[int], classes: Sequence[int] = CLASSES) -> None:
        super().__init__()
        widths = [narrow, *[wide] * len(strides)]
        self.body = nn.Sequential(
            *(
                layer
                for before, after, stride in zip(widths, widths[1:], strides, strict=False)
                for layer in (spectral_norm(nn.Conv2d(before, after, 3, stride, 1)), nn.LeakyReLU(0.2))
            )
        )
        self.out = spectral_norm(nn.Conv2d(wide, 1, 1))
        self.class_vectors = ClassVectors(wide, classes)
        spectral_norm(self.class_vectors.table)

    def forward(self, maps: Tensor, classes: Tensor) -> Tensor:
        """From maps (B, narrow, H, W) and classes (B,) to scores (B, places)."""
        maps = self.body(maps)
        fitting = (self.class_vectors(classes)[:, :, None, None] * maps).sum(1, keepdim=True)
        return (self.out(maps) + fitting).flatten(1)


class Critic(nn.Module):
    """The frozen trunk of a trained classifier, with verdicts on its four stages and on the pixels.

    Args:
        start: Name of the shipped classifier, a small ResNet, or its file.
        classes: How many values the two factors have that make a class.
    """

    def __init__(self, start: str, classes: Sequence[int] = CLASSES) -> None:
        super().__init__()
        self.trunk: Any = _without_norms(shapes.load(start).module)
        plans = ((16, 48, (2, 2)), (32, 64, (1, 2)), (48, 96, (1, 2)), (64, 128, (1, 1)))
        self.verdicts = nn.ModuleList(Verdict(*plan, classes) for plan in plans)
        self.pixels = Verdict(12, 64, (2, 2, 2), classes)

    def forward(self, pictures: Tensor, classes: Tensor) -> tuple[list[Tensor], Tensor]:
        """From pictures (B, 3, 64, 64) in [-1, 1] and classes (B,) to scores (B, places) and logits of the classes."""
        trunk = self.trunk
        fine = F.pixel_unshuffle(pictures, 2).contiguous(memory_format=torch.channels_last)
        scores = [self.pixels(fine, classes)]
        maps = trunk.act1(trunk.conv1(2 * pictures))
        for stage, verdict in zip((trunk.layer1, trunk.layer2, trunk.layer3, trunk.layer4), self.verdicts, strict=True):
            maps = stage(maps)
            scores.append(verdict(maps, classes))
        return scores, trunk.fc(maps.mean((2, 3)))


def _without_norms(network: Any) -> nn.Module:
    """The same network with its normalisations folded into the convolutions before them, which saves time."""
    pairs = [(network, "conv1", "bn1")]
    for stage in (network.layer1, network.layer2, network.layer3, network.layer4):
        for block in stage:
            pairs += [(block, "conv1", "bn1"), (block, "conv2", "bn2")]
            if block.downsample is not None:
                pairs.append((block.downsample, "0", "1"))
    for parent, convolution, norm in pairs:
        folded = fuse_conv_bn_eval(parent.get_submodule(convolution), parent.get_submodule(norm))
        parent.register_module(convolution, folded)
        # timm's blocks look for no attributes of their norms.
        parent.register_module(norm, nn.Identity())
    return network.requires_grad_(False)
