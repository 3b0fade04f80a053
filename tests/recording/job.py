"""Records a small network as a process of its own, into $NEURONX_CACHE: job.py DEVICES IMAGES SECONDS_A_BATCH."""

import sys
import time
from functools import partial

import torch
from torch import Tensor, nn

from neuronx.data.probe import Probe
from neuronx.preprocess import Preprocess
from neuronx.recording import walk
from neuronx.recording.record import record
from neuronx.targets.target import Target
from neuronx.trainer import make


class Noise(Probe):
    """Random pictures of 16 pixels, each from its own row."""

    name = "noise"
    domain = "natural"
    fingerprint = "noise"

    def __init__(self, images: int, seconds: float = 0.0) -> None:
        super().__init__(batch_size=8)
        self.images, self.seconds = images, seconds

    def __len__(self) -> int:
        return self.images

    def load(self, rows) -> Tensor:
        time.sleep(self.seconds)
        seeds = [torch.Generator().manual_seed(int(row)) for row in rows]
        return torch.stack([torch.randint(0, 256, (3, 16, 16), generator=s, dtype=torch.uint8) for s in seeds])


def small_target(layers: dict[str, str] | None = None, **options) -> Target:
    """Two convolutions and a linear layer, always the same."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        parts = [nn.Conv2d(3, 8, 3), nn.ReLU(inplace=True), nn.Conv2d(8, 6, 3), nn.Flatten(), nn.Linear(864, 10)]
    layers = {"0": "avg", "1": "max", "4": "none"} if layers is None else layers
    return Target("small", nn.Sequential(*parts), Preprocess(), layers, **options)


if __name__ == "__main__":
    devices, images, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    torch.set_num_threads(1)
    walk.FLUSH_SECONDS = 0.0
    strategy = "ddp" if devices > 1 else "auto"
    trainer = partial(make, accelerator="cpu", devices=devices, strategy=strategy, enable_progress_bar=False)
    record(small_target(), Noise(images, seconds), trainer)
