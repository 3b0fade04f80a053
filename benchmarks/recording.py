"""Recording against the bare forward pass: same network, batches, pictures in memory and memory format."""

import os
import resource
import tempfile
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import torch
import torchvision
from torch import Tensor, nn

from neuronx.data.probe import Probe
from neuronx.recording.record import record
from neuronx.recording.trainer import make
from neuronx.targets.cifar import resnet20
from neuronx.targets.target import Target
from neuronx.world.networks import small_vit

ROUNDS = 5


class InMemory(Probe):
    """Float pictures (N, 3, H, W) that are ready for the network."""

    name = "in memory"
    domain = "natural"
    fingerprint = "in memory"

    def __init__(self, images: Tensor, batch_size: int) -> None:
        super().__init__(batch_size=batch_size)
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def load(self, rows: list[int]) -> Tensor:
        """Some of them, without any decoding."""
        return self.images[rows]


def report() -> list[dict]:
    """One row for each network and choice of layers."""
    torch.manual_seed(0)
    large, small, vit = torchvision.models.resnet18(), resnet20(), small_vit(120)
    four = {f"layer{i}": "avg" for i in range(1, 5)}
    tokens = {"blocks.2.mlp.act": "avg", "blocks.3": "first"}
    return [
        compare("ResNet-18, 224 px, batch 32: layer4", large, {"layer4": "avg"}, torch.randn(96, 3, 224, 224), 32),
        compare("ResNet-18, 224 px, batch 32: four layers", large, four, torch.randn(96, 3, 224, 224), 32),
        compare("ResNet-20, 32 px, batch 256: layer3", small, {"layer3": "avg"}, torch.randn(2560, 3, 32, 32), 256),
        compare("small ViT, 64 px, batch 256: 2 layers", vit, tokens, torch.randn(5120, 3, 64, 64), 256),
    ]


def compare(
    name: str,
    network: nn.Module,
    layers: dict[str, str],
    images: Tensor,
    batch_size: int,
    work: Callable[[Target, Probe], None] | None = None,
) -> dict:
    """Median CPU seconds of `work` (recording) and the bare pass over interleaved rounds, the first left out."""
    target = Target("network", network, nn.Identity(), layers)
    ours, bare = [], []
    for _ in range(1 + ROUNDS):
        ours.append(cpu_seconds(partial(work or _record, target, InMemory(images, batch_size))))
        bare.append(cpu_seconds(partial(forward, network, images, batch_size)))
    seconds, reference = median(ours[1:]), median(bare[1:])
    return {
        "name": name,
        "ours_cpu_s": seconds,
        "reference_cpu_s": reference,
        "ratio": reference / seconds,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def _record(target: Target, probe: Probe) -> None:
    trainer = partial(make, accelerator="cpu", enable_progress_bar=False)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NEURONX_CACHE"] = folder
        record(target, probe, trainer)


@torch.inference_mode()
def forward(network: nn.Module, images: Tensor, batch_size: int) -> None:
    """The bare forward pass, in the memory format that is fastest on a CPU."""
    if any(isinstance(part, nn.BatchNorm2d) for part in network.modules()):
        network.to(memory_format=torch.channels_last)
    for batch in images.split(batch_size):
        network(batch)
    network.to(memory_format=torch.contiguous_format)


def cpu_seconds(work: partial[None]) -> float:
    """What the process spends on some work."""
    start = time.process_time()
    work()
    return time.process_time() - start
