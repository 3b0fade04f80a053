"""The published tally: read, counted, written back."""

import json
from pathlib import Path

import pytest

from neuronx.errors import UserError
from neuronx.methods.net_dissect.tally import cells, detectors, dissected, read_tally
from neuronx.tables.csv import write_csv
from neuronx.tables.explanations import read_explanations

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "netdissect_tally.json").read_text())
COUNTS = {
    "clip_dissect/NetDissect_results/resnet50_imagenet_layer1": (256, 61, 20),
    "clip_dissect/NetDissect_results/resnet50_imagenet_layer2": (512, 62, 19),
    "clip_dissect/NetDissect_results/resnet50_imagenet_layer3": (1024, 276, 76),
    "clip_dissect/NetDissect_results/resnet50_imagenet_layer4": (2048, 1355, 186),
    "clip_dissect/NetDissect_results/resnet50_imagenet_fc": (1000, 983, 222),
    "linear_explanations/baselines_as_published/NetDissect/resnet18_places365_layer1": (64, 6, 4),
    "linear_explanations/baselines_as_published/NetDissect/resnet18_places365_layer4": (512, 434, 187),
    "linear_explanations/baselines_as_published/NetDissect/resnet18_places365_fc": (365, 364, 195),
}


def test_a_tally_is_written_as_published(golden, tmp_path):
    path = write_csv(tmp_path / "tally.csv", *cells(dissected(golden, "hit")))
    first, *lines = path.read_text().splitlines()
    assert first.split(",") == list(GOLDEN["rows_sorted_by_score_desc"][0])
    assert lines[0] == (
        "2,scene,street-s,0.742857143,dog,8,26,4,0.133333333,street-s,32,29,26,0.742857143,striped,32,5,5,0.15625"
    )
    assert [line.split(",")[0] for line in lines] == ["2", "3", "1"]


def test_a_tally_is_read_back(golden, tmp_path):
    rows = dissected(golden)
    read = read_tally(write_csv(tmp_path / "resnet18_imagenet_layer4.csv", *cells(rows)))
    assert [(row.unit, row.category, row.label) for row in read] == [(r.unit, r.category, r.label) for r in rows]
    assert [row.score for row in read] == [round(row.score, 9) for row in rows]
    assert [one.intersect for row in read for one in row.best] == [one.intersect for row in rows for one in row.best]
    explained = read_explanations(tmp_path / "resnet18_imagenet_layer4.csv")
    assert [str(one.unit) for one in explained] == ["layer4:1", "layer4:2", "layer4:0"]


@pytest.mark.parametrize("name", COUNTS)
def test_detectors_in_published_tallies(shared, name):
    rows = read_tally(shared / "data" / "published" / f"{name}.csv")
    assert (len(rows), *detectors(rows, 0.04)) == COUNTS[name]
    named = [one for row in rows for one in row.best if one.label is not None]
    off = [abs(one.iou - one.intersect / (one.truth + one.activation - one.intersect + 1e-10)) for one in named]
    assert max(off) < 5e-8, "small numbers passed through pandas, which kept three digits of them"


def test_blank_labels_in_published_tallies_are_none(shared):
    rows = read_tally(shared / "data/published/clip_dissect/NetDissect_results/resnet50_imagenet_layer4.csv")
    blank = [one for row in rows for one in row.best if one.label is None]
    assert (len(blank), {one.category for one in blank}, {one.truth for one in blank}) == (440, {"texture"}, {24924928})
    assert all(row.label is not None for row in rows)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("unit,description\n0,cat\n", r"no column `category`"),
        ("unit,category,label,score\n0,object,cat,.1\n", r"line 2, column `unit`: found 0, but .* from 1"),
        ("unit,category,label,score\n1,object,cat,much\n", r"line 2, column `score`: expected a number, found `much`"),
    ],
)
def test_tables_that_are_no_tallies(tmp_path, text, message):
    path = tmp_path / "tally.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_tally(path)
