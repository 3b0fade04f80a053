"""Works on a small network as a process of its own, into $NEURONX_CACHE.

job.py record DEVICES IMAGES SECONDS_A_BATCH; job.py exemplars DEVICES IMAGES SECONDS_A_BATCH TAIL_MB (prints peak MB)
"""

import resource
import sys
import time
from functools import partial

import torch
from torch import Tensor, nn

from neuronx.data.probe import Probe
from neuronx.recording import forward_pass
from neuronx.recording.exemplars import observe
from neuronx.recording.record import record
from neuronx.recording.trainer import make
from neuronx.targets.preprocess import Preprocess
from neuronx.targets.target import Target


class Noise(Probe):
    """Random pictures of 16 pixels, each from its own row."""

    name = "noise"
    domain = "natural"
    fingerprint = "noise"

    def __init__(self, images: int, seconds: float = 0.0) -> None:
        super().__init__(batch_size=8)
        self.images, self.seconds = images, seconds
        rows = torch.arange(images)
        self.splits = {"train": rows[rows % 5 < 3], "val": rows[rows % 5 == 3], "test": rows[rows % 5 == 4]}

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


def breaks(unit: int, value: float):
    """A hook that gives a unit a value on the image whose first pixel is largest in its batch."""

    def hook(_: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> torch.Tensor:
        changed = output.clone()
        changed[inputs[0][:, 0, 0, 0].argmax(), unit, 0, 0] = value
        return changed

    return hook


if __name__ == "__main__":
    work, devices, images, seconds, *tail_mb = sys.argv[1:]
    torch.set_num_threads(1)
    probe = Noise(int(images), float(seconds))
    strategy = "ddp" if devices != "1" else "auto"
    trainer = partial(make, accelerator="cpu", devices=int(devices), strategy=strategy, enable_progress_bar=False)
    if len(probe) < 1000:  # short jobs are killed: all that was done is on disk
        forward_pass.SAVE_SECONDS = 0.0
    else:
        probe.batch_size = 32
    if work == "record":
        record(small_target(), probe, trainer)
    else:
        observe(small_target(), probe, trainer, k=3, tail_mb=float(tail_mb[0]))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
