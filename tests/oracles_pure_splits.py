"""Clusters and gates as plainly as their formulas, unit by unit; and a small network whose parts are known."""

import numpy as np
import torch
from torch import Tensor, nn

from neuronx.data.in_memory import AsIs
from neuronx.data.probe import Probe, seeded_splits
from neuronx.targets.target import Target


def inertia(points: np.ndarray, labels: np.ndarray) -> float:
    """Squared distances of points (m, D) to the means of their clusters, summed."""
    return sum(
        ((own - own.mean(0)) ** 2).sum() for own in (points[labels == c] for c in np.unique(labels[labels >= 0]))
    )


def blobs(units: int = 6, points: int = 40, k: int = 3, width: int = 12, apart: float = 6.0, seed: int = 0):
    """Points (K, m, D) float32 in round clouds around k centres, and which cloud each is of (K, m)."""
    draw = torch.Generator().manual_seed(seed)
    centres = apart * torch.eye(width)[:k].expand(units, -1, -1)
    labels = torch.arange(points).remainder(k).expand(units, points)
    noise = torch.randn(units, points, width, generator=draw)
    return centres.gather(1, labels[:, :, None].expand(-1, -1, width)) + noise, labels


class Meanings(Probe):
    """Pictures of 8 channels: even ones show channels 0 and 1, odd ones 4 and 5; the others vary in all of them."""

    name, domain = "meanings", "shapes"
    class_names = ("even", "odd")

    def __init__(self, images: int = 300, seed: int = 0) -> None:
        super().__init__(batch_size=64)
        draw = torch.Generator().manual_seed(seed)
        channels = torch.rand(images, 8, 3, 2, generator=draw) * 0.5 + 0.5
        self.labels = torch.arange(images) % 2
        channels[0::2, 4:6] *= 0.02
        channels[1::2, 0:2] *= 0.02
        self.images = channels.reshape(images, 3, 4, 4)  # as pictures have it
        self.splits = seeded_splits(images)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def fingerprint(self) -> str:
        return f"meanings {len(self)} {float(self.images.sum())}"

    def load(self, rows) -> Tensor:
        return self.images[rows]


class Network(nn.Module):
    """`low` passes the channels on. Of `high`, unit 0 means two things, unit 1 one, and unit 2 never fires."""

    def __init__(self) -> None:
        super().__init__()
        self.low, self.high = nn.Conv2d(8, 8, 1, bias=False), nn.Sequential(nn.Conv2d(8, 3, 1, bias=False), nn.ReLU())
        self.head = nn.Linear(3, 2)
        with torch.no_grad():
            self.low.weight.copy_(torch.eye(8)[:, :, None, None])
            weights = torch.zeros(3, 8)
            weights[0, [0, 1, 4, 5]] = 1
            weights[1, [2, 3, 6, 7]] = 1
            weights[2] = -1
            self.high[0].weight.copy_(weights[:, :, None, None])

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.high(self.low(x.reshape(len(x), 8, -1, 2))).mean((2, 3)))


def network() -> Target:
    torch.manual_seed(0)
    return Target("small", Network(), AsIs(), {"high": "avg"}, input_size=4, channels="first")
