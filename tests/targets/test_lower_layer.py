"""The lower layer by default: the one before, of the target's own layers or of its kind."""

import pytest
import timm
import torch
import torchvision
from circuit_cases import small_target, untouched
from torch import nn

from neuronx.errors import UserError
from neuronx.targets.dictionary import Dictionary
from neuronx.targets.segment import lower_layer
from neuronx.targets.target import Target

RESNET = {"layer4": "layer3", "layer2": "layer1", "layer4.0": "layer3.1", "layer4.0.conv2": "layer4.0.conv1"}
RESNET |= {"layer4.1.conv1": "layer4.0.downsample.0", "fc": "layer4", "layer1": "bn1", "bn1": "conv1"}
FIRE = {"features.12": "features.11", "features.9": "features.7", "features.12.squeeze": "features.11.expand3x3"}
VIT = {"blocks.1": "blocks.0", "blocks[1].mlp": "blocks.0.mlp", "blocks.0": "patch_embed"}


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: torchvision.models.resnet18(num_classes=5), RESNET),
        (lambda: torchvision.models.squeezenet1_1(num_classes=5), FIRE),
        (lambda: timm.create_model("test_vit", img_size=32, num_classes=5), VIT),
    ],
)
def test_the_layer_before_of_the_same_kind(make, expected):
    network = make()
    last = next(iter(expected)).replace("[1]", ".1")
    target = Target("network", network, nn.Identity(), {last: "avg"}, input_size=32)
    assert {layer: lower_layer(target, layer) for layer in expected} == expected
    assert untouched(network)


def test_the_layers_listed_come_first():
    target = small_target(layers={"stem": "avg", "stage2": "avg", "stage2.0.conv1": "avg"})
    # What lies inside a layer is not over before it begins.
    assert lower_layer(target, "stage2") == "stem" and lower_layer(target, "stage2.1") == "stage2.0.conv1"


def test_a_dictionary_has_the_lower_layer_of_what_it_reads():
    directions = Dictionary(torch.randn(4, 10))
    target = small_target(layers={"stage2": "avg"}, dictionary=directions)
    assert lower_layer(target, "stage2.dictionary") == "stage1"


@pytest.mark.parametrize(
    ("layer", "wrong"), [("stem.0", "`stem.0` is the first layer of small"), ("stage", "no layer")]
)
def test_a_first_or_unknown_layer_is_an_error(layer, wrong):
    target = small_target()
    with pytest.raises(UserError, match=wrong):
        lower_layer(target, layer)
    assert untouched(target.module)
