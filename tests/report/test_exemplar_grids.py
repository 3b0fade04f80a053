"""Pictures of units: what is bright, what is said beside them, which files there are."""

import re

import numpy as np
import oracles_milannotations as oracle
import pytest
import torch
from PIL import Image

from neuronx.recording.pictures import Gallery, view
from neuronx.recording.record import record
from neuronx.report import exemplar_grids
from neuronx.report import tiles as drawing
from neuronx.report.exemplar_grids import (
    SIDE,
    Drawn,
    activation_ranges,
    contact_sheet,
    draw_ranges,
    in_words,
    low_ends,
    show_exemplars,
    strongest_images,
)
from neuronx.report.tiles import DIMMED, GAP, OUTLINE, TILE, Strip, sheet, spread, tiles
from neuronx.types import Explanation, Unit


def test_outside_the_mask_a_picture_has_a_fourth_of_its_brightness():
    images = torch.full((2, 3, 16, 16), 200, dtype=torch.uint8)
    masks = torch.zeros(2, 1, 16, 16, dtype=torch.uint8)
    masks[0, :, :8] = 1
    shown = tiles(images, masks, side=32)
    assert shown.shape == (2, 3, 32, 32)
    assert (shown[0, :, :15] == 200).all() and (shown[0, :, 16:] == 200 // DIMMED).all()
    assert shown[0, :, 15].T.tolist() == [list(OUTLINE)] * 32, "a thin line along the edge, none at the border"
    assert (shown[1] == 50).all(), "nothing is bright where the unit never is on"
    assert (tiles(images, side=32) == 200).all()


def test_all_pictures_are_drawn_at_once_as_each_alone():
    images = torch.randint(0, 256, (2, 3, 3, 20, 20), dtype=torch.uint8)
    masks = torch.randint(0, 2, (2, 3, 1, 20, 20), dtype=torch.uint8)
    together = tiles(images, masks)
    assert torch.equal(together[1, 2], tiles(images[1, 2], masks[1, 2]))


def test_a_sheet_has_a_line_of_text_above_each_strip():
    strip = Strip("layer4:1", "peaks 5 to 3", torch.zeros(5, 3, 10, 10, dtype=torch.uint8))
    page = sheet([strip, strip], columns=3)
    rows = (GAP + 10) * 2 + GAP
    assert page.size == (GAP + 3 * (10 + GAP), 2 * (24 + rows) + GAP)
    assert np.asarray(page)[24 + GAP, GAP].tolist() == [0, 0, 0]
    assert np.asarray(page)[:24].min() < 200, "the text"


def test_long_texts_are_cut_where_the_sheet_ends():
    strip = Strip("layer4:1", "a very long formula " * 50, torch.zeros(2, 3, 64, 64, dtype=torch.uint8))
    assert np.asarray(sheet([strip], 2))[:24, -GAP:].min() == 255


@pytest.mark.parametrize(
    ("count", "expected"), [(3, [0, 1, 2]), (1, [0]), (64, [0, 7, 14, 21, 28, 35, 42, 49, 56, 63])]
)
def test_units_are_spread_over_the_layer(count, expected):
    assert spread(count) == expected


def test_explanations_are_put_into_words():
    a, b = Unit("1", 0), Unit("1", 1)
    explained = {
        "le_label": [Explanation(a, (("dog", 2.0), ("cat", 1.0)), 0.5), Explanation(b, ())],
        "clip_dissect": [Explanation(a, (("dog", 1.0),), support=((8.5, 2),))],
    }
    assert in_words(explained) == {
        a: {"le_label": "2.00 dog + 1.00 cat + 0.50", "clip_dissect": "dog [train/test images: 8.5/2]"},
        b: {"le_label": "inactive"},
    }


SAID = {
    "le_clip": [Explanation(Unit("1", 2), (("<b>dog</b>", 1.0),)), Explanation(Unit("1", 0), (("cat", -0.3),))],
    "clip_dissect": [Explanation(Unit("1", 2), (("cat & mouse", 1.0),))],
}


@pytest.fixture(scope="module")
def run(trainer, tmp_path_factory):
    """The folder of a run, the target, and what was found."""
    folder = tmp_path_factory.mktemp("run")
    target, probe = oracle.network().select(layers=["1", "5"], units=[0, 2]), oracle.pictures()
    maps = oracle.outputs(target, probe)
    found = {layer: oracle.exemplars(maps[layer], layer) for layer in ("1", "5")}
    return folder, show_exemplars(found, target, probe, trainer, folder, SAID), found


def test_a_run_gets_annotations_pictures_and_pages(run):
    folder, paths, _ = run
    places = [path.relative_to(folder / "pictures").as_posix() for path in paths]
    assert places == ["small/1/index.html", "small_1.png", "small/5/index.html", "small_5.png"]
    assert np.load(folder / "exemplars" / "small" / "1" / "images.npy").shape == (2, 3, 3, 16, 16)
    for layer in ("1", "5"):
        for unit in (0, 2):
            with Image.open(folder / "pictures" / "small" / layer / f"unit_{unit}.png") as picture:
                assert picture.width == GAP + 3 * (128 + GAP)
            with Image.open(folder / "pictures" / "small" / layer / f"unit_{unit}_ranges.png") as picture:
                assert picture.width == GAP + 5 * (84 + GAP)


def test_what_begins_with_a_negative_term_shows_the_low_end_too(run, trainer, tmp_path, monkeypatch):
    folder, _, found = run
    where = folder / "pictures" / "small" / "1"
    assert (where / "unit_0_low.png").is_file() and not (where / "unit_2_low.png").exists()
    page = (where / "index.html").read_text()
    assert 'src="unit_0_low.png"' in page and "begins with a negative term, the lowest images are shown too" in page
    assert "negative term" not in (folder / "pictures" / "small" / "5" / "index.html").read_text()
    target, probe = oracle.network().select(layers=["1"], units=[0, 2]), oracle.pictures()
    recorded = record(target, probe, trainer)["1"]
    seen = probe.split("train", "val")
    (low,) = low_ends(recorded, [2], seen, 4, target, probe, tmp_path).values()
    order = sorted(seen.tolist(), key=lambda row: float(recorded.values[row, 2]))[:4]
    shown = view(target.transform, TILE)
    assert all(torch.equal(tile, shown(probe.load([row])[0])) for tile, row in zip(low.tiles, order, strict=True))
    first, last = (float(recorded.values[order[at], 2]) for at in (0, -1))
    assert low.title == "1:2" and low.remark.startswith(f"lowest means {first:.4g} to {last:.4g}, of the {len(seen)}")
    drawn = Drawn.read(folder / "exemplars" / "small" / "1", found["1"])
    assert contact_sheet(drawn, {}, lows={2: low}).height > contact_sheet(drawn, {}).height
    plain, both = (strongest_images(Unit("1", 2), target, probe, trainer, low, k=3) for low in (False, True))
    assert both == plain and both.picture.height > plain.picture.height


def test_the_page_says_what_is_known_and_nothing_that_could_run(run):
    folder = run[0]
    page = (folder / "pictures" / "small" / "1" / "index.html").read_text()
    assert "<dt>le_clip</dt><dd>&lt;b&gt;dog&lt;/b&gt;</dd><dt>clip_dissect</dt><dd>cat &amp; mouse</dd>" in page
    assert (
        "2 units; of each the 3 images of 23 with the strongest mean, bright where a unit is above its 0.8 quantile"
        in page
    )
    assert "images from ranges of the ranking by activation (pool=avg)" in page
    assert re.search(r"1:2<small>means [\d.]+ to [\d.]+, on above", page)
    for picture in re.findall(r'src="([^"]+)"', page):
        assert (folder / "pictures" / "small" / "1" / picture).is_file()
    whole = (folder / "pictures" / "small" / "5" / "index.html").read_text()
    assert "shown whole, since the layer has no positions" in whole


def test_the_same_work_gives_the_same_bytes(run, trainer, tmp_path, monkeypatch):
    folder, _, found = run
    monkeypatch.setattr(drawing, "DRAWN_AT_ONCE", 1)
    target = oracle.network().select(layers=["1"], units=[0, 2])
    show_exemplars({"1": found["1"]}, target, oracle.pictures(), trainer, tmp_path, SAID)
    for name in ("small_1.png", "small/1/unit_0.png", "small/1/unit_2.png"):
        a, b = (np.asarray(Image.open(root / "pictures" / name)) for root in (folder, tmp_path))
        assert np.array_equal(a, b)


def test_other_processes_draw_nothing(run, trainer, tmp_path, monkeypatch):
    monkeypatch.setattr(exemplar_grids, "is_first", lambda: False)
    target = oracle.network().select(layers=["1"])
    assert show_exemplars({"1": run[2]["1"]}, target, oracle.pictures(), trainer, tmp_path) == []
    assert not (tmp_path / "pictures").exists()


def test_a_sheet_shows_what_is_asked_for(run):
    folder, _, found = run
    drawn = Drawn.read(folder / "exemplars" / "small" / "1", found["1"])
    assert drawn.units == [0, 2] and drawn.masks is not None
    narrow = contact_sheet(drawn, {}, units=1, exemplars=2, side=70)
    assert narrow.size == (GAP + 2 * (70 + GAP), 10 + 9 + 70 + 3 * GAP)


def test_each_range_is_a_row_of_its_images(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(exemplar_grids, "Strip", lambda *row: said.append(row[:2]) or Strip(*row))
    values = torch.arange(20.0, 0.0, -1)[:, None].expand(-1, 2)
    ranges = activation_ranges(values, ranks=((0, 2), (2, 20)), n=4)
    images = np.arange(20, dtype=np.uint8)[:, None, None, None] * np.ones((1, 3, SIDE, SIDE), np.uint8)
    paths = draw_ranges(ranges, 20, [3, 7], Gallery(torch.arange(20), images), tmp_path)
    assert [path.name for path in paths] == ["unit_3_ranges.png", "unit_7_ranges.png"]
    assert said[:2] == [("Top 0%-10%", "activations 19 to 20"), ("Top 10%-100%", "activations 1 to 18")]
    drawn = np.asarray(Image.open(paths[1]))
    assert drawn.shape[1] == GAP + 4 * (SIDE + GAP)
    line = drawn.shape[0] // 2 - SIDE // 2  # through the first row
    first = [int(drawn[line, GAP + column * (SIDE + GAP) + 5, 0]) for column in range(4)]
    assert first == [0, 1, 255, 255], "the first range has two images only"
