"""Folders of pictures and their labels: every kind of file, against numpy; and CamVid."""

import numpy as np
import pytest
import torch
from pictures import picture
from PIL import Image

from neuronx.concepts.labels import TruthConcepts
from neuronx.data.labelled_pictures import labelled_pictures
from neuronx.errors import UserError
from neuronx.targets.preprocess import Preprocess

LEGEND = {0: "sky", 1: "road_sign", 2: "car", 3: "unseen"}
WHOLE = Preprocess()


@pytest.fixture
def numbers():
    """Of four pictures, 12 x 12 each; 255 is for pixels that nobody annotated."""
    random = np.random.default_rng(1)
    return [random.choice(what, (12, 12)) for what in ([0, 1, 255], [2, 0], [1], [0, 1, 2, 255])]


@pytest.fixture
def root(tmp_path, numbers):
    folder = tmp_path / "town"
    for name in ("images", "annotations"):
        (folder / name).mkdir(parents=True)
    for i, each in enumerate(numbers):
        picture(i).save(folder / "images" / f"{i}.jpg")
        Image.fromarray(each.astype(np.uint8)).save(folder / "annotations" / f"{i}.png")
    return folder


def probe_of(root, **options):
    return labelled_pictures(root, **{"legend": LEGEND, "ignore": [255], "grid": (12, 12)} | options)


def masks_of(probe):
    return probe.segmentation.regions(range(len(probe)), WHOLE).masks(range(len(probe.segmentation.names)))


def expected(numbers):
    return torch.from_numpy(np.stack([[each == number for number in LEGEND] for each in numbers]))


def test_masks_are_where_the_labels_are(root, numbers):
    probe = probe_of(root)
    segmentation = probe.segmentation
    assert probe.name == "town" and probe.labels is None and len(probe) == 4
    assert segmentation.names == ("sky", "road sign", "car", "unseen")
    assert segmentation.labels == ("sky", "road_sign", "car", "unseen")
    assert segmentation.categories == ("object",) and segmentation.category.tolist() == [0, 0, 0, 0]
    assert torch.equal(masks_of(probe), expected(numbers))
    names, present = probe.truth
    assert names == segmentation.names and torch.equal(present, expected(numbers).flatten(2).any(2))
    assert TruthConcepts().concepts(probe, None).scores[:, 3].sum() == 0


def test_masks_judge_by_area_where_every_picture_shows_everything(root, numbers, caplog):
    probe = probe_of(root)
    judge = TruthConcepts(measure="area")
    found = judge.judge(["car", "Road sign", "sea"], probe, None)
    shares = expected(numbers).float().mean((2, 3))[:, [2, 1]]
    assert judge.name == "masks-area" and judge.vocabulary(probe) == probe.segmentation.names
    assert found.known.tolist() == [True, True, False]
    assert torch.allclose(found.scores(torch.arange(4))[:, :2], shares) and not caplog.text
    for each in (root / "annotations").iterdir():
        Image.fromarray(numbers[3].astype(np.uint8)).save(each)
    TruthConcepts().concepts(probe_of(root), None)
    assert "All images of `town` show the same concepts somewhere" in caplog.text
    with pytest.raises(UserError, match=r"There is no measure of masks `size`"):
        TruthConcepts(measure="size")


def test_labels_in_subfolders_and_of_other_names(tmp_path, numbers):
    for folder in ("val/a", "val/b", "lab/a", "lab/b"):
        (tmp_path / folder).mkdir(parents=True)
    for i, each in enumerate(numbers):
        where = f"{'ab'[i % 2]}/{i // 2}"
        picture(i).save(tmp_path / "val" / f"{where}.png")
        Image.fromarray(each.astype(np.uint8)).save(tmp_path / "lab" / f"{where}.bmp")
    probe = probe_of(tmp_path, images="val", annotations="lab")
    assert probe.paths == ["a/0.png", "a/1.png", "b/0.png", "b/1.png"]
    assert torch.equal(masks_of(probe), expected(numbers)[[0, 2, 1, 3]])


def palette(each):
    saved = Image.fromarray(each.astype(np.uint8)).convert("P")
    saved = Image.frombytes("P", saved.size, each.astype(np.uint8).tobytes())
    saved.putpalette(np.random.default_rng(0).integers(0, 256, 768).astype(np.uint8).tobytes())
    return saved


def grey_in_colour(each):
    return Image.fromarray(np.repeat(each.astype(np.uint8)[:, :, None], 3, 2))


@pytest.mark.parametrize("saved", [palette, grey_in_colour])
def test_other_kinds_of_files(root, numbers, saved):
    for i, each in enumerate(numbers):
        saved(each).save(root / "annotations" / f"{i}.png")
    assert torch.equal(masks_of(probe_of(root)), expected(numbers))


def test_sixteen_bits(root, numbers):
    for i, each in enumerate(numbers):
        Image.fromarray((each * 100).astype(np.uint16)).save(root / "annotations" / f"{i}.png")
    probe = probe_of(root, legend={n * 100: name for n, name in LEGEND.items()}, ignore=[25500])
    assert torch.equal(masks_of(probe), expected(numbers))


def test_colours(root, numbers):
    colours = {0: (128, 128, 128), 1: (64, 0, 128), 2: (1, 2, 3), 3: (9, 9, 9), 255: (0, 0, 0)}
    for i, each in enumerate(numbers):
        pixels = np.zeros((12, 12, 3), np.uint8)
        for number, colour in colours.items():
            pixels[each == number] = colour
        Image.fromarray(pixels).save(root / "annotations" / f"{i}.png")
    legend = {" ".join(map(str, colours[n])): name for n, name in LEGEND.items()}
    assert torch.equal(masks_of(probe_of(root, legend=legend, ignore=["0 0 0"])), expected(numbers))
    with pytest.raises(UserError, match=r"0.png has colour 0 0 0 at row \d+, column \d+, which data.legend does not"):
        masks_of(probe_of(root, legend=legend, ignore=[]))
    with pytest.raises(UserError, match=r"0.png is a picture in colours, but data.legend is a legend of numbers"):
        masks_of(probe_of(root))


def test_labels_of_one_name_are_one_concept(root, numbers):
    probe = probe_of(root, legend={0: "sky", 1: "thing", 2: "thing", 255: "void"}, ignore=["void"])
    assert probe.segmentation.names == ("sky", "thing")
    assert torch.equal(masks_of(probe)[:, 1], expected(numbers)[:, 1:3].any(1))


def test_the_fingerprint_is_of_labels_and_legend(root):
    before = probe_of(root).segmentation.fingerprint
    assert probe_of(root, grid=(3, 3)).segmentation.fingerprint == before
    assert probe_of(root, legend=LEGEND | {0: "sea"}).segmentation.fingerprint != before
    Image.fromarray(np.zeros((12, 12), np.uint8)).save(root / "annotations" / "2.png")
    assert probe_of(root).segmentation.fingerprint != before


def test_labels_outside_the_legend(root, numbers):
    y, x = np.argwhere(numbers[0] == 255)[0]
    with pytest.raises(UserError, match=rf"annotations/0.png has label 255 at row {y}, column {x}, which data.legend"):
        masks_of(probe_of(root, ignore=[]))
    with pytest.raises(UserError, match=r"1.png has label 2 at row"):
        _ = probe_of(root, legend={0: "sky", 1: "road", 3: "sea"}).truth


def test_labels_of_another_size(root):
    Image.new("L", (12, 14)).save(root / "annotations" / "3.png")
    with pytest.raises(
        UserError, match=r"images/3.jpg and its labels .*3.png differ in size: 12 x 12 and 14 x 12 pixels"
    ):
        masks_of(probe_of(root))


def test_pictures_without_labels(root):
    (root / "annotations" / "1.png").unlink()
    with pytest.raises(UserError, match=r"1 of 4 pictures in .*images have no labels in .*annotations: 1.jpg"):
        probe_of(root)
    with pytest.raises(UserError, match=r"no folder .*labels. Say which folder of .* data.annotations=NAME"):
        probe_of(root, annotations="labels")
    with pytest.raises(UserError, match=r"Say what the labels stand for"):
        probe_of(root, legend=None)


def test_labels_that_do_not_decode(root):
    (root / "annotations" / "1.png").write_bytes(b"no picture")
    segmentation = probe_of(root).segmentation
    with pytest.raises(UserError, match=r"The labels of 1.jpg cannot be read from .*1.png: it does not decode"):
        segmentation.presence([1])
    with pytest.raises(UserError, match=r"1.png does not decode"):
        _ = segmentation.fingerprint


def test_two_files_of_labels_for_one_picture(root):
    Image.new("L", (12, 12)).save(root / "annotations" / "1.bmp")
    with pytest.raises(UserError, match=r"labels of the same picture twice: 1.bmp and 1.png"):
        probe_of(root)


CAMVID = [
    "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist", "void",
]  # fmt: skip


@pytest.fixture(scope="module")
def camvid(shared):
    folder = shared / "data/camvid"
    probe = labelled_pictures(folder, images="val", annotations="valannot", legend=CAMVID, ignore=["void"])
    return probe, folder


def test_camvid_counts_as_numpy_does(camvid):
    probe, folder = camvid
    assert len(probe) == 101 and probe.segmentation.names == tuple(CAMVID[:-1])
    rows = [0, 17, 100]
    regions = probe.segmentation.regions(rows, WHOLE, (360, 480))
    counts = torch.zeros(len(rows), 11, dtype=torch.int64)
    counts.index_add_(0, regions.picture, regions.sizes[:, None] * regions.shows)
    for row, count in zip(rows, counts, strict=True):
        label = np.array(Image.open(folder / "valannot" / probe.paths[row]))
        assert count.tolist() == np.bincount(label.ravel(), minlength=12)[:11].tolist()


def test_camvid_under_squeezenets_crop(camvid):
    probe, folder = camvid
    regions = probe.segmentation.regions([40], Preprocess(resize=(256, 256), crop=227))
    label = Image.open(folder / "valannot" / probe.paths[40]).resize((256, 256), Image.Resampling.NEAREST)
    cropped = np.array(label.crop((14, 14, 241, 241)).resize((112, 112), Image.Resampling.NEAREST))
    shown = np.full((112, 112), 11)
    for concept, mask in enumerate(regions.masks(range(11))[0].numpy()):
        shown[mask] = concept
    # Nearest of nearest is off by a pixel here and there, along the borders of things only.
    assert (shown == cropped).mean() > 0.97
