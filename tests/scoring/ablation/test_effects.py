"""What units do to the loss: against replacing them one by one in the whole network."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from neuronx.data.in_memory import AsIs, probe_of
from neuronx.scoring.ablation.importance import effects
from neuronx.targets.target import Target


@pytest.fixture(scope="module")
def world():
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 5, 3),
        nn.ReLU(),
        nn.Conv2d(5, 6, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 4),
    )
    probe = probe_of(torch.randn(50, 3, 8, 8))
    probe.labels = torch.arange(50) % 4
    return Target("net", module, AsIs(), {"1": "avg", "3": "avg"}), probe


def brute(target, images, labels, layer, units):
    found = []
    for unit in units:
        with target.replace(layer, unit, 0.0), torch.inference_mode():
            logits = target.module(images)
        found.append((cross_entropy(logits, labels, reduction="none"), logits.argmax(1) == labels))
    return (torch.stack(one) for one in zip(*found, strict=True))


@pytest.mark.parametrize(("layer", "path"), [("1", "tail"), ("2", "tail"), ("3", "linear"), ("5", "linear")])
def test_losses_and_answers_are_the_networks(world, trainer, layer, path):
    target, probe = world
    rows = torch.arange(3, 47, 2)
    probe.batch_size = 7
    found = effects(replace(target, units={layer: [0, 2, 4]}), probe, trainer, layer, rows)
    images, labels = probe.load(rows.tolist()), probe.labels[rows]
    images = torch.stack(list(images))
    loss, right = brute(target, images, labels, layer, [0, 2, 4])
    assert found.path == path and found.units.tolist() == [0, 2, 4]
    assert torch.allclose(found.loss, loss, atol=1e-5) and torch.equal(found.still_right, right)
    with torch.inference_mode():
        logits = target.module(images)
    assert torch.allclose(found.intact, cross_entropy(logits, labels, reduction="none"), atol=1e-5)
    assert torch.equal(found.right, logits.argmax(1) == labels)


def test_all_units_by_default(world, trainer):
    target, probe = world
    assert effects(target, probe, trainer, "1", torch.arange(50)).loss.shape == (5, 50)


@pytest.mark.slow
def test_a_middle_layer_of_squeezenet_agrees_with_brute_force(shared, trainer):
    from neuronx.data.folder import FolderProbe
    from neuronx.targets.torchvision import load

    weights = shared / "data/weights/squeezenet1_0_imagenet.safetensors"
    target = load("squeezenet1_0", weights=str(weights), layers={"features.7": "avg"})
    folder = FolderProbe(shared / "data/imagenet_sample")  # a folder for each of the 1000 classes, in their order
    rows = torch.arange(0, 1000, 50)
    images, _ = next(iter(folder.loader(target.transform, rows, batch_size=20)))
    probe = probe_of(images)
    probe.labels = folder.labels[rows]
    some = replace(target, units={"features.7": [3, 100, 200]})
    found = effects(some, probe, trainer, "features.7", torch.arange(20))
    loss, right = brute(target, images, probe.labels, "features.7", [3, 100, 200])
    assert found.path == "tail" and (found.loss - found.intact).abs().max() > 1e-3
    assert torch.allclose(found.loss, loss, atol=1e-4) and torch.equal(found.still_right, right)
