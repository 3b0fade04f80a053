"""Descriptions from what people type."""

import csv
import logging

import pytest
from model_folders import make_layer

from neuronx.errors import UserError
from neuronx.milannotations import clean, clean_answers, read, read_descriptions
from neuronx.milannotations.cleaning import CleaningRules


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("These are dogs.", "dogs"),
        ("Images show brown dogs with collars in them.", "brown dogs with collars"),
        ("  the sky is shown , ", "the sky"),
        ("None of the above", "nothing"),
        ("None of the above.", "nothing"),
        ("edges of  \n objects ,infront ofthe sky", "edges of objects, in front of the sky"),
        ("softhearted people", "softhearted people"),
        ("pictures of animals", "pictures of animals"),
        ("They are all show dogs", "all show dogs"),
        ("these are ", "these are"),
        (" . ", ""),
        ("", ""),
    ],
)
def test_what_says_nothing_of_the_unit_goes(typed, meant):
    assert clean(typed) == meant
    assert clean(meant) == meant


def test_the_tables_are_arguments_and_come_in_order():
    rules = CleaningRules(
        spelling={"dgos": "dogs", "the": "THE"},
        prefixes=("a ", "a b "),
        replacements={"dogs and": "cats and", "x+y": "sum"},
        suffixes=("!", " there"),
        exact={"cats and mice": "animals"},
        workers={"W1": {"animals": "creatures"}},
    )
    assert clean("A B DGOS and mice there!!", rules) == "animals"
    assert clean("A B DGOS and mice there!!", rules, "W1") == "creatures"
    assert clean("another dgosx x+y", rules) == "another dgosx sum", "only whole words are misspelt"
    assert clean("these are dogs.", CleaningRules(prefixes=(), suffixes=())) == "these are dogs."


def test_misspelt_words_are_replaced_as_whole_words():
    assert clean("Brwon, brwon's (brwon)", CleaningRules(spelling={"brwon": "brown"})) == "brown, brwon's (brown)"


def answers(path, rows, columns=("HITId", "WorkerId", "RejectionTime", "Input.layer", "Input.unit", "Answer.summary")):
    with path.open("w", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows([columns, *rows])
    return path


def test_answers_become_annotations(tmp_path, caplog):
    make_layer(tmp_path / "0", 2)
    given = answers(
        tmp_path / "answers.csv",
        [
            ("h1", "w1", "", "0", "1", "These are dogs, and cats."),
            ("h2", "w2", "Tue Mar 3", "0", "1", "asdf"),
            ("h3", "w2", "", "0", "0", " ."),
            ("h4", "w2", "", "0", "0", "Blue things"),
        ],
    )
    rules = CleaningRules(workers={"w2": {"things": "objects"}})
    with caplog.at_level(logging.WARNING, "neuronx"):
        path = clean_answers(given, tmp_path / "annotations.csv", rules)
    assert path.read_text() == 'layer,unit,summary\n0,1,"dogs, and cats"\n0,0,blue objects\n'
    assert "of 1 answers nothing remains" in caplog.text
    assert [one.annotations for one in read(tmp_path)] == [("blue objects",), ("dogs, and cats",)]


def test_mistakes_are_named(tmp_path):
    columns = ("Input.layer", "Input.unit", "Answer.summary")
    with pytest.raises(UserError, match=r"a.csv has no column `Answer.summary`, only Input.layer, Input.unit"):
        clean_answers(answers(tmp_path / "a.csv", [("a", "1")], columns[:2]), tmp_path / "b.csv")
    with pytest.raises(UserError, match=r"a.csv, line 2, column `Input.unit`: expected a number, found `x`"):
        clean_answers(answers(tmp_path / "a.csv", [("a", "x", "dots")], columns), tmp_path / "b.csv")
    with pytest.raises(UserError, match=r"a.csv, line 2, column `Input.unit`: units count from 0, found -2"):
        clean_answers(answers(tmp_path / "a.csv", [("a", "-2", "dots")], columns), tmp_path / "b.csv")
    with pytest.raises(UserError, match=r"a.csv: nothing remains of 1 answers"):
        clean_answers(answers(tmp_path / "a.csv", [("a", "2", ".")], columns), tmp_path / "b.csv")
    assert not (tmp_path / "b.csv").exists()


def test_published_descriptions_are_clean_already(shared):
    said = read_descriptions(shared / "data" / "published" / "milannotations" / "resnet152_imagenet.csv")
    texts = [text for texts in said.values() for text in texts]
    changed = [text for text in texts if clean(text) != text.strip()]
    assert len(changed) < 0.025 * len(texts), changed[:20]
    assert all(clean(text) for text in texts)
