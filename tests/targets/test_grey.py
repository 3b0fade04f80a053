"""Networks of one channel and of many: transforms, blank pictures, tensors, and what a person sees of them."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision import transforms

import neuronx
from neuronx.errors import UserError
from neuronx.recording.pictures import view
from neuronx.targets import custom
from neuronx.targets.preprocess import Preprocess, grey, transform_of

GREY = torch.randint(0, 256, (100, 1, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
LABELS = [i % 4 for i in range(100)]


def network(channels: int) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(channels, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def test_grey_is_luminance_and_leaves_grey_as_it_is():
    colours = torch.rand(2, 3, 4, 4)
    weights = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    assert torch.allclose(grey(colours), (colours * weights).sum(1, keepdim=True), atol=1e-6)
    same = GREY[:2].float() / 255
    assert torch.equal(grey(same.expand(-1, 3, -1, -1)), same) and grey(same) is same


def pil(image: torch.Tensor) -> Image.Image:
    return Image.fromarray(image[0].numpy())


EXPECTED = GREY.float() / 255


@pytest.mark.parametrize(
    ("pictures", "transform"),
    [
        (GREY, "none"),
        (GREY.expand(-1, 3, -1, -1), "none"),
        (list(GREY), "none"),
        ([pil(image) for image in GREY], "none"),
        ([pil(image) for image in GREY], transforms.ToTensor()),
        (
            [pil(image).convert("RGB") for image in GREY],
            transforms.Compose([transforms.Grayscale(), transforms.ToTensor()]),
        ),
        (GREY, lambda batch: batch.float() / 255),
        (EXPECTED, "imagenet"),
        (list(EXPECTED), "imagenet"),
        (list(EXPECTED.double()), "imagenet"),
    ],
)
def test_a_network_of_one_channel_sees_grey_pictures(pictures, transform):
    found = neuronx.study(network(1), neuronx.probe_of(pictures, labels=LABELS), layer="1", transform=transform)
    target, probe = found.target, found.probe
    (inputs, _) = next(iter(probe.loader(target.transform)))
    assert torch.allclose(inputs.float(), EXPECTED[:64]) and inputs.shape[1] == 1
    assert len(found.explain("le_label")) == 8
    shown = view(target.transform, 16)
    given = probe.load([0, 1])
    seen = shown(given) if isinstance(given, torch.Tensor) else torch.stack([shown(picture) for picture in given])
    assert torch.equal(seen, GREY[:2].expand(-1, 3, -1, -1))


def test_a_mean_of_three_channels_does_not_suit_one():
    with pytest.raises(
        UserError, match=r"takes pictures of one channel, but mean=\[0.485, .* give transform=mnist, none"
    ):
        neuronx.study(network(1), neuronx.probe_of(GREY, labels=LABELS), layer="1")
    assert transform_of("mnist", 1)(pil(GREY[0])).shape == (1, 28, 28)


def test_a_network_of_many_channels_takes_tensors_and_no_pictures():
    bands = torch.rand(100, 13, 16, 16)
    found = neuronx.study(network(13), neuronx.probe_of(bands, labels=LABELS), layer="1")
    assert len(found.explain("le_label")) == 8
    assert view(found.target.transform, 8)(bands[:2]).shape == (2, 3, 8, 8)
    with pytest.raises(
        UserError, match=r"takes pictures of 13 channels, but is given 3; other pictures .* float tensor"
    ):
        neuronx.study(network(13), neuronx.probe_of(GREY, labels=LABELS), layer="1", transform="none")
    with pytest.raises(UserError, match=r"not \(100, 13, 16, 16\); floats"):
        neuronx.probe_of((bands * 255).byte())


@pytest.mark.parametrize("channels", [1, 3, 13])
def test_the_table_of_layers_is_made_with_as_many_channels(channels):
    rows = {row.name: row for row in custom.load(network(channels), transform="none").layer_table()}
    assert rows["0"].units == 8


def test_the_table_of_layers_finds_a_side_that_the_network_takes():
    digits = nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 5))
    first = nn.Sequential(nn.Conv2d(1, 1, 1), digits)
    rows = {row.name: row for row in custom.load(first, transform="none").layer_table()}
    assert rows["0"].shape == (1, 28, 28) and rows["1.1"].units == 5
    with pytest.raises(UserError, match=r"does not take blank pictures.*set input_size, or resize in transform"):
        custom.load(nn.Sequential(nn.Flatten(), nn.Linear(7, 5)), transform="none").layer_table()


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"resize": 0}, "resize=0: write a side"),
        ({"crop": [32, 0]}, r"crop=\[32, 0\]"),
        ({"resize": 100000}, "in pixels, 1 to 8192"),
        ({"resize": "big"}, "resize=big"),
        ({"mean": [0, 0], "std": [1, 1]}, r"mean=\[0, 0\]: write three numbers"),
        ({"mean": [0, 0, float("nan")], "std": [1, 1, 1]}, "mean="),
        ({"mean": [0, 0, 0], "std": [0, 1, 1]}, "must be above 0"),
        ({"mean": [0, 0, 0]}, "give both"),
        ({"interpolation": "cubic"}, "no interpolation of a transform `cubic`.*bicubic"),
        ({"grey": "yes"}, "grey=yes: write true or false"),
    ],
)
def test_fields_that_make_no_picture_are_refused(fields, says):
    with pytest.raises(UserError, match=says):
        transform_of(fields)


@pytest.mark.parametrize("workers", [0, 1])
def test_pictures_of_unequal_sizes_are_named(tmp_path, workers):
    for i in range(60):
        Image.fromarray(np.full((8, 8 + (i > 30), 3), i, np.uint8)).save(tmp_path / f"{i:02d}.png")
    probe = neuronx.probe_of(tmp_path, num_workers=workers)
    with pytest.raises(UserError) as error:
        list(probe.loader(Preprocess()))
    assert str(error.value).startswith(
        f"Pictures of `{probe.name}` are of unequal sizes, 00.png (3, 8, 8) and 31.png (3, 8, 9)"
    )
    assert "\n" not in str(error.value)
