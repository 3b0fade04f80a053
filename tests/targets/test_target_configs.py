"""Every published target's YAML makes a target, downloads stubbed by the architecture's own random weights."""

from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate

from neuronx.errors import UserError

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "target"
GENERIC = {
    "custom": {"model": "torch.nn.Identity"},
    "generator": {
        "model": "torch.nn.Unflatten",
        "arguments": "{dim:1,unflattened_size:[3,8,8]}",
        "latent_dim": 192,
    },
    "torchvision": {"model": "squeezenet1_1", "weights": "random", "layers": "features.3"},
    "timm": {"model": "test_vit.r160_in1k", "weights": "random", "layers": "blocks.1", "pool": "patch"},
}
# The paper's own table 2 and the tables after it: layer, pooling, number of units.
PUBLISHED = {
    "resnet18_imagenet": ("layer4", "avg", 512),
    "resnet34_imagenet": ("layer4", "avg", 512),
    "resnet50_imagenet": ("layer4", "avg", 2048),
    "resnet101_imagenet": ("layer4", "avg", 2048),
    "resnet152_imagenet": ("layer4", "avg", 2048),
    "resnet34_timm": ("layer4", "max", 512),
    "resnet50_timm": ("layer4", "max", 2048),
    "resnet101_timm": ("layer4", "max", 2048),
    "resnet18_places365": ("layer4", "avg", 512),
    "vgg16_bn_cifar100": ("classifier.4", "avg", 512),
    "vit_b_16_imagenet": ("encoder.layers.encoder_layer_11.mlp.1", "first", 3072),
    "vit_l_16_imagenet": ("encoder.layers.encoder_layer_22", "first", 1024),
    "vit_l_32_imagenet": ("encoder.layers.encoder_layer_23.mlp.1", "first", 4096),
    "squeezenet1_0_imagenet": ("features.12", "avg", 512),
}


def composed(name: str, *overrides: str):
    with initialize_config_module("neuronx.configs", version_base="1.3"):
        return compose("evaluate", overrides=[f"target={name}", *overrides]).target[name]


@pytest.fixture
def stubbed(monkeypatch):
    """No download, no reading, and hardly any memory: networks are made without values, and files are not read."""
    fetched = []

    def fetch(url, path, **_):
        fetched.append(url)
        return path

    monkeypatch.setattr("neuronx.targets.torchvision.fetch", fetch)
    monkeypatch.setattr("neuronx.targets.weights.fetch", fetch)
    monkeypatch.setattr(
        "neuronx.targets.timm.fetch_from_hub",
        lambda repository, *_: fetched.append(repository) or CONFIGS / "timm.yaml",
    )
    monkeypatch.setattr("torchvision.models._api.WeightsEnum.get_state_dict", lambda *_, **__: {})
    monkeypatch.setattr("torch.nn.Module.load_state_dict", lambda *_, **__: None)
    monkeypatch.setattr("neuronx.targets.torchvision.fill", lambda module, _: module)
    monkeypatch.setattr("neuronx.targets.custom.fill", lambda module, _: module)
    monkeypatch.setattr("timm.models._builder.load_pretrained", lambda *_, **__: None)
    monkeypatch.setattr("neuronx.targets.target.module_digest", lambda _: "stub")
    with torch.device("meta"):
        yield fetched


def test_the_table_is_complete():
    with initialize_config_module("neuronx.configs", version_base="1.3"):
        found = set(GlobalHydra.instance().config_loader().get_group_options("target"))
    embedded = {name for name in found if name.startswith(("shapes_", "places_"))}
    assert {"shapes_resnet", "shapes_vit", "shapes_gan"} <= embedded
    assert found - embedded == {*PUBLISHED, *GENERIC, "transformers", "hub"}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks(name, stubbed):
    node = composed(name)
    if name == "squeezenet1_0_imagenet":
        node.weights = "some/file.safetensors"
    target = instantiate(node, _convert_="all")
    layer, pool, units = PUBLISHED[name]
    assert target.name == name and target.layers == {layer: pool}
    assert len(stubbed) == (name != "squeezenet1_0_imagenet")
    assert len(target.class_names) in (0, 1000)
    row = target.layer_table(layers=[layer])[0]
    assert row.units == units and (pool in row.poolings or row.poolings == ("none",))
    assert "dictionary" in node and "weights" in node


@pytest.mark.parametrize("name", GENERIC)
def test_generic_choices(name):
    overrides = [f"target.{name}.{key}={value}" for key, value in GENERIC[name].items()]
    target = instantiate(composed(name, *overrides), _convert_="all")
    assert target.module is not None and len(target.layers) == 1


def test_the_choices_that_need_the_world_refuse_in_one_line(tmp_path):
    node = composed("hub", "target.hub.repository=someone/something", "target.hub.model=net")
    with pytest.raises(Exception, match="set trust=true") as raised:
        instantiate(node, _convert_="all")
    assert isinstance(raised.value.__cause__, UserError)
    node = composed("transformers", f"target.transformers.model={tmp_path}")
    with pytest.raises(Exception, match="cannot be loaded"):
        instantiate(node, _convert_="all")
