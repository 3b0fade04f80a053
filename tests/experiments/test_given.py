"""`evaluate.py experiment=`: what it needs, prints and writes, and what it says of mistakes."""

import json
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from hydra.errors import MissingConfigException
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image

from neuronx.command import cli
from neuronx.command.mistakes import explain_mistake
from neuronx.errors import UserError
from neuronx.experiments.given import Given, fires_for, run
from neuronx.tables.csv import write_csv
from neuronx.types import Explanation, Unit

CHOICES = sorted(path.stem for path in (Path(__file__).resolve().parents[2] / "configs/experiment").glob("*.yaml"))


def composed(*overrides: str):
    with initialize_config_module("neuronx.configs", version_base="1.3"):
        return compose("evaluate", overrides=["logger=[]", "trainer=cpu", *overrides])


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where runs without Hydra write."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "results" / "python"


@pytest.mark.parametrize("choice", CHOICES)
def test_every_experiment_is_one_choice_and_brings_what_it_is_about(choice):
    cfg = composed(f"experiment={choice}")
    assert hasattr(instantiate(cfg.experiment, _convert_="all"), "run")
    OmegaConf.to_container(cfg.experiment, resolve=True)
    reads = choice not in ("agreement", "generalisation", "sweep")
    assert bool(cfg.get("target")) == bool(cfg.get("explain")) == reads, "networks and captions where there is a need"
    typed = composed(f"experiment={choice}", "target=shapes_vit", "data=cifar10", "explain=clip_dissect")
    assert list(typed.target) == ["shapes_vit"] and list(typed.explain) == ["clip_dissect"], "what is typed wins"
    assert "cifar" in typed.data._target_


def test_annotations_of_people_are_an_option():
    for choice in ("agreement", "baselines", "generalisation", "sweep"):
        cfg = composed(f"experiment={choice}", "annotations=milannotations", "annotations.root=DIR")
        assert instantiate(cfg.experiment, _convert_="all").source.root == "DIR"


def test_agreement_is_printed_and_written(folder, tmp_path, capsys):
    lines = [("fc", unit, text) for unit in range(4) for text in ("red circles", "circles", f"thing {unit}")]
    table = write_csv(tmp_path / "said.csv", ("layer", "unit", "summary"), lines)
    cfg = composed("experiment=agreement", f"experiment.file={table}")
    text = cli.evaluate(cfg)
    printed = capsys.readouterr().out
    assert text.rstrip() in printed and printed.rstrip().endswith(f"Files: {Path('results/python')}")
    assert "said, 4 units" in text and 'always "depictions"' in text
    assert {path.name for path in folder.iterdir()} == {"agreement.csv", "run.json", "config.yaml"}
    assert json.loads((folder / "run.json").read_text())["seed"] == 0
    before = (folder / "agreement.csv").read_bytes()
    assert cli.evaluate(cfg) == text and (folder / "agreement.csv").read_bytes() == before


class Sayer:
    """Says of every third unit that it is about red things, of the others nothing that matters."""

    def explain(self, target, probe, trainer):
        rows = target.layer_table(layers=target.layers)
        texts = ("red things", "sky", "wooden planks on a long and winding road")
        units = [Unit(row.name, unit) for row in rows for unit in range(row.units)]
        return [Explanation(unit, ((texts[unit.index % 3], 1.0),)) for unit in units]


@pytest.mark.parametrize(
    ("choice", "options", "told", "stems"),
    [
        ("auditing", ["experiment.query=[sky]"], "+0.000", ["audit"]),
        ("auditing", ["experiment.query=[zebra]"], "0.000", ["audit"]),
        ("importance", ["experiment.trials=2", "experiment.shares=[0.1]"], "with none", ["importance_shapes_resnet"]),
        (
            "editing",
            ["experiment.misleading.size=100", "experiment.trials=2", "experiment.steps=2"],
            "of 64 units name the mark",
            ["editing"],
        ),
    ],
)
def test_captions_are_read_and_units_zeroed(choice, options, told, stems, folder, monkeypatch):
    monkeypatch.setattr(cli, "methods", lambda cfg: {"sayer": Sayer()})
    text = cli.evaluate(composed(f"experiment={choice}", "data.size=100", "layers=layer4", *options))
    assert told in text
    files = {path.name for path in folder.iterdir() if not path.name.startswith("captions_")}
    tables = {f"{stem}.{kind}" for stem in stems for kind in ("csv", "html")}
    assert files == tables | {"plotly.min.js", "run.json", "config.yaml"}
    assert list(folder.glob("captions_*.csv"))


@pytest.mark.parametrize(
    ("terms", "read"),
    [
        ((("a red thing", 1.0),), "a red thing"),
        ((("dog", 2.8), ("mammal", -0.47), ("fur", 0.2)), "dog, fur"),
        ((("water AND NOT (blue OR NOT sky)", 1.0),), "water, sky"),
        ((("DO NOT ENTER", 1.0),), "DO NOT ENTER"),
        ((), ""),
    ],
)
def test_what_silences_a_unit_is_not_what_it_fires_for(terms, read):
    assert fires_for(Explanation(Unit("fc", 0), terms)) == read


def test_misleading_pictures_of_ones_own_have_the_networks_classes(folder, monkeypatch, tmp_path):
    monkeypatch.setattr(cli, "methods", lambda cfg: {"sayer": Sayer()})
    for name in ("circle", "plane"):
        (tmp_path / "marks" / name).mkdir(parents=True)
        for number in range(10):
            Image.new("RGB", (64, 64), (25 * number, 0, 0)).save(tmp_path / "marks" / name / f"{number}.png")
    options = ["experiment=editing", "data.size=100", "layers=layer4", "experiment.trials=2", "experiment.steps=2"]
    options.append(f"experiment.misleading.root={tmp_path / 'marks'}")
    with pytest.raises(UserError, match="1 of 2 classes that shapes_spurious does not know: plane"):
        cli.evaluate(composed(*options))
    (tmp_path / "marks" / "plane").rename(tmp_path / "marks" / "square")
    assert "Accuracy (%) on marks:" in cli.evaluate(composed(*options))


def test_mistakes_are_said(folder):
    for typed in ("show=layers", "explanations=a.csv", "exemplars=15"):
        with pytest.raises(UserError, match=f"`experiment=` and `{typed.split('=')[0]}=` do not go together"):
            cli.evaluate(composed("experiment=agreement", typed))
    with pytest.raises(UserError, match="a run has one experiment"):
        cli.rewrite("experiment=[editing,auditing]")
    with pytest.raises(UserError, match="leave `experiment=` out"):
        cli.rewrite("experiment=null")
    with pytest.raises(MissingConfigException) as wrong:
        composed("experiment=edit")
    said = explain_mistake(wrong.value)
    assert said is not None and all(name in said for name in CHOICES)
    with pytest.raises(UserError, match="no way to search"):
        cli.evaluate(composed("experiment=sweep", "experiment.strategies=[best]"))
    with pytest.raises(UserError, match="property of captions"):
        cli.evaluate(composed("experiment=importance", "experiment.properties=[colour]", "data.size=100"))
    with pytest.raises(UserError, match="one network, not 2"):
        cli.evaluate(composed("experiment=baselines", "target=[shapes_resnet,shapes_vit]", "layers=null"))
    assert not folder.exists() or not any(folder.iterdir()), "nothing is written before it is clear what to do"


def test_loggers_get_every_table(trainer, tmp_path):
    class Finds:
        def run(self, given):
            given.write(write_csv, "found.csv", ("what", "share"), [("a", 0.5), ("b", None)])
            return "the table\n"

    class Keeps:
        def log_tables(self, tables, folder):
            self.tables = tables

    keeps = Keeps()
    assert run(Finds(), Given(trainer, tmp_path), None, [keeps]) == "the table\n"
    columns, rows = keeps.tables["found"]
    assert list(columns) == ["what", "share"] and rows == [["a", 0.5], ["b", None]]
