"""A small network with every kind of layer, its pictures, and exemplars and masks one unit and image at a time."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from neuronx.data.in_memory import InMemoryProbe
from neuronx.recording.exemplars import Exemplars
from neuronx.targets.preprocess import Preprocess
from neuronx.targets.target import Target
from neuronx.types import Unit

SIDE = 16


class Tokens(nn.Module):
    """Maps (B, K, h, w) as tokens (B, 1 + h w, K), a class token first."""

    def forward(self, maps: Tensor) -> Tensor:
        tokens = maps.flatten(2).transpose(1, 2)
        return torch.cat([tokens.mean(1, keepdim=True) + 9, tokens], 1)


class First(nn.Module):
    """The class token."""

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens[:, 0]


def network(**options) -> Target:
    """Maps of 5 units on 7 x 7, tokens of 4 on 5 x 5, and 3 units without positions."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        parts = [nn.Conv2d(3, 5, 4, 2), nn.ReLU(), nn.Conv2d(5, 4, 3), Tokens(), First(), nn.Linear(4, 3)]
    options = {"layers": {"1": "avg", "3": "patch", "5": "none"}, "input_size": SIDE, "prefix_tokens": 1} | options
    transform = options.pop("transform", Preprocess(resize=20, crop=16, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4)))
    return Target("small", nn.Sequential(*parts), transform, **options)


def pictures(count: int = 23) -> InMemoryProbe:
    """Photographs, more or less, of two shapes, none of them square."""
    made = []
    for seed in range(count):
        noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        made.append(Image.fromarray(noise).resize((36, 25) if seed % 2 else (21, 32), Image.Resampling.BICUBIC))
    return InMemoryProbe(made, name="noise", batch_size=4)


def outputs(target: Target, probe: InMemoryProbe) -> dict[str, Tensor]:
    """The maps (N, K, h, w) of each layer, or (N, K)."""
    x = torch.stack([target.transform(picture) for picture in probe.load(range(len(probe)))])
    with torch.no_grad():
        maps, tokens, plain = target.module[:2](x), target.module[:4](x), target.module(x)
    return {"1": maps, "3": tokens[:, 1:].transpose(1, 2).reshape(len(x), 4, 5, 5), "5": plain}


def exemplars(maps: Tensor, layer: str, k: int = 3, quantile: float = 0.8) -> Exemplars:
    """By sorting, over all images."""
    flat = maps.reshape(*maps.shape[:2], -1)
    peaks, places = flat.max(2)
    order = torch.sort(peaks, dim=0, descending=True, stable=True).indices[:k]
    values = peaks.gather(0, order).T.contiguous()
    return Exemplars(
        units=tuple(Unit(layer, index) for index in range(maps.shape[1])),
        rows=order.T.contiguous(),
        values=values,
        peaks=values,
        places=places.gather(0, order).T.contiguous(),
        thresholds=flat.transpose(0, 1).flatten(1).quantile(quantile, 1),
        quantile=quantile,
        grid=tuple(maps.shape[2:]) if maps.ndim == 4 else None,
        images=len(maps),
        ties=(peaks == peaks.amax(0)).sum(0),
        pool={"1": "avg", "3": "patch", "5": "none"}[layer],
    )


def mask(plane: Tensor, threshold: float, size: int) -> np.ndarray:
    """Half-pixel bilinear upsampling of one map (h, w), pixel by pixel, strictly above the threshold: (size, size)."""
    h, w = plane.shape
    found = np.zeros((size, size), bool)
    for i in range(size):
        for j in range(size):
            y = min(max((i + 0.5) * h / size - 0.5, 0), h - 1)
            x = min(max((j + 0.5) * w / size - 0.5, 0), w - 1)
            top, left = int(y), int(x)
            bottom, right = min(top + 1, h - 1), min(left + 1, w - 1)
            a, b = y - top, x - left
            above = (1 - b) * float(plane[top, left]) + b * float(plane[top, right])
            below = (1 - b) * float(plane[bottom, left]) + b * float(plane[bottom, right])
            found[i, j] = (1 - a) * above + a * below > threshold
    return found
