import csv
from dataclasses import replace

import pytest
from oracles_pure_splits import Meanings, network

from neuronx.concepts.labels import LabelConcepts
from neuronx.errors import UserError
from neuronx.experiments.given import Given
from neuronx.experiments.superclasses import UNITS, Superclasses, summary
from neuronx.methods.linear.method import LinearExplanations
from neuronx.methods.pure.method import Pure


class Kindred(Meanings):
    """Even and odd pictures are of different superclasses."""

    hierarchy = {"anything": [0, 1], "level": [0], "uneven": [1]}


@pytest.fixture
def given(trainer, tmp_path):
    pure = Pure({"x": LinearExplanations(LabelConcepts())}, references=40, alpha=0.01, k=2)
    return Given(trainer, tmp_path, {"small": network()}, Kindred(), {pure.name: pure})


def read(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def test_parts_of_a_unit_that_means_two_things_are_of_one_kind_each(given):
    text = Superclasses(references=40, levels=[0.5, "all"], draws=200).run(given)
    assert "3 units, of which the test of explain.pure splits 1;" in text
    rows = read(given.folder / "superclass_units.csv")
    assert tuple(rows[0]) == UNITS
    (two,) = (
        row for row in rows if row["unit"] == "0" and row["split by"] == "circuits, k=2" and row["level"] != "all"
    )
    assert float(two["entropy"]) == 0 and float(two["random"]) > 0.9 and float(two["chance"]) < 0.01
    rows = read(given.folder / "superclass_entropy.csv")
    ways = {"circuits, k=2", "activations, k=2", "circuits, tested"}
    assert {row["split by"] for row in rows} == ways and {row["superclasses"] for row in rows} == {"2", "3"}
    (tested,) = (row for row in rows if row["split by"] == "circuits, tested" and row["level"] == "all")
    assert tested["units"] == "1" and float(tested["difference"]) < -1.8


def test_differences_are_paired():
    units = [("l", k, "x", "all", 0.5, 2, "3;3", 1 + 0.1 * k, 1.5 + 0.1 * k, 0.2) for k in range(8)]
    columns, rows = summary(units, {"all": 7, "none": 3})
    (row,) = (dict(zip(columns, row, strict=True)) for row in rows)
    assert row["difference"] == pytest.approx(-0.5) and row["low"] == pytest.approx(row["high"]) and row["below"] == 1


@pytest.mark.parametrize("options", [{"k": 1}, {"draws": 0}, {"levels": ["most"]}])
def test_bad_options(given, options):
    with pytest.raises(UserError):
        Superclasses(**options).run(given)


def test_labels_and_pure_are_needed(given):
    with pytest.raises(UserError, match="explain=pure"):
        Superclasses().run(replace(given, methods={}))
    unlabelled = Kindred()
    unlabelled.labels = None
    with pytest.raises(UserError, match="no labels"):
        Superclasses().run(replace(given, probe=unlabelled))
