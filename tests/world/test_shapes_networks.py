import pytest
import torch

from neuronx.errors import UserError
from neuronx.world.networks import NETWORKS, load, small_resnet, small_vit
from neuronx.world.pictures.render import render
from neuronx.world.pictures.scene import PROBE, sample
from neuronx.world.pictures.words import CLASS_NAMES, labels


@pytest.mark.parametrize("make", NETWORKS.values(), ids=list(NETWORKS))
def test_networks_take_64_pixels_and_are_narrow(make):
    network = make(10).eval()
    assert network(torch.zeros(2, 3, 64, 64)).shape == (2, 10)
    assert sum(p.numel() for p in network.parameters()) < 500_000


def test_resnet_has_torchvisions_layer_names():
    names = dict(small_resnet(5).named_children())
    assert {"conv1", "layer1", "layer2", "layer3", "layer4", "fc"} <= set(names)


def test_vit_has_hookable_blocks_mlps_and_a_class_token():
    network = small_vit(5)
    assert isinstance(network.blocks[3].mlp.act, torch.nn.GELU)
    assert network.num_prefix_tokens == 1


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("shapes_resnet", {"layer3": (48, 8, 8), "layer4": (64, 4, 4)}),
        ("shapes_vit", {"blocks.2.mlp.act": (65, 192), "blocks.3": (65, 96)}),
    ],
)
def test_shipped_networks_are_targets_that_name_the_main_object(name, shapes):
    target = load(name)
    scenes = sample(PROBE, torch.arange(200))
    with target.record(target.layers) as found, torch.inference_mode():
        logits = target.module(target.transform(render(scenes)))
    assert target.class_names == CLASS_NAMES
    assert {layer: tuple(found[layer].shape[1:]) for layer in target.layers} == shapes
    assert (logits.argmax(1) == labels(scenes)).float().mean() > 0.8


def test_a_target_of_a_name_that_is_not_shipped_says_what_is():
    with pytest.raises(UserError, match="shapes_resnet"):
        load("shapes_resnt")


def test_a_clip_is_no_classifier():
    with pytest.raises(UserError, match="classifier"):
        load("shapes_judge")
