"""Word lists: read with any line ends, cleaned, and built from parts exactly as published."""

import csv
import json
import logging
import shutil
import string
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuronx.concepts import words
from neuronx.concepts.words import Words, clean, distinct, mend
from neuronx.data.files import lines
from neuronx.data.published import FILES
from neuronx.errors import UserError


@pytest.fixture
def sets(shared, monkeypatch, tmp_path):
    """The published lists, as if they had been fetched."""
    folder = shared / "data" / "concept_sets"
    monkeypatch.setenv("NEURONX_DATA", str(tmp_path / "data"))
    for name in FILES:
        kind, file = name.split("/", 1)
        if kind == "splits":
            continue
        source = {
            "classes": file.replace(".txt", "_labels_clean.txt"),
            "hierarchies": file.replace(".json", "_superclass_to_ids.json"),
        }
        target = tmp_path / "data" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / source.get(kind, file), target)
    return folder


@given(
    st.lists(st.text(string.ascii_letters + " éñ,-'", min_size=1).map(str.strip).filter(bool), min_size=1, unique=True),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.booleans(),
)
def test_any_line_ends_give_the_same_words(tmp_path_factory, names, end, final):
    path = tmp_path_factory.mktemp("w") / "w.txt"
    path.write_bytes((end.join(names) + (end if final else "")).encode())
    assert words.file(path).names == tuple(names)


def test_blank_lines_and_repetitions_are_dropped_and_counted(tmp_path, caplog):
    path = tmp_path / "w.txt"
    path.write_text("dog\n\nnan\n  \ncat \ndog\nnull\nNone\ninf\nDog\n\n")
    with caplog.at_level(logging.INFO):
        assert words.file(path).names == ("dog", "nan", "cat", "null", "None", "inf", "Dog")
    assert "7 words; left out: 3 blank, 1 repeated" in caplog.text


def test_a_byte_order_mark_is_no_part_of_a_word(tmp_path):
    (tmp_path / "w.txt").write_bytes("dog\ncat".encode("utf-8-sig"))
    assert words.file(tmp_path / "w.txt").names == ("dog", "cat")


def test_what_cannot_be_read_is_said(tmp_path):
    with pytest.raises(UserError, match="cannot be read: No such file"):
        _ = words.file(tmp_path / "none.txt").names
    (tmp_path / "latin.txt").write_bytes("jalapeño".encode("latin-1"))
    with pytest.raises(UserError, match=r"not UTF-8 text \(byte 6\)"):
        _ = words.file(tmp_path / "latin.txt").names
    (tmp_path / "empty.txt").write_text("\n\n")
    with pytest.raises(UserError, match="holds no words"):
        _ = words.file(tmp_path / "empty.txt").names


def test_nothing_is_read_before_it_is_needed(tmp_path):
    made = words.combined(words.broden(str(tmp_path / "no.csv")), Words("20k"))
    assert made.name == "combined"


def test_words_from_what_callers_have(tmp_path):
    assert Words(["a", "b", "a", ""]).names == ("a", "b")
    (tmp_path / "w.txt").write_text("a\nb")
    assert Words(tmp_path / "w.txt").names == Words(str(tmp_path / "w.txt")).of(None) == ("a", "b")


def test_common_words_as_published(sets):
    assert [len(Words(name).names) for name in ("3k", "10k", "20k", "nouns")] == [3000, 9894, 20000, 6801]
    assert {"null", "nan", "inf"} <= set(Words("20k").names) and "" not in Words("20k").names


@pytest.mark.parametrize(
    ("data", "count", "mended"),
    # Three of the mended names are Places classes, as they should be.
    [("imagenet", 8438, 8438), ("cifar100", 7561, 7561), ("places365", 7610, 7607)],
)
def test_combined_lists_are_rebuilt_exactly(sets, data, count, mended):
    hierarchy = sets / f"{data}_superclass_to_ids.json"
    probe = SimpleNamespace(
        domain="natural",
        class_names=tuple(lines(sets / f"{data}_labels_clean.txt")),
        hierarchy=json.loads(hierarchy.read_text()) if hierarchy.exists() else {},
    )
    made = words.combined(words.broden(as_published=True), Words("nouns")).of(probe)
    assert made == tuple((sets / f"combined_concepts_{data}.txt").read_text().split("\n"))
    assert len(made) == count
    right = words.default(Words(["unused"]), words.combined(words.broden(), Words("nouns"))).of(probe)
    assert len(right) == mended and len(set(made) - set(right)) == 6 and "desert, sand" in right


def test_broden_names_built_from_the_raw_labels_are_the_published_ones(sets, shared, tmp_path):
    """The raw names stand in published Network Dissection tables."""
    published = set(lines(sets / "broden_labels_clean.txt"))
    raw = set()
    for table in sorted((shared / "data/published/clip_dissect/NetDissect_results").glob("*.csv")):
        with table.open(newline="") as file:
            for row in csv.DictReader(file):
                raw |= {value for key, value in row.items() if key.endswith("-label") and value}
    assert len(raw) > 400
    plain = sorted(raw)
    built = clean(plain, as_published=True)
    assert {word.removesuffix("(scene)") for word in built} <= published
    path = tmp_path / "label.csv"
    path.write_text("number,name,category\n0,-,\n" + "".join(f"{i},{name},x\n" for i, name in enumerate(plain, 1)))
    assert words.broden(str(path)).names == tuple(clean(plain))
    assert mend(built) == clean(plain), "the right rule gives what mending the published names gives"


def test_broden_cleaning_by_example():
    raw = [
        "-",
        "black-c",
        "desert-sand-s",
        "plastic-clear",
        "street-s",
        "bridge",
        "bridge-s",
        "bakery-shop-s",
        "polka_dots",
    ]
    assert clean(raw) == [
        *("black color", "desert, sand", "plastic, clear", "street"),
        *("bridge", "bridge(scene)", "bakery, shop", "polka dots"),
    ]
    assert clean(raw, as_published=True)[1:3] == ["desertand", "plastic colorlear"]


def test_a_csv_that_is_not_brodens(tmp_path):
    (tmp_path / "label.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="no column `name`"):
        _ = words.broden(str(tmp_path / "label.csv")).names


def test_imagenet_labels_without_and_with_the_published_file(sets):
    assert len(words.imagenet_labels().names) == len(set(words.imagenet_labels().names)) >= 996
    assert len(words.imagenet_labels("published").names) == 998


def test_a_list_that_is_not_there_names_the_way_round(monkeypatch):
    def unreachable(url, path, size, sha256, hint):
        raise UserError(f"{url} cannot be reached. Without a network, put the file at {path} {hint}.")

    monkeypatch.setattr("neuronx.data.published.fetch", unreachable)
    with pytest.raises(UserError, match=r"data/concepts/20k.txt or use a list of your own with concepts=file"):
        _ = Words("20k").names


def test_the_embedded_words_are_the_default():
    from neuronx.world.pictures.words import CONCEPTS, word_list

    assert words.default(word_list(), Words("20k")).of(SimpleNamespace(domain="shapes")) == tuple(CONCEPTS)
    assert distinct(CONCEPTS, "shapes") == tuple(CONCEPTS)
