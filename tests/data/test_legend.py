"""Legends in every spelling."""

import json
import os

import pytest

from neuronx.data.labelled_pictures import read_legend
from neuronx.errors import UserError

NAMES = {0: "sky", 1: "road sign", 7: "car"}


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("legend.txt", "0 sky\n1 road sign\n\n7 car # and vans\n"),
        ("legend.txt", "0: sky\r\n1: road sign\r\n7: car"),
        ("legend.tsv", "0\tsky\n1\troad sign\n7\tcar\n"),
        ("legend.yaml", "# labels\n0: sky\n1: 'road sign'\n7: \"car\"\n"),
        ("legend.csv", "0,sky\n1,road sign\n7,car\n"),
        ("legend.csv", "id,name\n0,sky\n1,road sign\n7,car\n"),
        ("legend.csv", 'Name,Idx,Ratio\nsky,0,.5\n"road sign",1,.1\ncar,7,.2\n'),
        ("legend.json", json.dumps({"0": "sky", "1": "road sign", "7": "car"})),
    ],
)
def test_files(tmp_path, file, text):
    (tmp_path / file).write_text(text)
    legend = read_legend(tmp_path / file)
    assert legend.names == NAMES and not legend.colours


def test_a_legend_is_read_once():
    """From `<(command)`, say, which a second reading would find empty."""
    end, start = os.pipe()
    os.write(start, b"id,name\n0,sky\n1,road sign\n7,car\n")
    os.close(start)
    assert read_legend(f"/dev/fd/{end}").names == NAMES
    os.close(end)


def test_lists_without_an_end_are_refused():
    with pytest.raises(UserError, match="/dev/zero is a pipe or a device"):
        read_legend("/dev/zero")


def test_mappings_and_lists():
    assert read_legend(NAMES).names == read_legend({"0": "sky", "1": "road sign", "7": "car"}).names == NAMES
    assert read_legend(["sky", "road"]).names == {0: "sky", 1: "road"}


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("colours.txt", "128 64 128\troad\n0 0 0 Void\n"),
        ("class_dict.csv", "name,r,g,b\nroad,128,64,128\nVoid,0,0,0\n"),
        ("colours.json", '{"128 64 128": "road", "0,0,0": "Void"}'),
    ],
)
def test_colours(tmp_path, file, text):
    (tmp_path / file).write_text(text)
    legend = read_legend(tmp_path / file)
    assert legend.colours and legend.names == {(128 << 16) + (64 << 8) + 128: "road", 0: "Void"}
    assert legend.spell((128 << 16) + (64 << 8) + 1) == "colour 128 64 1"


def test_labels_to_ignore():
    legend = read_legend({0: "sky", 1: "void", 2: "void"})
    assert legend.numbers([255, "void", "3"], "data.ignore") == {255, 1, 2, 3}
    with pytest.raises(
        UserError, match=r"data.ignore names `sea`, which is neither a number nor a name of data.legend"
    ):
        legend.numbers(["sea"], "data.ignore")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, r"data.legend=FILE"),
        ({}, r"data.legend names no labels"),
        ({"road": 1}, r"data.legend says `road: 1`; expected the number of a label and its name"),
        ({0: ""}, r"data.legend says `0: `"),
        ({-1: "sky"}, r"data.legend says `-1: sky`"),
        ({0: "sky", "0": "sea"}, r"calls label 0 both `sky` and `sea`"),
        ({0: "sky", "1 2 3": "sea"}, r"mixes numbers and colours"),
        ({"1 2 300": "sea"}, r"says `1 2 300: sea`"),
    ],
)
def test_mistakes(given, message):
    with pytest.raises(UserError, match=message):
        read_legend(given)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("l.txt", "0 sky\nroad\n", r"l.txt, line 2: expected a label's number and its name, found `road`"),
        ("l.json", "{", r"l.json is not JSON"),
        ("l.json", "3", r"l.json is neither \{number: name\} nor a list of names"),
        ("l.csv", "name,colour\nsky,blue\n", r"l.csv needs a column `name` and one of id, idx"),
        ("l.csv", "id,name\nx,sky\n", r"l.csv says `x: sky`"),
    ],
)
def test_files_with_mistakes(tmp_path, file, text, message):
    (tmp_path / file).write_text(text)
    with pytest.raises(UserError, match=message):
        read_legend(tmp_path / file)
    with pytest.raises(UserError, match=r"The list .*none.txt cannot be read"):
        read_legend(tmp_path / "none.txt")
