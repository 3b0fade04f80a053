"""Circuit vectors of pairs of image and unit, against zennit-crp's batched conditional attribution of the same pairs.

Ours is all of `circuit_vectors`, from pictures to the store. Then the collection of references, against the bare pass.
"""

import os
import resource
import tempfile
from functools import partial
from statistics import median

import timm
import torch
import torchvision
from crp.attribution import CondAttribution
from crp.concepts import ChannelConcept
from torch import Tensor, nn
from zennit.core import Composite

from benchmarks.recording import InMemory, compare, cpu_seconds
from neuronx.data.probe import Probe
from neuronx.methods.pure.circuits import circuit_vectors
from neuronx.recording.exemplars import find_exemplars
from neuronx.recording.trainer import make
from neuronx.targets.target import Target

TRAINER = partial(make, accelerator="cpu", enable_progress_bar=False)
BATCH = 40
"""Pairs at a time in PURE's published code."""
IMAGES, UNITS = 8, 16
"""Each image is a reference of so many units: in PURE, 51,200 to 204,800 pairs share 50,000 images."""


def report() -> list[dict]:
    """A row for each network, and one for the references; `ratio` is theirs to ours."""
    torch.manual_seed(0)
    large, pictures = torchvision.models.resnet18(), torch.randn(128, 3, 224, 224)
    return [
        _row("ResNet-18 of torchvision, 224 px, layer3 to layer4", torchvision.models.resnet18()),
        _row("ResNet-34 of timm, 224 px, layer3 to layer4", timm.create_model("resnet34")),
        compare("references: 100 a unit, ResNet-18 layer4", large, {"layer4": "max"}, pictures, 32, _references),
    ]


def _row(name: str, network: nn.Module) -> dict:
    """Seconds for all pairs, the median of three rounds of ours; the references would take too long more than once."""
    probe = InMemory(torch.randn(IMAGES, 3, 224, 224), IMAGES)
    target = Target("network", _lively(network), nn.Identity(), {"layer3": "avg", "layer4": "avg"}, input_size=224)
    rows = torch.arange(IMAGES).repeat_interleave(UNITS)
    units = torch.randint(0, 512, (len(rows),))
    found: dict[str, Tensor] = {}
    ours = [cpu_seconds(partial(_ours, found, target, probe, rows, units)) for _ in range(3)]
    reference = cpu_seconds(partial(_crp, found, network, probe.images, rows, units))
    seconds = median(ours)
    return {
        "name": f"{name}, {len(rows)} pairs",
        "ours_cpu_s": seconds,
        "reference_cpu_s": reference,
        "ratio": reference / seconds,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "ms a pair": f"{1000 * seconds / len(rows):.0f}",
        "largest difference": f"{float((found['ours'] - found['crp']).abs().max()):.0e}",
    }


def _ours(found: dict[str, Tensor], target: Target, probe: Probe, rows: Tensor, units: Tensor) -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NEURONX_CACHE"] = folder
        found["ours"] = circuit_vectors(target, probe, TRAINER, "layer4", rows, units, lower="layer3").vectors


def _crp(found: dict[str, Tensor], network: nn.Module, images: Tensor, rows: Tensor, units: Tensor) -> None:
    attribution, concept, parts = CondAttribution(network), ChannelConcept(), []
    for some, own in zip(rows.split(BATCH), units.split(BATCH), strict=True):
        result = attribution(
            images[some].requires_grad_(),
            [{"layer4": [unit]} for unit in own.tolist()],
            Composite(),
            record_layer=["layer3"],
            start_layer="layer4",
            init_rel=lambda activations: activations.clamp(min=0),
        )
        product = result.relevances["layer3"] * result.activations["layer3"]
        parts.append(concept.attribute(product, abs_norm=True).detach())
    found["crp"] = torch.cat(parts)


def _references(target: Target, probe: Probe) -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NEURONX_CACHE"] = folder
        find_exemplars(target, probe, TRAINER, k=100, rows=torch.arange(len(probe)))


def _lively(network: nn.Module) -> nn.Module:
    """Batch norms that are not what they were made as: timm's last of each block begin at zero."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1)
            module.bias.data.normal_(0, 0.1)
    return network.eval()
