"""Network Dissection and compositional explanations of networks, from pictures to words."""

import importlib.util
import json
import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from neuronx.data.in_memory import InMemoryProbe
from neuronx.errors import Unsuitable, UserError
from neuronx.methods.net_dissect.compositional import Compositional
from neuronx.methods.net_dissect.method import NetDissect
from neuronx.methods.net_dissect.search import Gathering
from neuronx.methods.net_dissect.tally import count, read_tally, tally
from neuronx.recording.record import record
from neuronx.tables.csv import write_csv
from neuronx.tables.explanations import read_explanations
from neuronx.targets.preprocess import Preprocess
from neuronx.targets.target import Target
from neuronx.world.pictures.probe import ShapesProbe

SCRIPT = Path(__file__).with_name("colours.py")


@pytest.fixture(scope="module")
def colours():
    """The module of the network that sees colours."""
    spec = importlib.util.spec_from_file_location("dissected_colours", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def shapes():
    return ShapesProbe(126, batch_size=40)


def test_units_are_named_after_what_they_see(colours, shapes, trainer, caplog):
    with caplog.at_level(logging.INFO, logger="neuronx"):
        found = NetDissect(quantile=0.5, n_evidence=4).explain(colours.target(), shapes, trainer).explanations
    assert [str(one) for one in found] == ["red", "grass", "night", "inactive"]
    assert "colours maps: 3 of 4 units are detectors (IoU > 0.04) of 3 concepts" in caplog.text
    notes = dict(found[1].notes)
    assert notes["iou"] > 0.7 and notes["detector"] == 1
    names, shown = shapes.truth
    train, test = (int(shown[shapes.splits[name], names.index("grass")].sum()) for name in ("train", "test"))
    assert found[1].support == ((train, test),) and train > test > 0 and not found[3].support
    assert len(found[1].evidence) == 4 and set(found[1].evidence) <= set(shapes.split("train", "val").tolist())


def test_formulas_say_more(colours, shapes, trainer):
    found = Compositional(quantile=0.5).explain(colours.target(), shapes, trainer).explanations
    assert str(found[1]) == "grass OR green"
    notes = dict(found[1].notes)
    assert notes["iou"] > 0.9 > notes["single_iou"] and notes["length"] == 2
    assert str(found[3]) == "inactive"


def test_units_and_categories_asked_for(colours, shapes, trainer):
    target = colours.target(units={"maps": [1]})
    for method in (NetDissect, Compositional):
        (found,) = method(quantile=0.5, categories=["colour", "shape"]).explain(target, shapes, trainer).explanations
        assert (str(found.unit), str(found)) == ("maps:1", "green")


def test_tables_are_those_published(colours, shapes, trainer, tmp_path):
    target = colours.target()
    ((name, table),) = NetDissect(quantile=0.5).explain(target, shapes, trainer).tables.items()
    assert name == "tally_colours_maps.csv"
    rows = read_tally(write_csv(tmp_path / name, *table))
    assert [(row.unit, row.label) for row in rows] == [(1, "grass"), (0, "red"), (2, "night"), (3, None)]
    ((name, table),) = Compositional(quantile=0.5).explain(target, shapes, trainer).tables.items()
    read = read_explanations(write_csv(tmp_path / name, *table), layer="maps")
    assert [str(one) for one in read if one.unit.index in (1, 3)] == ["(grass OR green)", "inactive"]


def test_what_was_counted_is_kept(colours, shapes, trainer, monkeypatch):
    target = colours.target()
    methods = NetDissect(quantile=0.5), Compositional(quantile=0.5, length=2)
    first = [method.explain(target, shapes, trainer) for method in methods]
    monkeypatch.setattr(target.module, "forward", None)
    assert [method.explain(target, shapes, trainer) for method in methods] == first
    assert len(NetDissect(quantile=0.5, denominator="all").explain(target, shapes, trainer).explanations) == 4


def test_layers_without_positions(colours, shapes, trainer):
    target = colours.target("head")
    for method in (NetDissect, Compositional):
        with pytest.raises(UserError, match=r"Layer `head` of colours has no positions.*whole_images=true"):
            method().explain(target, shapes, trainer)
    found = NetDissect(quantile=0.3, whole_images=True).explain(target, shapes, trainer).explanations
    assert str(found[1]) == "grass"


class Tokens(torch.nn.Module):
    """Colours as 8 x 8 patch tokens, behind a class token of their negated means."""

    def __init__(self):
        super().__init__()
        self.out = torch.nn.Identity()

    def forward(self, images):
        tokens = torch.nn.functional.avg_pool2d(images, 8).flatten(2).transpose(1, 2)
        return self.out(torch.cat([-tokens.mean(1, keepdim=True), tokens], 1))


def test_a_class_token_has_no_masks(shapes, trainer):
    target = Target("tokens", Tokens(), Preprocess(), {"out": "first"}, prefix_tokens=1)
    for method in (NetDissect, Compositional):
        with pytest.raises(
            Unsuitable, match=r"Layer `out` of tokens .*class token \(pool=first\).*pool=patch or pool=avg"
        ):
            method().explain(target, shapes, trainer)
    whole = NetDissect(quantile=0.3, whole_images=True).explain(target, shapes, trainer).explanations
    values = record(target, shapes, trainer)["out"].values
    assert set(whole[0].evidence) <= set(values[:, 0].argsort(descending=True)[: len(values) // 2].tolist())
    patches = NetDissect(quantile=0.3).explain(replace(target, layers={"out": "patch"}), shapes, trainer).explanations
    assert [str(one) for one in whole] != [str(one) for one in patches]


def test_pictures_without_pixel_labels(colours, trainer):
    probe = InMemoryProbe(torch.zeros(50, 3, 8, 8, dtype=torch.uint8), name="blank")
    for method in (NetDissect(pixels="labels"), Compositional()):
        with pytest.raises(
            UserError, match=r"labelled the pixels of `blank`.*data=shapes, broden or labelled_pictures"
        ):
            method.explain(colours.target(), probe, trainer)
    with pytest.raises(Unsuitable, match="labelled the pixels of `blank`"):  # as one of the default methods
        NetDissect().check(probe)


def coloured(n=40):
    """Grey pictures (n, 3, 64, 64) with a square of each of three colours, here and there."""
    pictures = torch.full((n, 3, 64, 64), 128, dtype=torch.uint8)
    chance = torch.Generator().manual_seed(0)
    for picture in pictures:
        for column, channel in enumerate(torch.randperm(3, generator=chance).tolist()):
            y = int(torch.randint(0, 44, (1,), generator=chance))
            square = picture[:, y : y + 20, 21 * column : 21 * column + 20]
            square[:] = torch.eye(3, dtype=torch.uint8)[channel][:, None, None] * 210 + 20
    return InMemoryProbe(pictures, name="squares")


def test_features_stand_in_for_pixel_labels(colours, trainer):
    probe = coloured()
    method = NetDissect(quantile=0.12)
    method.needs(colours.target(), probe)
    found = method.explain(colours.target(), probe, trainer)
    assert [str(one) for one in found.explanations] == ["red", "green", "blue", "inactive"]
    assert all(dict(one.notes)["iou"] > 0.7 for one in found.explanations[:3])
    lines = NetDissect(quantile=0.12, categories=["lines"]).explain(colours.target(), probe, trainer).explanations
    assert "lines" in str(lines[0])


def test_features_may_be_asked_for_beside_labels(colours, shapes, trainer):
    found = NetDissect(quantile=0.5, pixels="visual").explain(colours.target(), shapes, trainer).explanations
    assert str(found[1]) == "green" and not found[1].support


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NetDissect(pixels="drawn"), r"no kind of pixel labels \(pixels=\) `drawn`"),
        (lambda: NetDissect(denominator="some"), r"no denominator of Network Dissection `some`"),
        (lambda: NetDissect(threshold=1.5), r"threshold is 1.5; an IoU"),
        (lambda: Compositional(length=0), r"compositional.length is 0; it must be at least 1"),
        (lambda: Compositional(penalty=1.2), r"compositional.penalty is 1.2"),
    ],
)
def test_options_that_mean_nothing(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_options_that_do_not_fit_the_data(colours, shapes, trainer):
    with pytest.raises(UserError, match=r"no category of `shapes` `color`.*colour"):
        NetDissect(categories=["color"]).explain(colours.target(), shapes, trainer)
    with pytest.raises(UserError, match=r"quantile=0: write"):
        NetDissect(quantile=0).explain(colours.target(), shapes, trainer)


def test_planted_masks_of_the_embedded_world(shapes):
    """Units whose maps are the masks of `striped` and of `red AND NOT square` are named so."""
    rows = shapes.split("train", "val")
    labelled = shapes.segmentation
    regions = labelled.regions(rows, lambda picture: picture)
    numbers = [labelled.names.index(name) for name in ("striped", "red", "square")]
    striped, red, square = regions.masks(numbers).unbind(1)
    maps = torch.stack([striped, red & ~square], 1).float()
    thresholds = torch.full((2,), 0.5)
    best = tally([(maps, regions)], thresholds, labelled).best("all")
    assert labelled.names[best.concept[0]] == "striped" and float(best.iou[0]) > 0.9
    assert labelled.names[best.concept[1]] == "red" and float(best.iou[1]) < 0.95
    gathered = Gathering(2, len(labelled.names))
    gathered.add(count(maps, thresholds, regions), regions)
    method = Compositional()
    found = method.best(gathered.result())
    assert found.iou.tolist() == pytest.approx([1, 1])
    assert words(found, labelled.names) == ["striped", "red AND NOT square"]


def words(found, names) -> list[str]:
    from neuronx.methods.net_dissect.search import formula

    rows = zip(found.concepts.tolist(), found.operators.tolist(), strict=True)
    return [str(formula(concepts, operators, names)) for concepts, operators in rows]


@pytest.mark.slow
def test_two_processes_count_the_same(tmp_path):
    """101 images in 15 batches, which two processes cannot share evenly."""
    for devices in (1, 2):
        env = os.environ | {"OMP_NUM_THREADS": "1", "NEURONX_CACHE": str(tmp_path / f"cache-{devices}")}
        subprocess.run([sys.executable, str(SCRIPT), str(devices), str(tmp_path)], check=True, timeout=300, env=env)
    alone, first, second = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("1-0", "2-0", "2-1"))
    assert alone == first == second
    assert alone["cells"] == 100 * 64 * 64


@pytest.mark.slow
def test_squeezenets_detectors_on_camvid(shared, trainer):
    """At least three times as many as when the pictures of labels are dealt out anew among the pictures."""
    from neuronx.data.labelled_pictures import labelled_pictures
    from neuronx.methods.net_dissect.method import dissect
    from neuronx.targets.torchvision import load

    data = shared / "data"
    legend = ["sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist"]
    options = {"images": "val", "annotations": "valannot", "legend": [*legend, "void"], "ignore": ["void"]}
    probe = labelled_pictures(data / "camvid", **options)
    weights = data / "weights" / "squeezenet1_0_imagenet.safetensors"
    target = load("squeezenet1_0", weights=weights, transform="squeezenet", layers=["features.10", "features.12"])
    everything = torch.arange(len(probe))
    counts = []
    for order in (everything, torch.randperm(len(probe), generator=torch.Generator().manual_seed(0))):
        probe.segmentation = Dealt(probe.segmentation, order.tolist())
        found = dissect(target, probe, trainer, rows=everything)
        counts.append([one.best().detectors(0.04)[0] for one, _ in found.values()])
    (ten, twelve), (ten_dealt, twelve_dealt) = counts
    assert ten >= 30 and ten >= 3 * ten_dealt
    assert twelve >= 50 and twelve >= 3 * twelve_dealt


class Dealt:
    """A segmentation whose pictures of labels belong to other pictures."""

    def __init__(self, whole, order) -> None:
        self.whole, self.order = whole, order
        self.fingerprint = f"{whole.fingerprint}{order}"

    def __getattr__(self, name):
        return getattr(self.whole, name)

    def regions(self, rows, transform, grid=None):
        return self.whole.regions([self.order[row] for row in rows], transform, grid)
