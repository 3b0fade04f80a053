"""Centres: a map lies over the picture where its positions look, whatever the kernels and paddings before it."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from neuronx.data.in_memory import InMemoryProbe
from neuronx.errors import UserError
from neuronx.methods.pure.patches import cut
from neuronx.recording import centres
from neuronx.recording.exemplars import find_exemplars, gather
from neuronx.recording.maps import FieldCentres
from neuronx.targets.preprocess import Preprocess
from neuronx.targets.target import Target

SIDE = 64
STEP = 8
"""Of three convolutions of stride 2."""


def detector(kernel: int, padding: int | tuple[int, ...], seed: int = 0) -> Target:
    """Three convolutions of stride 2; unit 0 of the last one answers to light, in whatever of its field it is."""
    pads = (padding,) * 4 if isinstance(padding, int) else padding
    convolutions = [nn.Conv2d(3, 6, kernel, 2), nn.Conv2d(6, 6, kernel, 2), nn.Conv2d(6, 6, kernel, 2)]
    generator = torch.Generator().manual_seed(seed)
    for convolution in convolutions:
        weight = convolution.weight.data.normal_(generator=generator).div_(kernel)
        bell = (1 - (torch.arange(kernel) - (kernel - 1) / 2).abs() / kernel) ** 4
        weight[0] = 0
        weight[0, : 3 if convolution is convolutions[0] else 1] = torch.outer(bell, bell)
        convolution.bias.data.zero_()
    layers = [part for each in convolutions for part in (nn.ZeroPad2d(pads), each, nn.ReLU())]
    # The classifier after the layer takes pictures of one size only.
    with torch.no_grad():
        features = nn.Sequential(*layers)(torch.zeros(1, 3, SIDE, SIDE)).numel()
    return Target("blobs", nn.Sequential(*layers, nn.Flatten(), nn.Linear(features, 4)), Preprocess(), {"8": "avg"})


def blobs() -> tuple[InMemoryProbe, torch.Tensor]:
    """Dim noise with one bright blob each, and the centres (N, 2) of these."""
    generator = torch.Generator().manual_seed(1)
    pictures = torch.randint(0, 40, (40, 3, SIDE, SIDE), generator=generator)
    at = torch.randint(20, 40, (40, 2), generator=generator)
    for picture, (y, x) in zip(pictures, at.tolist(), strict=True):
        picture[:, y - 3 : y + 3, x - 3 : x + 3] = 255
    return InMemoryProbe(pictures.byte(), domain="shapes"), at.float()


@pytest.mark.parametrize(
    ("kernel", "padding", "start"),
    [
        *(
            (3, 1, 0.5),
            (5, 2, 0.5),
            (7, 3, 0.5),
            (3, 0, 7.5),
            (5, 0, 14.5),
            (3, (0, 1, 0, 1), 7.5),
            (5, (1, 2, 2, 1), None),
        ),
        *((2, 0, 4.0), (4, 1, 4.0), (4, 0, 11.0), (4, (2, 0, 1, 1), None)),
    ],
)
def test_masks_of_a_blob_detector_are_centred_on_its_blobs(kernel, padding, start, trainer):
    target, (probe, at) = detector(kernel, padding), blobs()
    (found,) = find_exemplars(target, probe, trainer, k=15).values()
    if start is not None:
        measured = found.centres or FieldCentres((4 / SIDE,) * 2, (STEP / SIDE,) * 2)
        torch.testing.assert_close(SIDE * torch.tensor(measured.start), torch.tensor([start] * 2), atol=1, rtol=0)
        torch.testing.assert_close(SIDE * torch.tensor(measured.step), torch.tensor([float(STEP)] * 2))
    maps = gather({"8": found}, {"8": torch.tensor([0])}, target, probe, trainer)[0]["8"][0]
    fires = cut(maps, 0.7 * maps.amax((1, 2)), SIDE, found.centres).float()
    pixels = torch.arange(SIDE) + 0.5
    middles = torch.stack([fires.sum(axis) @ pixels for axis in (2, 1)], 1) / fires.sum((1, 2))[:, None]
    assert ((middles - at[found.rows[0]]).abs() <= STEP / 2).all()


def test_equal_cells_lie_half_a_cell_beside_the_blobs_of_odd_kernels(trainer):
    (probe, at), published = blobs(), replace(detector(3, 1), masks="published")
    (found,) = find_exemplars(published, probe, trainer, k=15).values()
    assert found.centres is None
    maps = gather({"8": found}, {"8": torch.tensor([0])}, published, probe, trainer)[0]["8"][0]
    fires = cut(maps, 0.7 * maps.amax((1, 2)), SIDE).float()
    pixels = torch.arange(SIDE) + 0.5
    middles = torch.stack([fires.sum(axis) @ pixels for axis in (2, 1)], 1) / fires.sum((1, 2))[:, None]
    torch.testing.assert_close((middles - at[found.rows[0]]).mean(0), torch.tensor([3.5, 3.5]), atol=1, rtol=0)


@pytest.fixture
def probe():
    generator = torch.Generator().manual_seed(0)
    return InMemoryProbe(torch.randint(0, 256, (20, 3, 32, 32), generator=generator, dtype=torch.uint8))


class Transformer(nn.Module):
    """Patches that attention joins, for pictures of 32 pixels; or a few convolutions make them."""

    def __init__(self, stem: nn.Module) -> None:
        super().__init__()
        self.stem, self.places = stem, nn.Parameter(torch.randn(16, 24))
        self.block = nn.TransformerEncoderLayer(24, 2, 48, batch_first=True, dropout=0.0)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return self.block(self.stem(pictures).flatten(2).transpose(1, 2) + self.places)


@pytest.mark.parametrize("stem", ["patches", "convolutions"])
def test_tokens_lie_where_their_patches_are(stem, probe):
    torch.manual_seed(0)
    halving = [nn.Conv2d(3 if i == 0 else 24, 24, 3, 2, 1) for i in range(3)]
    network = Transformer(nn.Conv2d(3, 24, 8, 8) if stem == "patches" else nn.Sequential(*halving))
    target = Target(stem, network, Preprocess(), {"block": "avg"}, prefix_tokens=0)
    measured = centres.measure(target, probe, "block", (4, 4))
    if stem == "patches":
        assert measured is None
    else:
        torch.testing.assert_close(32 * torch.tensor(measured.start), torch.tensor([0.5, 0.5]), atol=1, rtol=0)
        assert measured.step == (0.25, 0.25)


class Silent(nn.Module):
    """Gives no gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 8, 3, 2, 1)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return self.convolution(pictures)


def pooled_to(side: int) -> nn.Module:
    """Of a grid whose step follows the pictures' size."""
    return nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.AdaptiveAvgPool2d(side))


@pytest.mark.parametrize(
    ("network", "grid"),
    [(Silent(), (16, 16)), (pooled_to(4), (4, 4)), (nn.Conv2d(3, 8, 1), (32, 32)), (nn.Conv2d(3, 8, 32), (1, 1))],
)
def test_without_gradient_or_regular_steps_cells_are_equal(network, grid, probe, trainer):
    target = Target("plain", network, Preprocess(), {"": "avg"})
    (found,) = find_exemplars(target, probe, trainer, k=3).values()
    assert found.grid == grid and found.centres is None


def test_centres_are_measured_once_and_kept(probe, trainer, monkeypatch):
    target = Target("one", nn.Conv2d(3, 8, 3, 2, 1), Preprocess(), {"": "avg"})
    first = find_exemplars(target, probe, trainer, k=3)[""].centres
    assert first == FieldCentres((0.5 / 32,) * 2, (2 / 32,) * 2)
    monkeypatch.setattr(centres, "measure", None)
    assert find_exemplars(target, probe, trainer, k=4)[""].centres == first
    assert find_exemplars(target.select(masks="published"), probe, trainer, k=4)[""].centres is None
    with pytest.raises(UserError, match=r"masks=.*`halfpixel`.*receptive"):
        target.select(masks="halfpixel")


def test_a_network_is_left_as_it_was(probe):
    target = Target("one", nn.Conv2d(3, 8, 3, 2, 1), Preprocess(), {"": "avg"})
    before = {name: value.clone() for name, value in target.module.state_dict().items()}
    centres.measure(target, probe, "", (16, 16))
    assert all(torch.equal(before[name], value) for name, value in target.module.state_dict().items())
    assert all(not weight.requires_grad and weight.grad is None for weight in target.module.parameters())
    assert not target.module._forward_hooks and not target.module._forward_pre_hooks
