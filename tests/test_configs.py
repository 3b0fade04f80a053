"""Every YAML composes, and everything but published networks (tests/targets) and recipes is instantiated."""

from copy import deepcopy
from functools import cache

import pytest
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate
from omegaconf import OmegaConf

from neuronx import configs
from neuronx.command import cli

EVALUATE = (
    "target",
    "data",
    "concepts",
    "clip",
    "judge",
    "describe",
    "explain",
    "sim",
    "logger",
    "trainer",
    "recipe",
    "experiment",
)
TRAIN = ("le", "milan", "classifier", "contrastive", "generator", "sae")


def choices(*groups: str) -> list[tuple[str, str]]:
    """Every choice that Hydra finds, with a file or without."""
    with initialize_config_module("neuronx.configs", version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        return [(group, choice) for group in groups for choice in loader.get_group_options(group)]


@cache
def once(root: str, *overrides: str):
    with initialize_config_module("neuronx.configs", version_base="1.3"):
        return compose(root, overrides=list(overrides))


def composed(root: str, *overrides: str):
    """A composed config of one's own."""
    return deepcopy(once(root, *overrides))


@pytest.mark.parametrize(("group", "choice"), choices(*EVALUATE), ids="/".join)
def test_every_choice_of_evaluate_composes(group, choice):
    cfg = composed("evaluate", f"{group}={choice}")
    if group in ("target", "explain", "sim", "logger"):
        assert list(cfg[group]) == [choice], "a list group's YAML nests its content under its own file name"
    for key, node in cfg.items():
        if key != "data":
            OmegaConf.to_container(node, resolve=True) if hasattr(node, "keys") else node


@pytest.mark.parametrize(("group", "choice"), choices(*TRAIN), ids="/".join)
def test_every_task_composes(group, choice):
    cfg = composed("train", f"{group}={choice}")
    assert cfg[group]._target_


@pytest.mark.parametrize(("group", "choice"), choices("annotations"), ids="/".join)
def test_annotations_of_every_kind_can_be_learned_from(group, choice):
    task = instantiate(composed("train", "milan=gen", f"{group}={choice}").milan, _convert_="all")
    assert task.annotations == "gen" and task.source.domain


@pytest.mark.parametrize(
    ("group", "choice"), choices("concepts", "clip", "judge", "explain", "sim", "trainer", "logger"), ids="/".join
)
def test_every_light_choice_is_instantiated(group, choice):
    data = ["data.root=."] if group == "data" else []
    cfg = composed("evaluate", f"{group}={choice}", *data)
    node = cfg[group]
    for part in (node, node.get("clip")) if hasattr(node, "keys") else ():
        for key in [key for key in part if OmegaConf.is_missing(part, key)] if hasattr(part, "keys") else ():
            part[key] = "something"
    assert instantiate(node, _convert_="all") is not None


@pytest.mark.parametrize(("group", "choice"), choices(*TRAIN), ids="/".join)
def test_every_task_is_instantiated(group, choice):
    assert instantiate(composed("train", f"{group}={choice}")[group], _convert_="all") is not None


def test_natural_pictures_bring_their_own_clips_and_a_typed_judge_wins():
    cfg = composed("evaluate", "data=imagenet_val")
    assert cfg.clip.domain == cfg.judge.domain == "natural"
    assert "LabelConcepts" in composed("evaluate", "data=imagenet_val", "judge=labels").judge._target_


def test_recipes_override_groups_and_later_choices_win():
    cfg = composed("evaluate", "recipe=le_table2_resnet50", "data.root=/data")
    assert list(cfg.target) == ["resnet50_imagenet"] and cfg.layers == "layer4"
    assert cfg.explain.le_label.search == "greedy"
    cfg = composed("evaluate", "recipe=le_table2_resnet50", "data.root=/data", "explain=clip_dissect", "layers=layer3")
    assert cfg.layers == "layer3"
    cfg.concepts = cfg.clip = None
    assert list(cli.methods(cfg)) == ["clip_dissect"]


@pytest.mark.parametrize(
    ("recipe", "clip"), [("le_b3_vit_l_14", "ViT-L-14-336"), ("le_table2_resnet50", "ViT-L-16-SigLIP-384")]
)
def test_a_recipes_clip_wins_over_the_datas(recipe, clip):
    assert composed("evaluate", f"recipe={recipe}", "data.root=/data").clip.model == clip


@pytest.mark.parametrize("recipe", [choice for _, choice in choices("recipe")])
def test_a_recipe_is_a_row_of_its_table(recipe):
    (block,) = [block for block in configs.read("recipes") if recipe in block["recipes"]]
    cfg = composed("train" if recipe.startswith("milan") else "evaluate", f"recipe={recipe}")
    for key, value in (block["shared"] | block["recipes"][recipe]).items():
        if key in ("target", "explain"):
            assert set(value) <= set(cfg[key])
        elif key in ("data", "clip", "concepts", "annotations"):
            assert cfg[key] == composed("evaluate", f"{key}={value}")[key]
        else:
            assert OmegaConf.select(cfg, key) == value


def test_a_variant_is_its_base_with_a_few_values_changed():
    base, variant = (composed("evaluate", f"clip={choice}").clip for choice in ("open_clip", "clip_vit_l14_336"))
    changed = {key: variant[key] for key in variant if OmegaConf.is_missing(base, key) or base[key] != variant[key]}
    assert changed == {
        "model": "ViT-L-14-336",
        "pretrained": "openai",
        "name": "clip_vit_l14_336",
        "a": 58,
        "b": -0.25,
    }
    target = composed("evaluate", "target=places_alexnet").target.places_alexnet
    assert target.checkpoint == "places_alexnet" and target.layers == {"conv4": "avg", "conv5": "avg"}


@pytest.mark.parametrize(("group", "choice"), choices("judge", "describe"), ids="/".join)
def test_a_judge_is_a_clip_and_a_describer_a_method(group, choice):
    if choice not in ("labels", "masks", "visual", "labels+visual"):
        source, name = {"judge": "clip", "describe": "explain"}[group], choice.removesuffix("+visual")
        node = composed("evaluate", f"{group}={choice}")[group]
        assert (node if name == choice else node.clip) == composed("evaluate", f"{source}={name}")[source]


def test_folders_of_others_add_choices(tmp_path):
    (tmp_path / "judge").mkdir()
    (tmp_path / "judge" / "mine.yaml").write_text("defaults:\n  - /clip@_here_: clip_rn50\ntemplate: a photo of {}\n")
    cfg = composed("evaluate", "judge=mine", f"hydra.searchpath=[file://{tmp_path}]")
    assert cfg.judge.model == "RN50" and cfg.judge.template == "a photo of {}"
