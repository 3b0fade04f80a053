"""Places365 and Broden in their official layouts."""

import pytest
from pictures import picture

from neuronx.data.broden import broden
from neuronx.data.concat import ConcatProbe
from neuronx.data.files import lines
from neuronx.data.places365 import categories, places365_val
from neuronx.errors import UserError


@pytest.fixture
def places(tmp_path):
    root = tmp_path / "places"
    (root / "val_256").mkdir(parents=True)
    names = [f"Places365_val_{i:08d}.jpg" for i in (3, 1, 2)]
    for i, name in enumerate(names):
        picture(i).save(root / "val_256" / name)
    (root / "places365_val.txt").write_text("".join(f"{n} {c}\n" for n, c in zip(names, (2, 0, 1), strict=True)))
    (root / "categories_places365.txt").write_text("/a/airfield 0\n/a/art_gallery 1\n/a/apartment_building/outdoor 2\n")
    return root


@pytest.fixture
def broden_root(tmp_path):
    root = tmp_path / "broden1_224"
    for i, source in enumerate(("opensurfaces", "ade20k", "dtd", "pascal")):
        (root / "images" / source).mkdir(parents=True)
        for j in range(5):
            picture(10 * i + j).save(root / "images" / source / f"{j}.jpg")
            picture(90).save(root / "images" / source / f"{j}_color.png")
    (root / "index.csv").write_text("image,split,ih,iw,sh,sw,color,object,part,material,scene,texture\n")
    return root


def test_places_come_in_the_order_of_their_list(places):
    probe = places365_val(places)
    assert probe.labels.tolist() == [2, 0, 1]
    assert probe.class_names == ("airfield", "art gallery", "apartment building, outdoor")
    assert probe.image_name(0) == "Places365_val_00000003.jpg"


def test_places_that_are_not_all_there(places):
    (places / "val_256" / "Places365_val_00000001.jpg").unlink()
    with pytest.raises(UserError, match=r"1 of 3 images are not in .*Places365_val_00000001.jpg.*download=True"):
        places365_val(places)
    with pytest.raises(UserError, match="no folder val_256"):
        places365_val(places.parent)


def test_the_published_class_names_come_out(shared):
    sets = shared / "data/concept_sets"
    assert categories(sets / "categories_places365.txt") == lines(sets / "places365_labels_clean.txt")


def test_broden_is_its_photographs(broden_root):
    probe = broden(broden_root)
    assert len(probe) == 20 and probe.labels is None
    assert probe.paths == [f"{s}/{i}.jpg" for s in ("ade20k", "dtd", "opensurfaces", "pascal") for i in range(5)]
    assert broden(broden_root / "images").fingerprint == probe.fingerprint


def test_a_concatenation_keeps_order_and_splits(places, broden_root):
    first, second = places365_val(places), broden(broden_root)
    both = ConcatProbe({"a": first, "b": second})
    assert len(both) == 23 and both.name == "places365_val_broden" and both.labels is None
    assert both.splits["test"].tolist() == [*first.splits["test"].tolist(), *(second.splits["test"] + 3).tolist()]
    assert [p.tobytes() for p in both.load([1, 2, 3, 22])] == [
        p.tobytes() for p in (*first.load([1, 2]), *second.load([0, 19]))
    ]
    assert both.image_name(3) == "broden/ade20k/0.jpg"
    assert both.fingerprint not in (first.fingerprint, second.fingerprint, ConcatProbe([second, first]).fingerprint)


def test_a_concatenation_of_one_labelled_set_twice_keeps_labels(places):
    first = places365_val(places)
    both = ConcatProbe([first, first])
    assert both.labels.tolist() == [2, 0, 1, 2, 0, 1] and both.class_names == first.class_names


def test_domains_are_not_mixed(places, broden_root):
    with pytest.raises(UserError, match="Pictures of several domains"):
        ConcatProbe([places365_val(places), broden(broden_root, domain="shapes")])
