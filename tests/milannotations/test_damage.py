"""What is wrong with a model's folder is said, with the file and, in tables, the line."""

import numpy as np
import pytest
from model_folders import SIDE, K, make_layer, make_model, make_table

from neuronx.errors import UserError
from neuronx.milannotations import read


def save(name, array):
    return lambda layer: np.save(layer / name, array)


def nothing(*shape):
    return np.zeros(shape, np.uint8)


def longer(layer):
    with (layer / "images.npy").open("ab") as file:
        file.write(b"more")


DAMAGE = {
    r"a is missing images.npy": lambda layer: (layer / "images.npy").unlink(),
    r"a is missing masks.npy": lambda layer: (layer / "masks.npy").unlink(),
    r"images.npy: expected 5D images .*not \(4, 3, 8, 8\)": save("images.npy", nothing(4, 3, 8, 8)),
    r"masks.npy: expected 5D masks .*not \(4,\)": save("masks.npy", nothing(4)),
    r"images.npy: expected bytes \(uint8\), not float64": save("images.npy", np.zeros((4, 3, 3, 8, 8))),
    r"images.npy: expected 3 channels on the third axis": save("images.npy", nothing(4, 3, 1, 8, 8)),
    r"masks.npy: expected 1 channel on the third axis": save("masks.npy", nothing(4, 3, 3, 8, 8)),
    r"different numbers of units and images: 5 units of 3 in images": save("images.npy", nothing(5, 3, 3, 8, 8)),
    r"different numbers of units and images: .* 4 units of 2 in masks": save("masks.npy", nothing(4, 2, 1, 8, 8)),
    r"different height or width: \(8, 8\) in images.npy, \(8, 9\)": save("masks.npy", nothing(4, 3, 1, 8, 9)),
    r"images.npy is empty": save("images.npy", nothing(0, 3, 3, 8, 8)),
    r"units.npy: expected 1D units.*float64": save("units.npy", np.arange(4.0)),
    r"units.npy: expected 1D units.*\(4, 1\)": save("units.npy", np.arange(4)[:, None]),
    r"units.npy has 3 units, and masks.npy beside it 4": save("units.npy", np.arange(3)),
    r"units.npy: each unit must be there once": save("units.npy", np.array([0, 1, 1, 2])),
    r"units.npy: each unit must be there once, counted from 0": save("units.npy", np.arange(4) - 1),
    r"units.npy is no array .*allow_pickle": save("units.npy", np.array([{}, {}, {}, {}])),
    r"images.npy is no array of NumPy's": lambda layer: (layer / "images.npy").write_bytes(b"PNG"),
    r"masks.npy is no array of NumPy's": lambda layer: (layer / "masks.npy").write_bytes(b""),
    r"images.npy is no array .*cut short": lambda layer: (layer / "images.npy").write_bytes(
        (layer / "images.npy").read_bytes()[:-1]
    ),
    r"images.npy is longer than its header": longer,
    r"masks.npy is no array .*must be positive": lambda layer: (layer / "masks.npy").write_bytes(
        (layer / "masks.npy").read_bytes().replace(b"(4, 3, 1", b"(-4,3, 1")
    ),
    r"masks.npy: expected bytes \(uint8\), not bool": save("masks.npy", np.zeros((4, 3, 1, 8, 8), bool)),
    r"masks.npy is no array .*an archive": lambda layer: np.savez((layer / "masks.npy").open("wb"), nothing(4)),
}


@pytest.mark.parametrize("message", DAMAGE)
def test_a_damaged_layer_is_named(tmp_path, message):
    make_model(tmp_path, {"a": 4})
    DAMAGE[message](tmp_path / "a")
    with pytest.raises(UserError, match=rf"{tmp_path}.*{message}"):
        read(tmp_path)


def test_a_mask_of_other_values_is_named_when_it_is_read(tmp_path):
    make_layer(tmp_path / "a")
    np.save(tmp_path / "a" / "masks.npy", np.full((4, K, 1, SIDE, SIDE), 255, np.uint8))
    with pytest.raises(UserError, match=r"a/masks.npy, row 2: masks are 0 or 1, found 255"):
        read(tmp_path)[2]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("a", 9, "dots"), r"line 3, column `unit`: unit 9 of layer `a` has no images"),
        (("c", 0, "dots"), r"line 3, column `layer`: layer `c` has no images in "),
        (("a", 0, "  "), r"line 3, column `summary`: the description of unit 0 of layer a is empty"),
        (("a", "1.5", "dots"), r"line 3, column `unit`: expected a whole number, found `1.5`"),
        (("a", "one", "dots"), r"line 3, column `unit`: expected a number, found `one`"),
        (("a", -1, "dots"), r"line 3, column `unit`: units count from 0, found -1"),
        (("a", 0), r"line 3: the row ends before column `summary`"),
    ],
)
def test_a_wrong_row_is_named(tmp_path, row, message):
    make_layer(tmp_path / "a")
    make_table(tmp_path, [("a", 0, "dots"), row])
    with pytest.raises(UserError, match=rf"annotations.csv, {message}"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("layer,unit,summary\na,0,café\n".encode("latin1"), r" is not UTF-8 text"),
        (b'layer,unit,summary\na,0,"dots\n', r", line 2: not a comma separated table"),
        (b"layer,unit,summary\n", r" holds no rows; expected a header"),
        (b"layer,unit,unit,summary\na,0,1,dots\n", r" has the column `unit` twice"),
        (b"layer,unit,summary\na,0,dots, lines\n", r", line 2: 4 cells for 3 columns"),
        (b"layer;unit;summary\na;0;dots\n", r" is separated by semicolons; save it separated by commas"),
    ],
)
def test_a_table_that_is_none_is_named(tmp_path, table, message):
    make_layer(tmp_path / "a")
    (tmp_path / "annotations.csv").write_bytes(table)
    with pytest.raises(UserError, match=rf"annotations.csv{message}"):
        read(tmp_path)


def test_a_folder_that_is_none_of_a_model(tmp_path):
    with pytest.raises(UserError, match=r"The folder .*/none was not found"):
        read(tmp_path / "none")
    with pytest.raises(UserError, match=r"holds no layers"):
        read(tmp_path)
    make_model(tmp_path, {"conv1": 1, "conv2": 1})
    with pytest.raises(UserError, match=r"There is no layer `conv3`. Nearest: conv2, conv1. Looked in"):
        read(tmp_path, layers=["conv3"])
    with pytest.raises(UserError, match="No layers of"):
        read(tmp_path, layers=[])
    make_layer(tmp_path / "conv2", 1, k=4)
    with pytest.raises(UserError, match="different numbers of exemplars"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2,3\n", "ids.csv has 1 lines, and masks.npy beside it 2 units"),
        ("1,2,3\n1,2\n", "ids.csv, line 2: 2 images, and 3 in masks.npy"),
        ("1,2,3\n1,-2,3\n", "ids.csv, line 2: `-2` is not the number of an image"),
        ("1,2,3\n1,2.0,3\n", "ids.csv, line 2: `2.0` is not"),
        (None, "a is missing ids.csv"),
    ],
)
def test_wrong_numbers_of_images_are_named(tmp_path, text, message):
    make_layer(tmp_path / "a", 2)
    (tmp_path / "a" / "ids.csv").unlink() if text is None else (tmp_path / "a" / "ids.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        read(tmp_path).folders[0].ids  # noqa: B018
