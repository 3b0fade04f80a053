"""Image generators as targets: your own with one latent or several, and the shipped one."""

import pytest
import torch
from torch import nn

from neuronx import checkpoints
from neuronx.data.latents import latent_probe
from neuronx.errors import UserError
from neuronx.targets import generator
from neuronx.world.generator import ShapesGenerator
from neuronx.world.generator import load as load_shapes
from neuronx.world.pictures.scene import CLASS_NAMES, HIERARCHY


class Two(nn.Module):
    """From z (B, 3), noise (B, 2, 1, 1) and one of two classes to pictures (B, 3, 4, 4)."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(5, width, 4)
        self.paint = nn.Conv2d(width, 3, 1)

    def forward(self, z, noise, y):
        return self.paint(self.up(torch.cat([z[:, :, None, None], noise], 1)) + y[:, None, None, None])


def test_your_own_generator_with_several_latents_and_classes(tmp_path):
    torch.save(Two(4).state_dict(), tmp_path / "g.pt")
    target = generator.load(
        Two,
        tmp_path / "g.pt",
        latent_dim=[[3], [2, 1, 1]],
        classes=["cat", "dog"],
        layers=["up"],
        arguments={"width": 4},
        truncation=2.0,
    )
    assert target.name == "Two" and target.transform is target.latents and target.class_names == ()
    assert [(row.name, row.shape) for row in target.layer_table()] == [
        ("", (3, 4, 4)),
        ("up", (4, 4, 4)),
        ("paint", (3, 4, 4)),
    ]
    probe = latent_probe(target.select(units=[1]), 12)
    assert probe.class_names == ("cat", "dog") and probe.load([0, 1]).shape == (2, 3, 4, 4)


def picture(*inputs):
    return torch.zeros(len(inputs[0]), 3, 2, 2)


class Any(nn.Module):
    """Takes whatever it is given."""

    def forward(self, *inputs):
        return picture(*inputs)


@pytest.mark.parametrize(("dim", "shapes"), [(8, ((8,),)), ([8, 1, 1], ((8, 1, 1),)), ([[8], [3, 1]], ((8,), (3, 1)))])
def test_lengths_and_shapes_of_latents(dim, shapes):
    assert generator.load(Any, latent_dim=dim).latents.shapes == shapes


def test_a_number_of_classes_will_do():
    latents = generator.load(Any, classes=1000).latents
    assert latents.classes == 1000 and latents.class_names[999] == "class 999"
    with pytest.raises(UserError, match="no file of class names"):
        generator.load(Any, classes="nowhere.txt")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"latent_dim": 3}, r"1 inputs of shapes \[\(1, 3\)\]; set latent_dim, classes"),
        ({"latent_dim": [[4], [2, 1, 1]], "classes": 2}, "3 inputs"),
        ({"model": nn.Identity, "latent_dim": 3}, r"pictures \(B, 3, H, W\)"),
        ({"truncation": -1}, "truncation"),
    ],
)
def test_what_does_not_fit_is_said_at_once(options, says):
    with pytest.raises(UserError, match=says):
        generator.load(**({"model": Two} | options))


def test_the_worlds_generator_is_rebuilt_from_its_card(tmp_path):
    sizes = {"latent_dim": 5, "channels": [4, 4, 4, 4]}
    module = ShapesGenerator(**sizes)
    card = {
        "about": "",
        "command": "",
        "training": {},
        "figures": {},
        "classes": CLASS_NAMES,
        "layers": {"layer2": "avg"},
    }
    path = checkpoints.write(tmp_path, "small", module.state_dict(), card | {"generator": sizes})
    target = load_shapes(path, layers=["layer1", "layer3"])
    assert (
        target.name == "small"
        and target.latents.domain == "shapes"
        and target.latents.hierarchy == HIERARCHY
        and load_shapes(path).layers == {"layer2": "avg"}
    )
    assert [row.shape for row in target.layer_table(layers=target.layers)] == [(4, 8, 8), (4, 32, 32)]
    checkpoints.write(tmp_path, "small", module.state_dict(), card)
    with pytest.raises(UserError, match="no generator"):
        load_shapes(path)
