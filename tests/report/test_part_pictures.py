import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from neuronx.report.loggers import found_pictures
from neuronx.report.part_pictures import SHEET, picture_of_parts, plane, write_part_pictures
from neuronx.types import PartSamples, Unit


def sample(unit=3, n=20, masks=True, layer="layer4"):
    draw = torch.Generator().manual_seed(unit)
    labels = torch.arange(n) % 2
    crops = torch.randint(0, 256, (n, 3, 16, 16), dtype=torch.uint8, generator=draw)
    vectors = torch.randn(n, 6, generator=draw) * 0.1
    vectors[:, 0] += labels
    inside = torch.ones(n, 1, 16, 16, dtype=torch.uint8) if masks else None
    return PartSamples("net/a", Unit(layer, unit), ("a red square", "water"), labels, crops, inside, vectors)


def test_pictures_are_files_that_loggers_find(tmp_path):
    paths = write_part_pictures([sample(3), sample(5, masks=False), sample(1, layer="layer3")], tmp_path)
    places = [path.relative_to(tmp_path / "pictures").as_posix() for path in paths]
    assert places == [
        "net-a/layer4/parts_3.png",
        "net-a/layer4/parts_5.png",
        "net-a_layer4_parts.png",
        "net-a/layer3/parts_1.png",
        "net-a_layer3_parts.png",
    ]
    assert set(found_pictures(tmp_path)) == {f"pictures/{place}" for place in places}
    before = [path.read_bytes() for path in paths]
    assert [path.read_bytes() for path in write_part_pictures([sample(3), sample(5, masks=False)], tmp_path)[:2]] == [
        before[0],
        before[1],
    ]
    assert write_part_pictures([], tmp_path) == []


def test_a_sheet_shows_the_first_units_of_a_layer(tmp_path):
    samples = [sample(unit, n=4) for unit in range(SHEET + 2)]
    *pages, sheet = write_part_pictures(samples, tmp_path)
    assert len(pages) == SHEET + 2
    assert Image.open(sheet).height == sum(Image.open(page).height + 12 for page in pages[:SHEET])


def test_each_part_has_a_row_and_a_colour():
    picture = np.asarray(picture_of_parts(sample()))
    colours = {tuple(colour) for colour in picture.reshape(-1, 3)[::1].tolist()}
    assert {(0x2A, 0x6F, 0xBB), (0xD1, 0x49, 0x5B)} <= colours
    one, other = picture_of_parts(sample(n=2)), picture_of_parts(sample(n=2))
    assert isinstance(one, Image.Image) and one.tobytes() == other.tobytes()


def test_the_plane_keeps_parts_apart():
    one = sample()
    places, how = plane(one.vectors)
    assert places.shape == (20, 2) and ("UMAP" in how or "PCA" in how)
    a, b = places[0::2], places[1::2]
    apart = (a.mean(0) - b.mean(0)).norm()
    assert apart > 2 * max(a.std(0).norm(), b.std(0).norm())


@pytest.mark.parametrize("n", [1, 2])
def test_few_or_equal_references_are_no_trouble(n):
    places, _ = plane(torch.ones(n, 3))
    assert places.isfinite().all()


def test_umap_is_taken_where_it_is_there(monkeypatch):
    class Umap:
        def __init__(self, **options):
            assert options["random_state"] == 4

        def fit_transform(self, vectors):
            return vectors[:, :2]

    monkeypatch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=Umap))
    places, how = plane(sample().vectors, seed=4)
    assert how == "UMAP" and torch.equal(places, sample().vectors[:, :2])
    assert "PCA" in plane(sample(n=4).vectors)[1]  # too few to have neighbours
    monkeypatch.setitem(sys.modules, "umap", None)
    assert "PCA" in plane(sample().vectors)[1]
