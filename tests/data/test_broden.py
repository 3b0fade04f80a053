"""Broden's index and labels against a small one whose numbers are known."""

import numpy as np
import pytest
import torch
from pictures_of_labels import COVERAGE, LABELS, small_broden, write_labels
from PIL import Image

from neuronx.concepts.labels import TruthConcepts
from neuronx.concepts.words import clean
from neuronx.data.broden import broden, read_labels
from neuronx.errors import UserError
from neuronx.targets.preprocess import Preprocess

WHOLE = Preprocess()


@pytest.fixture
def root(tmp_path):
    return tmp_path / "broden1_16"


@pytest.fixture
def known(root):
    return small_broden(root)


def expected(known, labels, categories=tuple(COVERAGE)):
    """(N, C, 8, 8) bool, from the numbers themselves."""
    number = {name: n for n, name in LABELS.items()}
    masks = np.zeros((len(known), len(labels), 8, 8), bool)
    for image, one in enumerate(known.values()):
        for c, label in enumerate(labels):
            for category in categories:
                for plane in one["planes"].get(category, []):
                    masks[image, c] |= plane == number[label]
            masks[image, c] |= number[label] in one["whole"]
    return torch.from_numpy(masks)


def test_images_come_in_the_order_of_the_index_and_only_annotated_ones(root, known):
    probe = broden(root, num_workers=0)
    assert probe.paths == list(known)
    assert probe.labels is None and probe.segmentation.grid == (8, 8)


def test_names_are_words_and_labels_as_they_stand(root, known):
    segmentation = broden(root).segmentation
    assert segmentation.labels == tuple(name for name in LABELS.values() if name != "-")
    assert segmentation.names == (
        "cat", "dog", "head", "street", "black color", "bar", "bar(scene)", "striped", "wine bar, counter", "grass",
    )  # fmt: skip
    assert list(segmentation.names) == clean(LABELS.values())


def test_a_label_belongs_to_the_category_that_it_covers_most(root, known):
    segmentation = broden(root).segmentation
    home = [segmentation.categories[c] for c in segmentation.category]
    assert dict(zip(segmentation.labels, home, strict=True)) == {
        "cat": "object", "dog": "object", "head": "part", "street-s": "scene", "black-c": "color", "bar": "object",
        "bar-s": "scene", "striped": "texture", "wine_bar-counter": "object", "grass": "material",
    }  # fmt: skip
    assert segmentation.categories == tuple(COVERAGE)


def test_every_mask_is_what_the_pictures_and_the_index_say(root, known):
    segmentation = broden(root).segmentation
    rows = [0, 1, 2, 3, 4]
    regions = segmentation.regions(rows, WHOLE)
    concepts = range(len(segmentation.names))
    assert torch.equal(regions.masks(concepts), expected(known, segmentation.labels))
    some = segmentation.regions([3, 0], WHOLE)
    assert torch.equal(some.masks(concepts), expected(known, segmentation.labels)[[3, 0]])
    assert torch.equal(some.picture[some.maps], torch.tensor([0, 1])[:, None, None].expand(-1, 8, 8))
    assert bool((some.sizes > 0).all()) and int(some.sizes.sum()) == 2 * 64


def test_counts_by_region_are_counts_by_pixel(root, known):
    segmentation = broden(root).segmentation
    regions = segmentation.regions(range(5), WHOLE)
    counts = (regions.sizes[:, None] * regions.shows).sum(0)
    assert torch.equal(counts, expected(known, segmentation.labels).sum((0, 2, 3)))


@pytest.mark.parametrize("chosen", [["object"], ["scene", "object"], ["texture", "part"], "scene"])
def test_selected_categories(root, known, chosen):
    segmentation = broden(root, categories=chosen).segmentation
    wanted = [chosen] if isinstance(chosen, str) else chosen
    assert segmentation.categories == tuple(kind for kind in COVERAGE if kind in wanted)
    covered = {number for kind in wanted for number in COVERAGE[kind]}
    assert segmentation.labels == tuple(LABELS[number] for number in LABELS if number in covered)


def test_images_and_masks_of_selected_categories(root, known):
    probe = broden(root, categories=["object", "part"])
    assert probe.paths == ["ade20k/one.jpg", "ade20k/two.jpg", "pascal/five.jpg"]
    there = {name: known[name] | {"whole": []} for name in probe.paths}
    masks = probe.segmentation.regions(range(3), WHOLE).masks(range(len(probe.segmentation.names)))
    assert torch.equal(masks, expected(there, probe.segmentation.labels, ("object", "part")))
    home = dict(zip(probe.segmentation.labels, probe.segmentation.category.tolist(), strict=True))
    assert home["dog"] == 0 and home["head"] == 1 and home["grass"] == 0


def test_one_split_of_the_index(root, known):
    assert broden(root, split="val").paths == ["ade20k/two.jpg"]
    assert "dtd/three.jpg" in broden(root, split="train").paths
    with pytest.raises(UserError, match=r"There is no split `test`.*train, val"):
        broden(root, split="test")


def test_a_crop_takes_the_pixels_under_the_crop(root, known):
    segmentation = broden(root).segmentation
    whole = expected(known, segmentation.labels)
    regions = segmentation.regions(range(5), Preprocess(resize=16, crop=8), (4, 4))
    assert torch.equal(regions.masks(range(len(segmentation.names))), whole[:, :, 2:6, 2:6])
    # Whole-image labels stop where the picture does.
    beyond = segmentation.regions(range(5), Preprocess(crop=32), (16, 16)).masks(range(len(segmentation.names)))
    assert torch.equal(beyond[:, :, 4:12, 4:12], whole) and beyond.sum() == whole.sum()


def test_the_truth_is_what_the_labels_show_anywhere(root, known):
    probe = broden(root)
    names, present = probe.truth
    assert names == probe.segmentation.names
    assert torch.equal(present, expected(known, probe.segmentation.labels).flatten(2).any(2))
    judgement = TruthConcepts().judge(["Street", "unicorn"], probe, None)
    assert judgement.known.tolist() == [True, False]
    assert judgement.scores(torch.arange(5))[:, 0].tolist() == [1, 0, 0, 0, 0]


def test_the_truth_is_read_once(root, known, monkeypatch):
    first = broden(root).truth[1]
    monkeypatch.setattr("neuronx.data.broden.read_pixels", lambda *_: pytest.fail("read again"))
    assert torch.equal(broden(root).truth[1], first)


def test_the_fingerprint_is_of_the_labels(root, known):
    probe = broden(root)
    before, pictures = probe.segmentation.fingerprint, probe.fingerprint
    assert broden(root, categories="object").segmentation.fingerprint != before
    write_labels(root / "images/ade20k/one_object_1.png", np.full((8, 8), 2))
    again = broden(root)
    assert again.fingerprint == pictures and again.segmentation.fingerprint != before
    assert not again.truth[1][0, again.segmentation.labels.index("cat")]


def test_another_index_with_the_same_header(root, known):
    text = (root / "index.csv").read_text().splitlines()
    (root / "index_ade20k.csv").write_text("\n".join([text[0], *(line for line in text if "ade20k" in line)]))
    assert broden(root, index="index_ade20k.csv").paths == ["ade20k/one.jpg", "ade20k/two.jpg"]
    with pytest.raises(UserError, match=r"no index .*index_missing.csv"):
        broden(root, index="index_missing.csv")


def test_an_unreadable_image_takes_its_labels_with_it(root, known):
    (root / "images/ade20k/two.jpg").write_bytes(b"no picture")
    probe = broden(root, max_unreadable=0.5)
    assert probe.paths[1] == "dtd/three.jpg"
    kept = {name: one for name, one in known.items() if name != "ade20k/two.jpg"}
    masks = probe.segmentation.regions(range(4), WHOLE).masks(range(len(probe.segmentation.names)))
    assert torch.equal(masks, expected(kept, probe.segmentation.labels))


def test_without_its_index_broden_is_all_photographs(root, known):
    probe = broden(root, index=None)
    assert len(probe) == 7 and probe.segmentation is None and probe.truth is None


def change(root, file, old, new):
    text = (root / file).read_text()
    assert old in text
    (root / file).write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("index.csv", "dtd/three.jpg", "dtd/none.jpg", r"index.csv, line 4: there is no image .*dtd/none.jpg"),
        ("index.csv", "one_object_1", "one_object_9", r"index.csv, line 2: there is no picture of labels"),
        ("index.csv", ",,8;0", ",,77", r"index.csv, line 4, column `texture`: label.csv has no label 77"),
        ("index.csv", ",,8;0", ",,99999999", r"line 4, column `texture`: label.csv has no label 99999999"),
        ("index.csv", ",,8;0", ",,8.5", r"line 4, column `texture`: expected the number of a label.*`8.5`"),
        ("index.csv", "train,16", "train,x", r"index.csv, line 2, column `ih`: expected a number, found `x`"),
        ("index.csv", "16,16,8,8", "16,16,0,8", r"line 2, column `sh`: expected a number of pixels, found 0"),
        ("index.csv", ",sw,", ",size,", r"index.csv has no column `sw`"),
        ("index.csv", ",texture", ",pattern", r"index.csv has no column `texture`"),
        ("label.csv", "number,name", "id,name", r"label.csv has no column `number`"),
        ("label.csv", "\n3,head", "\nx,head", r"label.csv, line 5, column `number`: expected a number, found `x`"),
        ("label.csv", "\n3,head", "\n2,head", r"label.csv, line 5, column `number`: label 2 stands here for"),
        ("label.csv", "\n3,head", "\n70000,head", r"line 5, column `number`: labels are numbers from 0 to 65535"),
        ("c_part.csv", "coverage", "area", r"c_part.csv has no column `coverage`"),
        ("c_part.csv", ",2.0", ",much", r"c_part.csv, line 2, column `coverage`: expected a number, found `much`"),
        ("category.csv", "texture", "sound", r"Cannot read .*c_sound.csv"),
    ],
)  # fmt: skip
def test_tables_that_cannot_be_right(root, known, file, old, new, message):
    change(root, file, old, new)
    with pytest.raises(UserError, match=message):
        broden(root)


@pytest.mark.parametrize("missing", ["label.csv", "category.csv", "c_object.csv"])
def test_tables_that_are_missing(root, known, missing):
    (root / missing).unlink()
    with pytest.raises(UserError, match=f"Cannot read .*{missing}"):
        broden(root)


def test_categories_that_there_are_not(root, known):
    with pytest.raises(UserError, match=r"There is no category `objects`. Nearest: object"):
        broden(root, categories=["objects"])


def test_pictures_that_cannot_be_right(root, known):
    path = root / "images/ade20k/one_object_1.png"
    segmentation = broden(root).segmentation
    write_labels(path, np.full((8, 9), 1))
    with pytest.raises(UserError, match=r"index.csv, line 2: .*one_object_1.png is 8 x 9 pixels, not sh x sw = 8 x 8"):
        segmentation.regions([0], WHOLE)
    numbers = np.ones((8, 8), int)
    numbers[3, 5] = 1234
    write_labels(path, numbers)
    with pytest.raises(UserError, match=r"one_object_1.png \(.*index.csv, line 2\) has label 1234 at row 3, column 5"):
        segmentation.presence([0])
    path.write_bytes(b"no picture")
    with pytest.raises(
        UserError, match=r"ade20k/one.jpg \(.*index.csv, line 2\).*one_object_1.png: it does not decode"
    ):
        segmentation.regions([0], WHOLE)
    with pytest.raises(UserError, match=r"one_object_1.png does not decode"):
        _ = segmentation.fingerprint


def test_an_image_of_another_size_than_the_index_says(root, known):
    Image.new("RGB", (16, 20)).save(root / "images/dtd/three.jpg")
    segmentation = broden(root).segmentation
    with pytest.raises(UserError, match=r"line 4, column `ih`: dtd/three.jpg is 20 x 16, not 16 x 16"):
        segmentation.regions([2], WHOLE)


def test_labels_of_no_category_and_categories_without_labels(root, known):
    (root / "c_texture.csv").write_text("code,number,name,frequency,coverage\n")
    labels = read_labels(root, None)
    # Every category covers as much of it, none: the last has it.
    assert labels.categories[labels.category[labels.labels.index("striped")]] == "texture"
