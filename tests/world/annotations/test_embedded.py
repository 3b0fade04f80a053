"""The embedded world's annotations: every published name has a small counterpart, and what is said of it is true."""

import csv
import shutil
from dataclasses import replace

import pytest
import torch

from neuronx.data.latents import latent_probe
from neuronx.errors import UserError
from neuronx.milannotations.published import ANNOTATED, GROUPS
from neuronx.world import generator
from neuronx.world import networks as shapes
from neuronx.world.annotations import embedded, pixels
from neuronx.world.annotations.embedded import EmbeddedAnnotations
from neuronx.world.annotations.sharing import FACTORS, named
from neuronx.world.pictures.probe import WORLDS


@pytest.fixture
def few(monkeypatch):
    """All models with two units of one layer each, looked at on a few pictures; lists what is built."""
    monkeypatch.setattr(embedded, "RATES_FROM", 60)
    monkeypatch.setattr(pixels, "LEARNED", 20)
    monkeypatch.setattr(pixels, "TESTED", 5)
    small = {
        name: replace(model, layers=dict.fromkeys(list(model.layers)[1:2], 2), pictures=80)
        for name, model in embedded.MODELS.items()
    }
    monkeypatch.setattr(embedded, "MODELS", small)
    build, built = embedded.build, []
    monkeypatch.setattr(embedded, "build", lambda folder, key, *rest: (built.append(key), build(folder, key, *rest)))
    return built


def table(path):
    return list(csv.DictReader(path.open()))


def test_every_published_name_has_a_counterpart_that_loads(few, trainer):
    assert list(embedded.MODELS) == list(ANNOTATED)
    source = EmbeddedAnnotations()
    for name in (*GROUPS, *ANNOTATED):
        units = source.load(name, trainer)
        assert len(units) == 2 * len(GROUPS.get(name, (name,)))
        assert units.models == GROUPS.get(name, (name,))
    assert sorted(few) == sorted(ANNOTATED), "each is built once"
    unit = source.load("resnet152/imagenet", trainer).lookup("layer1", 1)
    assert unit.images.shape == (15, 3, 64, 64) and unit.masks.shape == (15, 1, 64, 64)
    assert len(unit.annotations) == 3 and all(text == text.strip().lower() for text in unit.annotations)
    for name, model in embedded.MODELS.items():
        truth = table(embedded.model_folder(name, trainer) / "truth.csv")
        assert {row["source"] for row in truth} == {"seen" if model.witnesses else "known"}
        assert {row["factor"] for row in truth} <= {"", *FACTORS}
    with pytest.raises(UserError, match="no set of embedded annotations `bse`"):
        source.load("bse", trainer)


def test_only_the_networks_of_a_key_are_built(few, trainer):
    units = EmbeddedAnnotations().load("gen", trainer)
    assert few == ["biggan/imagenet", "biggan/places365"] == list(units.models)
    about = EmbeddedAnnotations().about(units)
    assert "4 units" in about and "shapes_gan, places_gan" in about and "rules, not people" in about


def test_a_build_is_done_once_and_the_same_again(few, trainer):
    folder = embedded.model_folder("alexnet/places365", trainer)
    files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert embedded.model_folder("alexnet/places365", trainer) == folder and len(few) == 1
    shutil.rmtree(folder)
    assert embedded.model_folder("alexnet/places365", trainer) == folder and len(few) == 2
    assert files == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_models_that_were_built_before_a_crash_are_kept(few, trainer, monkeypatch):
    build = embedded.build

    def crash(folder, key, *rest):
        if key != "alexnet/imagenet":
            raise KeyboardInterrupt
        build(folder, key, *rest)

    with monkeypatch.context() as broken:
        broken.setattr(embedded, "build", crash)
        with pytest.raises(KeyboardInterrupt):
            EmbeddedAnnotations().load("cls", trainer)
    assert len(EmbeddedAnnotations().load("cls", trainer)) == 8
    assert few == list(GROUPS["cls"]), "the first was built before the crash, the others after it"


def test_colours_and_grounds_are_read_from_pixels(monkeypatch):
    monkeypatch.setattr(pixels, "LEARNED", 100)
    reader = pixels.learn(WORLDS["shapes"], 7)
    assert reader.accuracy > 0.85
    made = generator.load("shapes_gan")
    probe = latent_probe(made, 60)
    witnesses = [shapes.load("shapes_vit")]
    seen = pixels.of_pictures(probe, torch.arange(60), WORLDS["shapes"], reader, witnesses)
    # What is read as an object has the colour that was asked for, nearly always.
    asked = (probe.labels // 12)[:, None, None].expand(-1, 64, 64)
    thing = seen["colour"] >= 0
    assert 0.03 < thing.float().mean() < 0.5
    assert (seen["colour"] == asked)[thing].float().mean() > 0.5
    assert (seen["texture"] == -1).all(), "nobody can tell"


@pytest.mark.slow
def test_the_whole_is_described_by_what_its_regions_share(trainer):
    folders = {name: embedded.model_folder(name, trainer) for name in ANNOTATED}
    for folder in folders.values():
        truth = table(folder / "truth.csv")
        said = {(row["layer"], row["unit"]): [] for row in truth}
        for row in table(folder / "annotations.csv"):
            said[row["layer"], row["unit"]].append(row["summary"])
        assert all(len(texts) == 3 for texts in said.values())
        leading = [row for row in truth if row["factor"]]
        assert len(leading) > 0.6 * len(truth)
        assert all(named(row["factor"], text) for row in leading for text in said[row["layer"], row["unit"]])
        assert all(float(row["lift"]) >= 1.8 for row in leading)
    size = sum(path.stat().st_size for f in folders.values() for path in f.rglob("*") if path.is_file())
    assert size < 400e6 and 500 < len(EmbeddedAnnotations().load("base", trainer)) < 1500
