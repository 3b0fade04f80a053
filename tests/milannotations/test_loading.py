"""Models and groups by the names that MILAN gave them, and what is said where they are not."""

import pytest
from model_folders import make_holes, make_layer, make_model

import neuronx
from neuronx.errors import UserError
from neuronx.milannotations import load
from neuronx.milannotations.published import ANNOTATED, BASE, GROUPS, UNANNOTATED

LAYERS = {
    "alexnet/imagenet": {"conv1": 2, "conv2": 1},
    "alexnet/places365": {"conv1": 1},
    "resnet152/imagenet": {"layer1": 2},
    "resnet152/places365": {"0": 1, "4": 2},
    "biggan/imagenet": {"layer0": 2},
    "biggan/places365": {"layer0": 1, "layer1": 2},
    "dino_vits8/imagenet": {"blocks.9.mlp.fc1": 3},
}


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.delenv("MILAN_DATA_DIR", raising=False)
    monkeypatch.setenv("NEURONX_DATA", str(tmp_path))
    for key, layers in LAYERS.items():
        make_model(tmp_path / "milannotations" / key, layers)
    return tmp_path / "milannotations"


GROUPED = {
    "base": "ai ap ri rp bi bp",
    "cls": "ai ap ri rp",
    "gen": "bi bp",
    "imagenet": "ai ri bi",
    "places365": "ap rp bp",
    "alexnet": "ai ap",
    "resnet152": "ri rp",
    "biggan": "bi bp",
    "not-alexnet-imagenet": "ap ri rp bi bp",
    "not-alexnet-places365": "ai ri rp bi bp",
    "not-resnet152-imagenet": "ai ap rp bi bp",
    "not-resnet152-places365": "ai ap ri bi bp",
    "not-biggan-imagenet": "ai ap ri rp bp",
    "not-biggan-places365": "ai ap ri rp bi",
}


def test_the_groups_are_the_published_ones():
    short = {"".join(part[0] for part in key.split("/")): key for key in BASE}
    assert {name: tuple(short[one] for one in members.split()) for name, members in GROUPED.items()} == GROUPS
    assert len(UNANNOTATED) == 29 and "resnet18/places365" in UNANNOTATED and not set(UNANNOTATED) & set(ANNOTATED)
    assert {"alexnet/imagenet-blurred", "vgg19/imagenet", "vgg19/imagenet-blurred"} < set(UNANNOTATED)


@pytest.mark.parametrize("name", [*GROUPS, *ANNOTATED])
def test_a_name_gives_its_models_one_after_another(root, name):
    found = load(name)
    models = GROUPS.get(name, (name,))
    assert found.models == models
    assert len(found) == sum(sum(LAYERS[model].values()) for model in models)
    assert all(len(said) == 3 for said in found.annotations)


def test_units_are_looked_up_in_a_group(root):
    found = neuronx.milannotations.load("base").lookup("4", 1)
    assert (found.model, found.annotations[2]) == ("resnet152/places365", "4 1, word 2")


def test_the_root_is_given_or_of_the_environment(root, monkeypatch):
    other = root.rename(root.with_name("other"))
    with pytest.raises(UserError, match=rf"alexnet/imagenet are not in {root}"):
        load()
    assert len(load(root=other)) == len(load(root=str(other)))
    monkeypatch.setenv("MILAN_DATA_DIR", str(other))
    assert len(load("gen")) == 5


def test_models_of_one_s_own(root):
    make_model(root / "mynet" / "mydata", {"a": 2}, said=2)
    mine = load("mynet/mydata")
    assert mine.models == ("mynet/mydata",) and len(mine) == 2 and len(mine[0].annotations) == 2
    assert load(str(root / "mynet" / "mydata")).models == ("mynet/mydata",)
    assert len(load("mynet/mydata", annotation_count=1)[0].annotations) == 1
    assert load("alexnet", annotations=False).annotations == ((),) * 4
    assert load("alexnet/imagenet", layers=["conv2"]).layers == ("conv2",)
    assert len(load("alexnet/imagenet", annotation_count=None)) == 3
    table = root / "mynet" / "mydata" / "annotations.csv"
    with pytest.raises(UserError, match=r"`gen` is 2 models, and .* one table"):
        load("gen", annotations=table)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("alexnet/imagenet", r"are not in .*/none/alexnet/imagenet: .*root=DIR.*alexnet-imagenet.zip.*download=True"),
        ("not-biggan-imagenet", r"MILANNOTATIONS of alexnet/imagenet are not in .*/none/alexnet/imagenet"),
        ("vgg16/imagenet", r"Exemplars of vgg16/imagenet are not in .* never published: make them with `evaluate.py"),
        (
            "alexnet/imagnet",
            r"no set of MILANNOTATIONS `alexnet/imagnet`. Nearest: alexnet/imagenet, .* No folder .*/none",
        ),
    ],
)
def test_what_is_not_there_is_said_with_how_to_get_it(tmp_path, name, message):
    with pytest.raises(UserError, match=message):
        load(name, tmp_path / "none")


def test_an_empty_folder_is_no_data_set(tmp_path):
    (tmp_path / "alexnet" / "imagenet").mkdir(parents=True)
    with pytest.raises(UserError, match="MILANNOTATIONS of alexnet/imagenet are not in"):
        load("alexnet/imagenet", tmp_path)


def test_a_folder_one_too_high_is_said(root):
    with pytest.raises(UserError, match=r"alexnet holds no layers.* Its folder imagenet does"):
        load(str(root / "alexnet"))


def test_images_that_are_missing_are_said_to_be_missing(root):
    make_layer(root / "resnet152" / "imagenet" / "layer9", images=False)
    message = (
        r"layer9 of resnet152/imagenet .* is missing images.npy, .* imagenet=DIR; there is no .*imagenet/val and no"
    )
    with pytest.raises(UserError, match=message):
        load("base")
    make_layer(root / "biggan" / "imagenet" / "layer9", images=False)
    with pytest.raises(UserError, match=r"layer9 is missing images.npy"):
        load("gen")


def test_the_real_descriptions_beside_arrays_of_their_size(shared, tmp_path):
    folder = tmp_path / "resnet152" / "imagenet"
    for layer, units in {"conv1": 64, "layer1": 256, "layer2": 512, "layer3": 1024, "layer4": 2048}.items():
        make_holes(folder / layer, units)
    real = shared / "data" / "published" / "milannotations" / "resnet152_imagenet.csv"
    (folder / "annotations.csv").write_bytes(real.read_bytes())
    found = load("resnet152/imagenet", tmp_path)
    assert len(found) == 3904 and found.k == 15 and str(found.unit(0)) == "layer3:226"
    sample = found.lookup("layer3", 226)
    assert sample.images.shape == (15, 3, 224, 224) and sample.masks.shape == (15, 1, 224, 224)
    assert sample.annotations[0] == "a person wearing a facemask"
