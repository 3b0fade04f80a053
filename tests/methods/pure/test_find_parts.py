"""Which units are split, and what `units.csv` says of them, from circuits made by hand."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from oracles_pure_splits import blobs

from neuronx.methods.pure.clusters import PartOptions
from neuronx.methods.pure.method import COLUMNS, ranking
from neuronx.methods.pure.references import References, find_parts

TWO, ONE, FEW, DEAD = range(4)


@pytest.fixture(scope="module")
def references():
    """Units 10 to 13: two meanings, one, two on 19 images only, and one that never fires."""
    two, one = blobs(units=1, points=40, k=2)[0][0], blobs(units=1, points=40, k=1)[0][0]
    few = blobs(units=1, points=40, k=2, apart=40)[0][0]
    vectors = torch.stack([two, one, few, torch.zeros(40, 12)])
    counted = torch.ones(4, 40, dtype=torch.bool)
    counted[FEW, 19:] = False
    counted[DEAD] = False
    rows = torch.arange(14 * 40).view(14, 40)
    return References(torch.arange(10, 14), SimpleNamespace(rows=rows), vectors, counted, "lower")


def test_units_are_split_where_one_cloud_would_hardly_look_as_split(references):
    found = find_parts(references, PartOptions(alpha=0.001))
    assert found.split.tolist() == [True, False, False, False]
    assert found.verdicts.p[TWO] < 0.001 < found.verdicts.p[ONE]
    assert found.clusters.labels[TWO].unique().tolist() == [0, 1] and 0.4 < found.silhouette[TWO] < 1
    assert (found.clusters.labels[FEW, 19:] == -1).all()
    assert find_parts(references, PartOptions(alpha=0.9999)).split.tolist() == [True, True, False, False]


def test_a_unit_needs_twenty_references_to_be_tested(references):
    assert find_parts(references, PartOptions()).verdicts.p[FEW] == 1
    more = replace(references, counted=references.counted.clone())
    more.counted[FEW, 19] = True
    found = find_parts(more, PartOptions(alpha=0.05))
    assert found.verdicts.p[FEW] < 0.05 and found.split.tolist() == [True, False, True, False]


def test_without_a_level_all_units_of_two_parts_are_split(references):
    found = find_parts(references, PartOptions(alpha=None))
    assert found.split.tolist() == [True, True, True, False]
    assert found.polysemantic.tolist() == [True, False, False, False]  # those of the default level
    assert find_parts(references, PartOptions(alpha=None, min_size=10)).split.tolist() == [True, True, False, False]


def test_a_share_of_false_ones_may_be_the_level(references):
    found = find_parts(references, PartOptions(alpha="bh:.05"))
    assert found.split.tolist() == [True, False, False, False] and found.verdicts.q[TWO] <= 4 * found.verdicts.p[TWO]


def test_units_are_ranked_by_how_sure_the_test_is(references):
    found = find_parts(references, PartOptions())
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in ranking("net", "upper", found)]
    assert rows[0]["unit"] == 10 and rows[-1]["unit"] in (12, 13)
    assert [row["p"] for row in rows] == sorted(row["p"] for row in rows)
    by = {row["unit"]: row for row in rows}
    said = {unit: (row["status"], row["k"], row["sizes"], row["references"]) for unit, row in by.items()}
    assert said[10] == ("split", 2, "20;20", 40) and said[12] == ("whole", 1, "", 19)
    assert said[11] == ("whole", 1, "", 40) and said[13] == ("inactive", 1, "", 0)
    assert all(row["q"] >= row["p"] for row in rows) and by[10]["repeats"] > 0.9 > by[11]["repeats"]
