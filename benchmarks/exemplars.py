"""Exemplars, thresholds and pooled activations of four layers in one pass, against the bare forward pass.

Then the peak memory with ten times as many images, each number of images in a process of its own.
"""

import os
import resource
import subprocess
import sys
import tempfile
from functools import partial

import torch
import torchvision
from torch import Tensor, nn

from benchmarks.recording import compare
from neuronx.data.probe import Probe
from neuronx.recording.exemplars import observe
from neuronx.recording.trainer import make
from neuronx.targets.target import Target
from neuronx.world.networks import small_vit


def report() -> list[dict]:
    """One row for each network, the second with a budget that spills almost everything; then rows of memory only."""
    torch.manual_seed(0)
    four = {f"layer{i}": "avg" for i in range(1, 5)}
    tokens = {"blocks.2.mlp.act": "avg", "blocks.3": "first"}
    large, pictures = torchvision.models.resnet18(), torch.randn(192, 3, 224, 224)
    ample = partial(_observe, tail_mb=64)
    return [
        compare("ResNet-18, 224 px, batch 32: four layers", large, four, pictures, 32, ample),
        compare("the same, 4 MB of tails in memory", large, four, pictures, 32, partial(_observe, tail_mb=4)),
        compare(
            "small ViT, 64 px, batch 256: 2 layers", small_vit(120), tokens, torch.randn(5120, 3, 64, 64), 256, ample
        ),
        *(peak(images, tail_mb) for tail_mb in (64, 4) for images in (2000, 20000)),
    ]


def peak(images: int, tail_mb: float) -> dict:
    """Peak memory of a process that finds the exemplars of two layers among so many images."""
    code = f"import benchmarks.exemplars as b; b.find({images}, {tail_mb})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    name = f"memory: {images} images, {tail_mb} MB of tails"
    return {"name": name, "peak_mb": float(done.stdout.split()[-1])}


class Noise(Probe):
    """Random pictures of 32 pixels, made when they are asked for."""

    name = "noise"
    domain = "natural"
    fingerprint = "noise"

    def __init__(self, images: int) -> None:
        super().__init__(batch_size=50)
        self.images = images

    def __len__(self) -> int:
        return self.images

    def load(self, rows: list[int]) -> Tensor:
        """Of a batch, from its first row."""
        return torch.randn(len(rows), 3, 32, 32, generator=torch.Generator().manual_seed(rows[0]))


def find(images: int, tail_mb: float) -> None:
    """Finds exemplars and prints the peak of memory in MB."""
    network = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3, stride=2))
    _observe(Target("small", network, nn.Identity(), {"0": "avg", "2": "avg"}), Noise(images), tail_mb)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def _observe(target: Target, probe: Probe, tail_mb: float) -> None:
    trainer = partial(make, accelerator="cpu", enable_progress_bar=False)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NEURONX_CACHE"] = folder
        observe(target, probe, trainer, rows=torch.arange(len(probe)), tail_mb=tail_mb)
