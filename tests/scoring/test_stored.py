"""The published tables from the scores that the published files store: main table, ablation, all stored files."""

import math

import pytest

from neuronx.errors import UserError
from neuronx.report.evaluation import leaderboard
from neuronx.scoring.stored import Stored
from neuronx.store.cache import write_atomic
from neuronx.tables.explanations import read_files

METHODS = ("NetDissect", "MILAN", "CLIP_Dissect", "LE_label", "LE_siglip")
CORRELATION = {  # mean per method, in the order above
    ("resnet50_imagenet", "layer4"): (0.1242, 0.0920, 0.1871, 0.2924, 0.3772),
    ("resnet18_places365", "layer4"): (0.2038, 0.1557, 0.2208, 0.3388, 0.4372),
    ("vgg16_bn_cifar100", "classifier.4"): (None, None, 0.2298, 0.4330, 0.4970),
    ("resnet50_imagenet", "layer1"): (0.0349, 0.0430, 0.0674, 0.1008, 0.2313),
}
SEM = {
    ("resnet50_imagenet", "layer4", "LE_label"): 0.0020,
    ("resnet50_imagenet", "layer4", "LE_siglip"): 0.0017,
    ("resnet18_places365", "layer4", "LE_label"): 0.0041,
    ("resnet18_places365", "layer4", "LE_siglip"): 0.0033,
    ("vgg16_bn_cifar100", "classifier.4", "LE_label"): 0.0041,
    ("vgg16_bn_cifar100", "classifier.4", "LE_siglip"): 0.0030,
}
ABLATION = {
    "sim ablation(optim)": ((0.0165, 0.0137, 0.0215, 0.0433, 0.0727), (0.0003, 0.0003, 0.0004, 0.0007, 0.0008)),
    "sim ablation(norm)": ((0.0118, 0.0092, 0.0187, 0.0334, 0.0602), (0.0004, 0.0004, 0.0005, 0.0007, 0.0009)),
}
UNITS = {"layer4 resnet50_imagenet": 2048, "layer4 resnet18_places365": 512, "classifier.4 vgg16_bn_cifar100": 512}


@pytest.fixture(scope="module")
def rows(shared):
    scores = Stored().score(read_files(shared / "data/published/linear_explanations")).rows
    return {(row.target, row.layer, row.method, row.judge): row for row in leaderboard(scores)}


def test_the_main_table_is_reproduced_to_four_digits(rows):
    for (target, layer), means in CORRELATION.items():
        for method, mean in zip(METHODS, means, strict=True):
            row = rows.get((target, layer, method, "sim correlation"))
            if mean is None:
                assert row is None
                continue
            assert round(row.mean, 4) == mean
            assert row.n_units == UNITS.get(f"{layer} {target}", 256)
            assert (row.score, row.images, row.n_inactive, row.n_unjudged) == ("stored", "unknown", 0, 0)
            if (target, layer, method) in SEM:
                assert round(row.sem, 4) == SEM[target, layer, method]


def test_the_ablation_table_is_reproduced_to_four_digits(rows):
    for column, (means, errors) in ABLATION.items():
        for method, mean, error in zip(METHODS, means, errors, strict=True):
            row = rows["resnet50_imagenet", "layer4", method, column]
            # Theirs is the population's standard error, ours the sample's: 1.0002 times as large.
            assert (round(row.mean, 4), round(row.sem * math.sqrt(2047 / 2048), 4)) == (mean, error)


def test_nothing_else_is_in_the_table(rows):
    expected = sum(mean is not None for means in CORRELATION.values() for mean in means) + 2 * len(METHODS)
    assert len(rows) == expected


def test_units_without_a_number_are_unjudged_and_other_files_left_out(tmp_path):
    write_atomic(tmp_path / "le/net_imagenet_fc.csv", b"unit,description,sim correlation\n0,dog,.5\n1,cat,-\n2,cow,\n")
    write_atomic(tmp_path / "raw/net_imagenet_fc.csv", b"unit,description\n0,dog\n")
    scores = Stored().score(read_files(tmp_path)).rows
    assert [(one.method, one.status, one.n) for one in scores] == [
        ("le", "ok", 0),
        ("le", "unjudged", 0),
        ("le", "unjudged", 0),
    ]
    (row,) = leaderboard(scores)
    assert (row.mean, row.n_units, row.n_unjudged, row.judge) == (0.5, 1, 2, "sim correlation")


def test_files_without_stored_scores_are_a_mistake(tmp_path):
    write_atomic(tmp_path / "a_imagenet_fc.csv", b"unit,description\n0,dog\n")
    with pytest.raises(UserError, match="None of the 1 files stores scores"):
        Stored().score(read_files(tmp_path))


def test_one_unit_scored_twice_for_one_method_is_a_mistake(tmp_path):
    for name in ("a", "b"):
        write_atomic(tmp_path / f"{name}.csv", b"layer,unit,description,sim correlation\nfc,0,dog,.5\n")
    files = read_files([{"file": str(tmp_path / f"{name}.csv"), "method": "x"} for name in ("a", "b")])
    with pytest.raises(UserError, match="fc:0 is explained by x"):
        Stored().score(files)
