"""The embedded world's image generator: from a latent vector and a class to a picture of 64 pixels.

A small relative of BigGAN (Brock et al., "Large scale GAN training for high fidelity natural image synthesis", 2019):
the latent vector and the class set the gains and biases of every normalisation.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from neuronx.errors import UserError
from neuronx.options import OptionsOf
from neuronx.store.checkpoints import find, read
from neuronx.targets import generator
from neuronx.targets.layers import Layers
from neuronx.targets.target import Target
from neuronx.world.pictures.probe import WORLDS

CLASSES = (12, 12)
"""A class is a colour and a shape, 12 of each, or any two factors: class index = first * second count + second."""
LENGTH = 32
"""Of the vector that stands for a class."""


class ClassVectors(nn.Module):
    """A vector for a class: that of its colour plus that of its shape, so that classes learn from each other.

    Args:
        length: Of the vectors, V.
        classes: How many values the two factors have that make a class.
    """

    def __init__(self, length: int, classes: Sequence[int] = CLASSES) -> None:
        super().__init__()
        self.first, self.second = classes
        self.table = nn.Embedding(self.first + self.second, length)

    def forward(self, classes: Tensor) -> Tensor:
        """From classes (B,) int64 to (B, V)."""
        return self.table(classes // self.second) + self.table(self.first + classes % self.second)


class Doubled(nn.Module):
    """Twice the sides: nearest neighbours and two 3 x 3 convolutions, normalised over the batch and rectified.

    A style sets the gains and biases of the first; the second adds to what the first gives.

    Args:
        narrow: Channels of the input.
        wide: Channels of the output.
        style: Length S of the style.
    """

    def __init__(self, narrow: int, wide: int, style: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(narrow, wide, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(wide, affine=False)
        self.style = nn.Linear(style, 2 * wide)
        self.conv2 = nn.Conv2d(wide, wide, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(wide)
        nn.init.normal_(self.style.weight, std=0.05)
        nn.init.zeros_(self.style.bias)

    def forward(self, maps: Tensor, style: Tensor) -> Tensor:
        """From maps (B, narrow, H, W) and styles (B, S) to (B, wide, 2 H, 2 W), at least 0."""
        gain, bias = self.style(style)[:, :, None, None].chunk(2, 1)
        large = F.interpolate(maps, scale_factor=2.0, mode="nearest")
        styled = F.relu(torch.addcmul(bias, self.norm1(self.conv1(large)), 1 + gain))
        return F.relu(styled + self.norm2(self.conv2(styled)))


class ShapesGenerator(nn.Module):
    """Pictures of the embedded world from latent vectors and classes.

    Layers: `layer1` to `layer3` (channels[1:] x 8 x 8, 16 x 16, 32 x 32), all at least 0.

    Args:
        latent_dim: Length of the latent vector.
        channels: Width at 4 x 4, 8 x 8, 16 x 16 and 32 x 32.
        classes: How many values the two factors have that make a class.
    """

    def __init__(self, latent_dim: int, channels: Sequence[int], classes: Sequence[int] = CLASSES) -> None:
        super().__init__()
        style = latent_dim + LENGTH
        self.class_vectors = ClassVectors(LENGTH, classes)
        self.start = nn.Linear(style, channels[0] * 16)
        self.layer1 = Doubled(channels[0], channels[1], style)
        self.layer2 = Doubled(channels[1], channels[2], style)
        self.layer3 = Doubled(channels[2], channels[3], style)
        self.paint = nn.Conv2d(channels[3], 3, 3, padding=1)

    def forward(self, latents: Tensor, classes: Tensor) -> Tensor:
        """From latents (B, latent_dim) and classes (B,) int64 to pictures (B, 3, 64, 64) in (-1, 1)."""
        style = torch.cat([latents, self.class_vectors(classes)], 1)
        maps = self.start(style).view(len(style), -1, 4, 4).contiguous(memory_format=torch.channels_last)
        for block in (self.layer1, self.layer2, self.layer3):
            maps = block(maps, style)
        return torch.tanh(self.paint(F.interpolate(maps, scale_factor=2.0, mode="nearest")))


def load(
    checkpoint: str | Path,
    layers: Layers | None = None,
    pool: str = "avg",
    truncation: float | None = None,
    name: str | None = None,
    **options: Annotated[Any, OptionsOf(generator.load)],
) -> Target:
    """Makes a target of the embedded world's generator.

    Args:
        checkpoint: Name of a shipped one (shapes_gan), or a safetensors file with its card beside it, as
            `train.py generator=` writes them.
        layers: Asked for: one, several, or layer -> pooling; by default those of the card.
        pool: For layers without a pooling of their own.
        truncation: Latents beyond plus and minus this are drawn again.
        name: In tables; by default that of the file.
        options: As `neuronx.targets.custom.target` takes them.

    Raises:
        UserError: No such file or name, or one that is no generator.
    """
    state, card = read(checkpoint)
    path = find(checkpoint)
    if "generator" not in card:
        raise UserError(f"The card of {path} describes no generator.")
    module = ShapesGenerator(**card["generator"])
    module.load_state_dict(state)
    same = [world for world in WORLDS.values() if world.class_names == tuple(card["classes"])]
    return generator.load(
        module,
        latent_dim=card["generator"]["latent_dim"],
        classes=card["classes"],
        truncation=truncation,
        layers=card["layers"] if layers is None else layers,
        pool=pool,
        name=name or path.stem,
        domain="shapes",
        hierarchy=same[0].hierarchy if same else None,
        **options,
    )
