"""Names of classes and masks that look like formulas, like a spreadsheet's or like nothing: explained, scored, kept."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import neuronx
from neuronx.concepts.formula import parse
from neuronx.data.labelled_pictures import labelled_pictures
from neuronx.tables.csv import read_csv, write_scores
from neuronx.tables.explanations import read_explanations, write_explanations
from neuronx.types import Explanation, Unit
from neuronx.world.pictures.scene import CLASS_NAMES

NAMES = (
    *("salt AND pepper", "DO NOT ENTER", "OR", "(a OR b", "=1+1", "+1", "-0.5 dog", "@you", 'say "hi"', '"', ""),
    *("a, b; c", "two\nlines\t", " edges ", "\u00e9t\u00e9 AND \u732b", "long OR " * 300 + "end"),
)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU())


def coloured(count, classes, side=32):
    """Pictures (count, 3, side, side) that are as grey as their class."""
    noise = torch.randint(0, 40, (count, 3, side, side), generator=torch.Generator().manual_seed(0))
    labels = torch.arange(count) % classes
    return (noise + (200 * labels / classes).long()[:, None, None, None]).to(torch.uint8), labels


def told_again(found, study, judge, folder):
    """Scores are numbers, and the tables of explanations and scores give back what was written."""
    scores = study.score({"it": found}, judge=judge)
    assert {row.status for row in scores if row.method == "it"} <= {"ok", "inactive"}
    assert any(row.status == "ok" for row in scores if row.method == "it")
    back = read_explanations(write_explanations(folder / "layer.csv", found), "1")
    assert [(one.unit, one.terms) for one in back] == [(one.unit, one.terms) for one in found]
    _, rows = read_csv(write_scores(folder / "scores.csv", scores))
    assert [row.cells["explanation"] for row in rows] == [row.explanation for row in scores]


def test_classes_by_labels(network, trainer, tmp_path):
    pictures, labels = coloured(320, len(NAMES))
    probe = neuronx.probe_of(pictures, labels=labels, class_names=NAMES, hierarchy={"NOT this": [0, 1]})
    study = neuronx.study(network, probe, layer="1", transform="none", trainer=trainer)
    found = study.explain("le_label")
    said = {atom for one in found for concept, _ in one.terms for atom in parse(concept).atoms}
    assert said & set(NAMES) and said <= {*NAMES, "NOT this"}
    told_again(found, study, "labels", tmp_path)
    own = study.score({at: name for at, name in enumerate(["DO NOT ENTER", "salt AND pepper", "=1+1", "OR"])})
    assert all(row.status in ("ok", "inactive") for row in own if row.method == "yours")


@pytest.mark.parametrize(
    ("method", "options"), [("le_clip", {"min_top": 0}), ("clip_dissect", {}), ("clip_dissect", {"n_labels": 3})]
)
def test_words_by_a_clip(method, options, network, trainer, tmp_path):
    pictures, labels = coloured(150, 4, 64)
    probe = neuronx.probe_of(pictures, labels=labels, class_names=CLASS_NAMES[:4], domain="shapes")
    study = neuronx.study(network, probe, layer="1", transform="none", units="0:3", trainer=trainer)
    words = ["red AND blue", "NOT a circle", "=circle", '"', "(green", "a square OR nothing"]
    found = study.explain(method, words=words, **options)
    assert {atom for one in found for concept, _ in one.terms for atom in parse(concept).atoms} <= set(words)
    told_again(found, study, "clip", tmp_path)


@pytest.mark.parametrize("method", ["net_dissect", "compositional"])
def test_masks(method, network, trainer, tmp_path):
    for folder in ("images", "annotations"):
        (tmp_path / folder).mkdir()
    pictures, _ = coloured(100, 5)
    for row, picture in enumerate(pictures):
        numbers = np.full((32, 32), row % 5, np.uint8)
        numbers[:16] = (row + 1) % 5
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(tmp_path / f"images/{row:03}.png")
        Image.fromarray(numbers).save(tmp_path / f"annotations/{row:03}.png")
    names = ["salt AND pepper", "DO NOT ENTER", "(a", "=1+1", '"']
    probe = labelled_pictures(tmp_path, legend=names, grid=(16, 16), num_workers=0)
    study = neuronx.study(network, probe, layer="1", transform="none", trainer=trainer)
    found = study.explain(method)
    assert {atom for one in found for concept, _ in one.terms for atom in parse(concept).atoms} <= set(names)
    told_again(found, study, "masks", tmp_path)


def test_only_weights_have_their_signs_turned():
    terms = (("A + -b", 0.5), ("-c", -0.25), ("d", 0.75))
    assert str(Explanation(Unit("1", 0), terms, -1.0)) == "0.50 A + -b - 0.25 -c + 0.75 d - 1.00"
