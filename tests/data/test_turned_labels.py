"""Labels of pictures that EXIF turns: drawn on the picture as shown or as stored, with EXIF of their own or without."""

import numpy as np
import pytest
from PIL import Image

from neuronx.data.labelled_pictures import labelled_pictures
from neuronx.data.pixels import BACK, TURNS
from neuronx.errors import UserError
from neuronx.targets.preprocess import Preprocess

WIDE, SQUARE = (24, 16), (16, 16)


def stored(picture, orientation):
    """What a camera that was held so keeps of what a viewer shows."""
    return picture if orientation == 1 else picture.transpose(TURNS[BACK.get(orientation, orientation)])


def data_set(root, kinds):
    """Pictures with a red patch, and labels 1 where it is.

    Args:
        root: The folder.
        kinds: Of each picture, its size, its orientation, and whether its labels lie on it as "shown", as "stored", or
            "own": stored likewise, with EXIF of their own.
    """
    for folder in ("images", "annotations"):
        (root / folder).mkdir(parents=True)
    for i, ((width, height), orientation, drawn) in enumerate(kinds):
        pixels, labels = np.full((height, width, 3), 40, np.uint8), np.zeros((height, width), np.uint8)
        pixels[1:6, 2:9], labels[1:6, 2:9] = (220, 40, 40), 1
        exif = Image.Exif()
        exif[0x0112] = orientation
        stored(Image.fromarray(pixels), orientation).save(root / "images" / f"{i:02d}.png", exif=exif)
        mask = Image.fromarray(labels) if drawn == "shown" else stored(Image.fromarray(labels), orientation)
        mask.save(root / "annotations" / f"{i:02d}.png", **({"exif": exif} if drawn == "own" else {}))
    return root


def probe_of(root, **options):
    return labelled_pictures(root, legend={0: "ground", 1: "red"}, grid=(8, 8), **options)


def agreement(probe):
    """Which pictures have the label exactly where they are red."""
    red = [np.asarray(picture)[..., 0] > 150 for picture in probe.load(range(len(probe)))]
    return [np.array_equal(red[row], probe.segmentation._concepts(row).numpy() == 1) for row in range(len(probe))]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("drawn", ["shown", "own"])
@pytest.mark.parametrize("size", [WIDE, SQUARE])
def test_labels_on_what_a_viewer_shows(tmp_path, size, orientation, drawn, caplog):
    probe = probe_of(data_set(tmp_path / "d", [(size, orientation, drawn)] * 3))
    assert all(agreement(probe)) and ("labels of 0 were drawn" in caplog.text) == (orientation > 1)


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_labels_on_what_is_stored_are_told_by_their_size(tmp_path, orientation, caplog):
    probe = probe_of(
        data_set(tmp_path / "d", [(WIDE, orientation, "stored"), (WIDE, 1, "stored"), (SQUARE, 3, "stored")])
    )
    assert all(agreement(probe)), "the picture of another size tells how the square one was drawn on"
    assert "EXIF turns 2 of 3 pictures" in caplog.text and "labels of 2 were drawn on them as stored" in caplog.text
    masks = probe.segmentation.regions([0, 1, 2], Preprocess(resize=(8, 8))).masks([1])
    assert masks.flatten(1).any(1).all()


def test_where_sizes_disagree_each_has_its_own(tmp_path):
    kinds = [(WIDE, 6, "stored"), (WIDE, 6, "shown"), (SQUARE, 6, "shown")]
    assert all(agreement(probe_of(data_set(tmp_path / "d", kinds))))


def test_nothing_is_turned_if_not_wanted(tmp_path):
    root = data_set(tmp_path / "d", [(WIDE, 6, "stored"), (SQUARE, 3, "stored"), (SQUARE, 3, "own")])
    probe = probe_of(root, upright=False)
    assert all(agreement(probe)) and probe.load([0])[0].size == (16, 24)
    assert probe.segmentation.fingerprint != probe_of(root).segmentation.fingerprint
    shown = probe_of(data_set(tmp_path / "e", [(WIDE, 6, "shown")] * 2), upright=False)
    with pytest.raises(UserError, match=r"differ in size: 24 x 16 and 16 x 24 .* as EXIF turns it: data.upright=true"):
        agreement(shown)


def test_labels_are_whole_numbers(tmp_path):
    root = data_set(tmp_path / "d", [(SQUARE, 1, "shown")] * 2)
    values = np.ones((16, 16), np.float32)
    for wrong in (0.5, -1, np.nan):
        values[3, 4] = wrong
        Image.fromarray(values).save(root / "annotations" / "00.tif")
        (root / "annotations" / "00.png").unlink(missing_ok=True)
        with pytest.raises(UserError, match=r"00.tif holds numbers that are no labels"):
            probe_of(root).segmentation.presence([0])
    values[3, 4] = 0
    Image.fromarray(values).save(root / "annotations" / "00.tif")
    assert probe_of(root).segmentation.presence([0]).tolist() == [[True, True]]


@pytest.mark.parametrize("grid", [[5], "abc", [0, 4], [100_000, 100_000], [2.5, 3]])
def test_grids_that_are_none(tmp_path, grid):
    root = data_set(tmp_path / "d", [(SQUARE, 1, "shown")])
    with pytest.raises(UserError, match=r"data.grid is a height and a width, such as \[112,112\]"):
        labelled_pictures(root, legend={0: "ground", 1: "red"}, grid=grid)


def test_labels_beyond_every_picture(tmp_path):
    root = data_set(tmp_path / "d", [(SQUARE, 1, "shown")])
    with pytest.raises(UserError, match=r"names label 99999999999; the numbers of labels end at 16777215"):
        labelled_pictures(root, legend={0: "ground", 1: "red", 99999999999: "huge"})
    with pytest.raises(UserError, match=r"data.ignore names label 99999999999"):
        probe_of(root, ignore=[99999999999])
