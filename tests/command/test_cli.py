"""The command line's grammar: what users type, and what they are told when it is wrong."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from neuronx.command import cli
from neuronx.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


def run(
    script: str, *arguments: str, cache: Path, timeout: int = 120, **environment: str
) -> subprocess.CompletedProcess:
    """Runs a command as a user does, in a process of its own."""
    return subprocess.run(
        [sys.executable, str(ROOT / script), *arguments],
        cwd=cache.parent,
        env={**os.environ, "NEURONX_CACHE": str(cache), "WANDB_MODE": "offline", **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@pytest.mark.parametrize(
    ("typed", "rewritten"),
    [
        ("trainer.strategy=ddp", ["++trainer.strategy=ddp"]),
        ("trainer.devices=4", ["++trainer.devices=__typed__4"]),
        ("++trainer.devices=4", ["++trainer.devices=__typed__4"]),
        ("trainer=cpu", ["trainer=cpu"]),
        ("judge=[a,b]", ["judge=a", "++judges=[a,b]"]),
        ("judge=labels", ["judge=labels"]),
        ("target=[a,b]", ["target=[a,b]"]),
        ("layers=null", ["layers=null"]),
    ],
)
def test_arguments_are_rewritten_once(typed, rewritten):
    assert cli.rewrite(typed) == rewritten
    assert [again for item in rewritten for again in cli.rewrite(item)] == rewritten


@pytest.mark.parametrize("argument", ["explain=null", "target=None", "sim=", "logger=null"])
def test_a_list_group_cannot_be_null(argument):
    with pytest.raises(UserError, match=r"type '\w+=\[\]'"):
        cli.rewrite(argument)


@pytest.mark.parametrize("argument", ["sim=[correlation,correlation]", "judge=[a, b, a]", "explain=[le_clip,x,x]"])
def test_a_choice_cannot_stand_twice_in_a_list(argument):
    with pytest.raises(UserError, match="twice"):
        cli.rewrite(argument)


@pytest.mark.parametrize("part", ["target.shapes_resnet", "explain.le_clip", "sim.correlation", "logger.csv"])
@pytest.mark.parametrize("value", [3, None, "text"])
def test_a_value_in_place_of_a_part_is_refused(part, value):
    group, name = part.split(".")
    cfg = OmegaConf.create({group: {name: value}})
    with pytest.raises(UserError, match=rf"`{part}=\w+` replaces the whole part; set one of its options"):
        cli.check_parts(cfg)


def test_a_single_group_cannot_be_null():
    with pytest.raises(UserError, match="leave `judge=` out"):
        cli.rewrite("judge=null")


def test_exactly_one_task():
    assert cli.chosen_task(OmegaConf.create({"le": {"a": 1}, "classifier": None})) == "le"
    with pytest.raises(UserError, match="No task was chosen"):
        cli.chosen_task(OmegaConf.create({"le": None}))
    with pytest.raises(UserError, match=r"Several tasks were chosen \(le, classifier\)"):
        cli.chosen_task(OmegaConf.create({"le": {"a": 1}, "classifier": {"a": 1}}))


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("evaluate.py", ["explain=le_clap"], "There is no choice of explain= `le_clap`. Nearest: le_clip"),
        ("evaluate.py", ["data.sise=100"], "There is no option `data.sise`"),
        ("evaluate.py", ["explain=null"], "'explain=[]'"),
        ("evaluate.py", ["explain=[]", "target=shapes_resnet"], "There is nothing that sim=correlation could score"),
        ("evaluate.py", ["layers=mlp[1]"], "There is no layer of shapes_resnet `mlp.1`"),
        ("evaluate.py", ["layer4"], "`layer4` is no option"),
        ("evaluate.py", ["nonsense=1"], "nonsense"),
        ("evaluate.py", ["show=nonsense"], "There is no thing to show `nonsense`"),
        ("evaluate.py", ["data=folder"], "data.root"),
        ("evaluate.py", ["data=folder", "data.root=/nowhere/at/all", "judge=labels"], "/nowhere/at/all"),
        ("evaluate.py", ["layers=layer9", "target=shapes_resnet"], "shapes_resnet `layer9`. Nearest: layer4"),
        ("train.py", [], "choose exactly one of le, milan, classifier, contrastive"),
        ("train.py", ["le=label", "classifier=shapes_resnet"], "Several tasks were chosen"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(script, arguments, message, own_cache):
    done = run(script, *arguments, cache=own_cache)
    assert done.returncode == 2, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), done.stderr
    assert message in lines[0]


def test_help_is_quick_and_names_the_choices(own_cache):
    run("evaluate.py", "--help", cache=own_cache)
    start = time.process_time()
    done = run("evaluate.py", "--help", cache=own_cache)
    assert time.process_time() - start < 3
    assert done.returncode == 0
    for word in ("le_label", "clip_dissect", "shapes_resnet", "imagenet_val", "show=layers"):
        assert word in done.stdout


@pytest.mark.parametrize(
    ("typed", "methods"),
    [
        ([], ["le_label", "le_clip", "clip_dissect", "net_dissect", "milan"]),
        (["explain=[net_dissect,le_label]"], ["net_dissect", "le_label"]),
        (["explain=[]"], []),
        (["explanations=their.csv"], []),
        (["explanations=their.csv", "explain=net_dissect"], ["net_dissect"]),
        (["explain=net_dissect", "++explain.le_label.search=top"], ["net_dissect"]),
    ],
)
def test_files_are_scored_alone_unless_methods_are_typed_too(monkeypatch, typed, methods):
    from hydra import compose, initialize_config_module

    monkeypatch.setattr(cli, "typed", lambda key: any(item.startswith(f"{key}=") for item in typed))
    with initialize_config_module("neuronx.configs", version_base="1.3"):
        assert list(cli.methods(compose("evaluate", overrides=typed))) == methods
