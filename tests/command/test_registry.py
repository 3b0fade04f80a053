"""What Python and the command line build by name: ours, those of a folder, those of an installed package."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import neuronx
from neuronx.command.registry import Registry
from neuronx.concepts.clip import Clip
from neuronx.concepts.words import Words
from neuronx.errors import UserError
from neuronx.types import Judge, Method, Scorer

ROOT = Path(__file__).resolve().parents[2]
SHAPES, NATURAL = Registry("shapes"), Registry("natural")
CODE = """
from neuronx.types import Explanation, Unit

class Says:
    def __init__(self, word):
        self.word = word

    def explain(self, target, probe, trainer):
        return [Explanation(Unit(layer, 0), ((self.word, 1.0),)) for layer in target.layers]
"""


def members(protocol):
    return {name for name in vars(protocol) if not name.startswith("_")}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package, `theirs`, that adds a method; it names its configs as an entry point."""
    site = tmp_path / "site"
    (site / "theirs/configs/explain").mkdir(parents=True)
    (site / "theirs-1.0.dist-info").mkdir()
    (site / "theirs-1.0.dist-info/METADATA").write_text("Name: theirs\nVersion: 1.0\n")
    (site / "theirs-1.0.dist-info/entry_points.txt").write_text("[neuronx.configs]\ntheirs = theirs.configs\n")
    (site / "theirs/__init__.py").write_text(CODE)
    (site / "theirs/configs/__init__.py").touch()
    (site / "theirs/configs/explain/theirs.yaml").write_text("theirs: {_target_: theirs.Says, word: dog}\n")
    monkeypatch.syspath_prepend(str(site))
    return site


@pytest.fixture
def folder(package, tmp_path):
    """A folder of the user's that adds another."""
    (tmp_path / "mine/explain").mkdir(parents=True)
    (tmp_path / "mine/explain/mine.yaml").write_text("mine: {_target_: theirs.Says, word: cat}\n")
    return tmp_path / "mine"


@pytest.mark.parametrize("name", SHAPES.choices("explain"))
def test_every_method_is_built_by_name(name):
    assert members(Method) <= set(dir(SHAPES.method(name, {})))


@pytest.mark.parametrize("name", ["clip", *NATURAL.choices("judge")])
def test_every_judge_is_built_by_name(name):
    if name.startswith("open_clip"):
        with pytest.raises(UserError, match=r"judge\.(clip\.)?model"):
            NATURAL.judge(name)
    else:
        assert members(Judge) <= set(dir(NATURAL.judge(name)))


@pytest.mark.parametrize("name", ["correlation", "ablation", "purity"])
def test_every_scorer_is_built_by_name(name):
    assert members(Scorer) <= set(dir(SHAPES.scorer(name, {"seed": 3})))


def test_pictures_bring_their_clips():
    assert NATURAL.judge("clip").name == "siglip_so400m_384" and SHAPES.judge("clip").name == "shapes_judge"
    assert NATURAL.method("le_clip", {}).concepts.clip.name == "siglip_l16_384"


def test_objects_and_options_reach_the_method_as_they_are():
    clip, words = Clip("A", "b"), Words(["red", "blue"])
    method = SHAPES.method("le_clip", {"max_length": 2, "seed": 5}, clip=clip, concepts=words)
    assert method.concepts.clip is clip and method.concepts.words is words
    assert (method.max_length, method.seed) == (2, 5)
    parts = SHAPES.method("pure", {"k": 3}, describe={"mine": method})
    assert parts.describe["mine"] is method and parts.k == 3
    parts = SHAPES.method("pure", {}, describe="clip_dissect", concepts=words, clip="shapes_judge")
    assert parts.describe["clip_dissect"].words is words
    assert parts.describe["clip_dissect"].clip.name == "shapes_judge"


def test_a_folder_and_a_package_add_their_own(folder, trainer):
    pictures = torch.randint(0, 256, (120, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    study = neuronx.study(network, pictures, layer="1", transform="none", configs=folder, trainer=trainer)
    assert str(study.explain("mine")[0]) == "cat" and str(study.explain("mine", word="car")[0]) == "car"
    assert str(study.explain("theirs")[0]) == "dog"
    assert {"mine", "theirs", "le_label"} <= set(study.registry.choices("explain"))
    assert "mine" not in SHAPES.choices("explain")


def test_the_command_line_finds_them_too(folder, package):
    done = subprocess.run(
        [sys.executable, str(ROOT / "evaluate.py"), "--config-dir", str(folder), "explain=[mine,theirs]", "--cfg=job"],
        env={**os.environ, "PYTHONPATH": str(package)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "word: cat" in done.stdout and "word: dog" in done.stdout


@pytest.mark.parametrize("file", ["explain/le_label.yaml", "clip/clip_rn50.yaml", "judge/clip_rn50.yaml"])
def test_a_file_with_the_name_of_one_of_our_choices_is_refused(tmp_path, file):
    (tmp_path / file).parent.mkdir()
    (tmp_path / file).write_text("a: 1\n")
    with pytest.raises(UserError, match=r"has the name of a choice of neuronx.*give the file another name"):
        Registry("shapes", tmp_path)


def test_a_clip_of_the_users_judges_too(tmp_path):
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip" / "mine.yaml").write_text((ROOT / "configs" / "clip" / "shapes_judge.yaml").read_text())
    assert Registry("shapes", tmp_path).judge("mine").name == "shapes_judge"
    done = subprocess.run(
        [sys.executable, str(ROOT / "evaluate.py"), "--config-dir", str(tmp_path), "judge=mine", "--cfg=job"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "pretrained: shapes_judge" in done.stdout.partition("judge:")[2], done.stderr
