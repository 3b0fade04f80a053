"""Whatever a user of Python gets wrong is a UserError that names the argument, never someone else's exception."""

import math
import re

import pytest
import torch
from PIL import Image
from torch import nn

import neuronx
from neuronx.errors import UserError
from neuronx.targets.preprocess import TRANSFORMS
from neuronx.types import Explanation, Unit

COMMAND_LINE = re.compile(r"\b(layers|concepts|explain|show)=|\b(explain|sim|data|milan|judge)\.\w+=?|data=\w")
"""Words of the command line, which mean nothing in Python."""
N = 120
PICTURES = torch.randint(0, 256, (N, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
LABELS = [i % 3 for i in range(N)]
NAMES = ["cat", "dog", "car"]


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3))


def said(unit=0, *terms, layer="1"):
    return Explanation(Unit(layer, unit), terms or (("dog", 1.0),))


class Broken(torch.utils.data.Dataset):
    def __init__(self, item):
        self.item = item

    def __len__(self):
        return N

    def __getitem__(self, row):
        return self.item


class Stream(torch.utils.data.IterableDataset):
    def __iter__(self):
        return iter(PICTURES)


IMAGES = {
    "none": None,
    "number": 5,
    "no such folder": "/nowhere/at/all",
    "empty text": "",
    "empty list": [],
    "list of numbers": [1, 2, 3] * 40,
    "list of paths": ["a.png"] * N,
    "dict": {"a": PICTURES},
    "one picture": PICTURES[0],
    "channels last": PICTURES.permute(0, 2, 3, 1),
    "whole numbers": PICTURES.long(),
    "yes or no": PICTURES > 0,
    "complex": PICTURES.to(torch.complex64),
    "NaN": PICTURES.float().fill_(math.nan),
    "infinite": PICTURES.float().fill_(math.inf),
    "too few": PICTURES[:8],
    "no pictures": PICTURES[:0],
    "a stream": Stream(),
    "items that are None": Broken(None),
    "items that are dicts": Broken({"depth": 5, "name": "a"}),
    "labels below 0": Broken((PICTURES[0], -1)),
    "floats of several sizes": [torch.zeros(3, 8 + i % 2, 8) for i in range(N)],
    "flat tensors": [torch.zeros(192)] * N,
    "an iterator": iter(PICTURES),
}
PROBE = {
    "unknown option": {"label": LABELS},
    "fewer labels": {"labels": LABELS[:50]},
    "labels that are texts": {"labels": ["cat"] * N},
    "labels that are parts": {"labels": [0.5] * N},
    "NaN": {"labels": [math.nan] * N},
    "labels below 0": {"labels": [-1] * N},
    "a label": {"labels": 1},
    "labels in two axes": {"labels": torch.zeros(N, 3)},
    "fewer names": {"labels": LABELS, "class_names": ["cat"]},
    "one name": {"labels": LABELS, "class_names": "cat"},
    "names that are numbers": {"labels": LABELS, "class_names": [1, 2, 3]},
    "hierarchy as list": {"labels": LABELS, "class_names": NAMES, "hierarchy": ["animal"]},
    "hierarchy of names": {"labels": LABELS, "class_names": NAMES, "hierarchy": {"animal": ["cat"]}},
    "hierarchy beyond": {"labels": LABELS, "class_names": NAMES, "hierarchy": {"animal": [7]}},
    "splits": {"splits": 0.5},
    "no such splits": {"splits": "/nowhere"},
    "batch": {"batch_size": 0},
    "name": {"name": 3},
}
STUDY = {
    "model is None": {"model": None},
    "model is a text": {"model": "resnet18"},
    "model is a class": {"model": nn.ReLU},
    "model is weights": {"model": {"0.weight": torch.zeros(1)}},
    "no layer": {"layer": None},
    "unknown layer": {"layer": "layer4"},
    "layer is a number": {"layer": 1},
    "a seed below 0": {"seed": -1},
    "a seed that is none": {"seed": 2**70},
    "layers of numbers": {"layer": [1]},
    "no layers": {"layer": []},
    "unknown pool": {"pool": "mean"},
    "pool is a number": {"pool": 3},
    "unknown transform": {"transform": "imagnet"},
    "transform is a number": {"transform": 3},
    "transform of unknown fields": {"transform": {"size": 3}},
    "transform of wrong fields": {"transform": {"resize": "big"}},
    "transform that fails": {"transform": lambda picture: 1 / 0},
    "transform to None": {"transform": lambda picture: None},
    "transform to another shape": {"transform": lambda picture: torch.zeros(3)},
    "pictures that do not fit": {"transform": {"resize": 16}},
    "unit beyond": {"units": [0, 99]},
    "unit below 0": {"units": [-1]},
    "no units": {"units": []},
    "units are parts": {"units": [0.5]},
    "a unit twice": {"units": [1, 1]},
    "units in words": {"units": "all"},
    "units of another kind": {"units": {"a": 1}},
    "empty range": {"units": "3:3"},
    "trainer": {"trainer": 3},
    "no such configs": {"configs": "/nowhere/at/all"},
    "configs": {"configs": 3},
    "seed": {"seed": "zero"},
}
EXPLAIN = {
    "unknown method": {"method": "le_labels"},
    "no method": {"method": None},
    "method is a number": {"method": 3},
    "method is a class": {"method": neuronx.types.Method},
    "method without explain": {"method": object()},
    "unknown option": {"maxlength": 3},
    "option is a text": {"max_length": "three"},
    "option beyond": {"max_length": 0},
    "option is NaN": {"lam": math.nan},
    "option is a list": {"lam": [1]},
    "unknown search": {"search": "gready"},
    "words for labels": {"words": ["dog"]},
    "clip for labels": {"clip": "clip_rn50"},
    "describe for labels": {"describe": "le_clip"},
    "options of an object": {"method": type("Mine", (), {"explain": lambda *a: []})(), "k": 3},
    "no words": {"method": "clip_dissect", "words": []},
    "blank words": {"method": "clip_dissect", "words": [" "]},
    "words of numbers": {"method": "clip_dissect", "words": [1, 2]},
    "words is a number": {"method": "clip_dissect", "words": 3},
    "words is a dict": {"method": "clip_dissect", "words": {"a": 1}},
    "no such words": {"method": "clip_dissect", "words": "/nowhere/words.txt"},
    "unknown clip": {"method": "le_clip", "words": ["dog"], "clip": "rn50"},
    "clip is a number": {"method": "le_clip", "words": ["dog"], "clip": 3},
    "no masks": {"method": "net_dissect", "pixels": "labels"},
    "no masks for formulas": {"method": "compositional"},
    "unknown describer": {"method": "pure", "describe": "le_labels"},
    "describer is a number": {"method": "pure", "describe": 3},
    "too many references": {"method": "pure", "describe": "le_label", "references": 1, "k": 3},
    "unknown gate": {"method": "pure", "describe": "le_label", "gate": "loose"},
    "unknown captioner": {"method": "milan", "weights": "milan_bases"},
}
SCORE = {
    "nothing": {"explanations": []},
    "no methods": {"explanations": {}},
    "a number": {"explanations": 3},
    "texts": {"explanations": ["dog"]},
    "numbers": {"explanations": [1]},
    "methods of texts": {"explanations": {"mine": ["dog"]}},
    "a text without its unit": {"explanations": "dog"},
    "a unit without a text": {"unit": 3},
    "unit beyond": {"explanations": {99: "dog"}},
    "unit below 0": {"explanations": {-1: "dog"}},
    "unit in words": {"explanations": "dog", "unit": "the third"},
    "unit is a part": {"explanations": "dog", "unit": 1.5},
    "unit of another layer": {"explanations": "dog", "unit": "layer4:1"},
    "numbers for units": {"explanations": {1: 2}},
    "empty text": {"explanations": {1: " "}},
    "unknown word": {"explanations": {1: "dogg"}},
    "unknown word in a formula": {"explanations": {1: "dog OR cart"}},
    "broken formula": {"explanations": {1: "dog OR"}},
    "explanation of a unit beyond": {"explanations": [said(99)]},
    "explanation of another layer": {"explanations": [said(layer="layer4")]},
    "two of one unit": {"explanations": [said(), said()]},
    "NaN": {"explanations": [said(0, ("dog", math.nan))]},
    "infinite": {"explanations": [said(0, ("dog", math.inf))]},
    "terms without weights": {"explanations": [said(0, "dog")]},
    "weights in words": {"explanations": [said(0, ("dog", "much"))]},
    "unknown judge": {"explanations": [said()], "judge": "lables"},
    "no judge": {"explanations": [said()], "judge": None},
    "judge is a class": {"explanations": [said()], "judge": neuronx.types.Judge},
    "judge without masks": {"explanations": [said()], "judge": "masks"},
    "judge of other pictures": {"explanations": [said()], "judge": "shapes_judge"},
    "unknown way": {"explanations": [said()], "sim": "ablate"},
    "no way": {"explanations": [said()], "sim": None},
    "scores of files": {"explanations": [said()], "sim": "stored"},
    "unknown option": {"explanations": [said()], "ceilings": False},
    "option is a text": {"explanations": [said()], "ceiling_concepts": "many"},
    "no words": {"explanations": [said()], "words": []},
}
LOOK = {
    "exemplars beyond": lambda study: study.exemplars(99),
    "exemplars of a text": lambda study: study.exemplars("dog"),
    "no exemplars": lambda study: study.exemplars(0, k=0),
    "too many exemplars": lambda study: study.exemplars(0, k=999),
    "exemplars in words": lambda study: study.exemplars(0, k="all"),
    "quantile beyond": lambda study: study.exemplars(0, quantile=1.5),
    "parts beyond": lambda study: study.parts(99),
    "parts by nobody": lambda study: study.parts(0, describe="me"),
    "unknown option of parts": lambda study: study.parts(0, ks=3),
    "saving nothing": lambda study: study.save("somewhere"),
    "saving nowhere": lambda study: study.save(None),
    "leaderboard of nothing": lambda study: study.leaderboard(),
    "leaderboard of texts": lambda study: neuronx.leaderboard(["dog"]),
    "no such table": lambda study: neuronx.read_explanations("/nowhere.csv"),
    "no table": lambda study: neuronx.read_explanations(3),
    "writing texts": lambda study: neuronx.write_explanations("a.csv", ["dog"]),
}


@pytest.fixture(scope="module")
def pictures():
    return neuronx.probe_of(PICTURES, labels=LABELS, class_names=NAMES)


@pytest.fixture
def study(pictures, trainer):
    return neuronx.study(network(), pictures, layer="1", transform="none", trainer=trainer)


def refuses(call):
    with pytest.raises(UserError) as caught:
        call()
    message = str(caught.value)
    assert message and "\n" not in message and len(message) < 500
    assert not COMMAND_LINE.search(message), message


@pytest.mark.parametrize("images", IMAGES.values(), ids=IMAGES)
def test_pictures(images):
    refuses(lambda: neuronx.study(network(), images, layer="1", transform="none"))


@pytest.mark.parametrize("options", PROBE.values(), ids=PROBE)
def test_what_is_known_of_pictures(options):
    def used():
        probe = neuronx.probe_of(PICTURES, **options)
        neuronx.study(network(), probe, layer="1", transform="none").explain("le_label")

    refuses(used)


@pytest.mark.parametrize("options", STUDY.values(), ids=STUDY)
def test_a_study(options, pictures):
    given = {"model": network(), "images": pictures, "layer": "1", "transform": "none", **options}
    refuses(lambda: neuronx.study(**given))


@pytest.mark.parametrize("options", EXPLAIN.values(), ids=EXPLAIN)
def test_explaining(options, study):
    refuses(lambda: study.explain(**options))


@pytest.mark.parametrize("options", SCORE.values(), ids=SCORE)
def test_scoring(options, study):
    refuses(lambda: study.score(**options))


@pytest.mark.parametrize("options", [case for case in SCORE.values() if isinstance(case.get("explanations"), list)])
def test_scoring_in_one_call(options, pictures, trainer):
    given = {"model": network(), "images": pictures, "transform": "none", "trainer": trainer, **options}
    refuses(lambda: neuronx.score(**given))


@pytest.mark.parametrize("look", LOOK.values(), ids=LOOK)
def test_looking(look, study, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refuses(lambda: look(study))


def test_pictures_as_they_are(trainer):
    """`transform=None` is pictures in [0, 1], and so is a list of PIL pictures."""
    pictures = [Image.fromarray(picture.permute(1, 2, 0).numpy()) for picture in PICTURES]
    study = neuronx.study(network(), pictures, layer="1", transform=None, trainer=trainer)
    assert study.target.transform == TRANSFORMS["none"]
