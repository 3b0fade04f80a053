"""The embedded world's image generator: from a latent vector and a class to a picture of 64 pixels.

A small relative of BigGAN (Brock et al., "Large scale GAN training for high fidelity natural image synthesis", 2019):
the latent vector and the class set the gains and biases of every normalisation.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


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
        classes: Number of classes; 0 for a generator that takes none.
        latent_dim: Length of the latent vector.
        channels: Width at 4 x 4, 8 x 8, 16 x 16 and 32 x 32.
    """

    def __init__(self, classes: int, latent_dim: int = 64, channels: Sequence[int] = (128, 128, 64, 48)) -> None:
        super().__init__()
        self.classes = classes
        style = latent_dim + (32 if classes else 0)
        if classes:
            self.embed = nn.Embedding(classes, 32)
        self.start = nn.Linear(style, channels[0] * 16)
        self.layer1 = Doubled(channels[0], channels[1], style)
        self.layer2 = Doubled(channels[1], channels[2], style)
        self.layer3 = Doubled(channels[2], channels[3], style)
        # Convolutions at 64 x 64 would cost most: this one paints 2 x 2 pixels at once.
        self.paint = nn.Conv2d(channels[3], 12, 3, padding=1)
        # The four pixels start alike, or pictures begin as checkerboards (Aitken et al., "Checkerboard artifact free
        # sub-pixel convolution", 2017).
        alike = self.paint.weight.detach()[::4].repeat_interleave(4, 0)
        self.paint.weight = nn.Parameter(alike)

    def forward(self, latents: Tensor, classes: Tensor | None = None) -> Tensor:
        """From latents (B, latent_dim) and classes (B,) int64 to pictures (B, 3, 64, 64) in (-1, 1)."""
        style = latents
        if self.classes and classes is not None:
            style = torch.cat([latents, self.embed(classes)], 1)
        maps = self.start(style).view(len(style), -1, 4, 4).contiguous(memory_format=torch.channels_last)
        for block in (self.layer1, self.layer2, self.layer3):
            maps = block(maps, style)
        return torch.tanh(F.pixel_shuffle(self.paint(maps), 2))
