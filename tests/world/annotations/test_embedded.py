"""The embedded world's annotations: every published name has a small counterpart, and what is said of it is true."""

import csv
import shutil
from dataclasses import replace

import pytest
import torch

from neuronx.data.latents import latent_probe
from neuronx.milannotations import load
from neuronx.milannotations.keys import ANNOTATED, GROUPS
from neuronx.targets import generator
from neuronx.world import targets as shapes
from neuronx.world.annotations import embedded, guessing
from neuronx.world.annotations.factors import FACTORS, named
from neuronx.world.pictures.world import WORLDS


@pytest.fixture
def few(monkeypatch):
    """All models with two units of one layer each, looked at on a few pictures."""
    monkeypatch.setattr(embedded, "RATES_FROM", 60)
    monkeypatch.setattr(guessing, "LEARNED", 20)
    monkeypatch.setattr(guessing, "TESTED", 5)
    return {
        name: replace(model, layers=dict.fromkeys(list(model.layers)[1:2], 2), pictures=80)
        for name, model in embedded.MODELS.items()
    }


def table(path):
    return list(csv.DictReader(path.open()))


def test_every_published_name_has_a_counterpart_that_loads(few, trainer):
    assert list(few) == list(ANNOTATED)
    root = embedded.root(trainer, few)
    for name in (*GROUPS, *ANNOTATED):
        units = load(name, root)
        assert len(units) == 2 * len(GROUPS.get(name, (name,)))
    unit = load("resnet152/imagenet", root).lookup("layer1", 1)
    assert unit.images.shape == (15, 3, 64, 64) and unit.masks.shape == (15, 1, 64, 64)
    assert len(unit.annotations) == 3 and all(text == text.strip().lower() for text in unit.annotations)
    for name, model in few.items():
        truth = table(root / name / "truth.csv")
        assert {row["source"] for row in truth} == {"seen" if model.witnesses else "known"}
        assert {row["factor"] for row in truth} <= {"", *FACTORS}


def test_a_build_is_done_once_and_the_same_again(few, trainer, monkeypatch):
    one = {"alexnet/places365": few["alexnet/places365"]}
    root = embedded.root(trainer, one)
    files = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    with monkeypatch.context() as nothing_to_do:
        nothing_to_do.setattr(embedded, "build", None)
        assert embedded.root(trainer, one) == root
    shutil.rmtree(root)
    assert embedded.root(trainer, one) == root
    assert files == {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_build_that_was_cut_short_goes_on(few, trainer, monkeypatch):
    some = {name: few[name] for name in ("alexnet/imagenet", "resnet152/imagenet")}
    build, built = embedded.build, []

    def crash(folder, name, model, trainer):
        if len(built) == 1:
            raise KeyboardInterrupt
        built.append(name)
        build(folder, name, model, trainer)

    monkeypatch.setattr(embedded, "build", crash)
    with pytest.raises(KeyboardInterrupt):
        embedded.root(trainer, some)
    again = []
    monkeypatch.setattr(embedded, "build", lambda folder, name, *rest: (again.append(name), build(folder, name, *rest)))
    assert len(load("resnet152/imagenet", embedded.root(trainer, some))) == 2
    assert built == ["alexnet/imagenet"] and again == ["resnet152/imagenet"]


def test_colours_and_grounds_are_read_from_pixels(monkeypatch):
    monkeypatch.setattr(guessing, "LEARNED", 100)
    reader = guessing.learn(WORLDS["shapes"], 7)
    assert reader.accuracy > 0.85
    made = generator.shapes("shapes_gan")
    probe = latent_probe(made, 60)
    witnesses = [shapes.load("shapes_vit")]
    seen = guessing.of_pictures(probe, torch.arange(60), WORLDS["shapes"], reader, witnesses)
    # What is read as an object has the colour that was asked for, nearly always.
    asked = (probe.labels // 12)[:, None, None].expand(-1, 64, 64)
    thing = seen["colour"] >= 0
    assert 0.03 < thing.float().mean() < 0.5
    assert (seen["colour"] == asked)[thing].float().mean() > 0.5
    assert (seen["texture"] == -1).all(), "nobody can tell"


@pytest.mark.slow
def test_the_whole_is_described_by_what_its_regions_share(trainer):
    root = embedded.root(trainer)
    for name in ANNOTATED:
        truth = table(root / name / "truth.csv")
        said = {(row["layer"], row["unit"]): [] for row in truth}
        for row in table(root / name / "annotations.csv"):
            said[row["layer"], row["unit"]].append(row["summary"])
        assert all(len(texts) == 3 for texts in said.values())
        leading = [row for row in truth if row["factor"]]
        assert len(leading) > 0.6 * len(truth)
        assert all(named(row["factor"], text) for row in leading for text in said[row["layer"], row["unit"]])
        assert all(float(row["lift"]) >= 1.8 for row in leading)
    size = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
    assert size < 400e6 and 500 < len(load("base", root)) < 1500
