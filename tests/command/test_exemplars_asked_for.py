"""`exemplars=`: which images, ranked by what; mistakes in it are found before any work."""

import csv
import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_module
from PIL import Image
from torch import nn

from neuronx import probe_of
from neuronx.command import cli, exemplars
from neuronx.command.exemplars import Wanted
from neuronx.command.typed import meant
from neuronx.errors import UserError
from neuronx.report.tiles import DIMMED, GAP, TILE, tiles
from neuronx.targets.preprocess import Preprocess
from neuronx.targets.target import Target


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (0, "exemplars.k=0: write a whole number of at least 1"),
        (-3, "exemplars.k=-3"),
        (1.5, "exemplars.k=1.5"),
        (True, "exemplars.k=True"),
        ("abc", "exemplars.k=abc"),
        ([1, 2], r"exemplars.k=\[1, 2\]"),
        ({"k": None}, "exemplars.k=None"),
        ({"k": 3, "foo": 1}, "no option of exemplars `foo`.*All: k, quantile, images, by, size"),
        ({"images": "some"}, "no choice of exemplars.images `some`.*All: methods, all"),
        ({"by": "mean"}, "no choice of exemplars.by `mean`.*All: peak, pool"),
        ({"quantile": 2}, "exemplars.quantile=2"),
        ({"quantile": "high"}, "exemplars.quantile=high"),
        ({"size": 0}, "exemplars.size=0"),
        ({"size": 9.5}, "exemplars.size=9.5"),
    ],
)
def test_what_cannot_be_is_refused(typed, message):
    with pytest.raises(UserError, match=message):
        exemplars.read(typed)


def test_a_number_or_options(job):
    assert exemplars.read(None) is None
    assert exemplars.read(15) == exemplars.read({}) == Wanted() == Wanted(15, 0.99, "methods", None, None)
    published = exemplars.read({"k": 15, "images": "all", "size": 224})
    assert published == Wanted(images="all", size=224)
    assert len(published.rows(job[1])) == 40 and len(Wanted().rows(job[1])) == 32
    with pytest.raises(UserError, match="k=33 images of each unit cannot be found among 32"):
        Wanted(33).rows(job[1])


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (["exemplars=7"], {"k": 7}),
        (["exemplars=7", "exemplars.by=pool"], {"k": 7, "by": "pool"}),
        (["exemplars.by=pool", "exemplars=7"], {"k": 7, "by": "pool"}),
        (["exemplars={k: 3, images: all}", "exemplars.size=24"], {"k": 3, "images": "all", "size": 24}),
        (["exemplars=-7"], -7),
        (["exemplars=null"], None),
    ],
)
def test_a_number_and_options_go_together_on_the_command_line(line, expected):
    with initialize_config_module(cli.CONFIGS, version_base="1.3"):
        cfg = meant(compose("evaluate", overrides=[out for argument in line for out in cli.rewrite(argument)]))
    assert cli.plain(cfg.exemplars) == expected
    assert [again for argument in line for out in cli.rewrite(argument) for again in cli.rewrite(out)] == [
        out for argument in line for out in cli.rewrite(argument)
    ]


@pytest.fixture
def job():
    """A network of clipped brightness, and its pictures: those of the second half are dark in three quarters."""
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU6())
    with torch.no_grad():
        network[0].weight.copy_(20 * torch.eye(3)[:, :, None, None])
        network[0].bias.fill_(-6)
    pictures = torch.rand(40, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    pictures[20:, :, 2:] = 0
    return Target("net", network, Preprocess(), {"1": "avg"}, input_size=8), probe_of((255 * pictures).byte())


def table(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_units_that_tie_are_said_to_be_saturated(job, trainer, tmp_path, caplog):
    target, probe = job
    with caplog.at_level(logging.WARNING, "neuronx"):
        exemplars.draw({"net": target}, probe, Wanted(5), trainer, tmp_path, {})
    assert "Layer `1` of net: 3 of 3 units are saturated: their largest peak is that of 5 images or more" in caplog.text
    rows = table(tmp_path / "exemplars.csv")
    assert [(row["unit"], row["ranked_by"], row["highest"], row["saturated"]) for row in rows] == [
        (str(unit), "peak", "6.0", "1") for unit in range(3)
    ]
    assert all(row["ties"] == row["images"] == "32" for row in rows)
    page = (tmp_path / "pictures" / "net" / "1" / "index.html").read_text()
    assert page.count("saturated: 32 of 32 images have this peak") == 3
    assert "with the strongest mean" in page and "(exemplars/ has those of the largest peak, as published)" in page
    shown = np.loadtxt(tmp_path / "exemplars" / "net" / "1" / "ids.csv", delimiter=",", dtype=int)
    assert (shown < 20).all(), "the brighter ones on average, which come first among those that tie"


@pytest.mark.parametrize("by", [None, "peak", "pool"])
def test_pages_show_what_is_scored_and_the_published_layout_keeps_the_peak(job, trainer, tmp_path, by):
    dull = replace(job[0], module=job[0].module[:1], digest="", layers={"0": "avg"})
    shades = torch.arange(40, dtype=torch.uint8)
    pictures = (3 * (39 - shades))[:, None, None, None].expand(-1, 3, 8, 8).clone()
    pictures[:, :, 4, 4] = (130 + 3 * shades)[:, None]  # the darker a picture, the brighter its one bright pixel
    probe = probe_of(pictures)
    exemplars.draw({"net": dull}, probe, Wanted(4, by=by), trainer, tmp_path, {})
    seen = probe.split("train", "val").tolist()
    top = {"peak": seen[::-1][:4], "pool": seen[:4]}
    shown = np.loadtxt(tmp_path / "exemplars" / "net" / "0" / "ids.csv", delimiter=",", dtype=int)
    assert shown.tolist() == [top[by or "peak"]] * 3
    drawn = np.asarray(Image.open(tmp_path / "pictures" / "net" / "0" / "unit_1.png"))[28 : 28 + TILE, GAP : GAP + TILE]
    whole = tiles(pictures[top[by or "pool"][0]], None, TILE).permute(1, 2, 0).numpy()
    assert ((drawn == whole) | (drawn == whole // DIMMED)).all(2).mean() > 0.7, "but for the line around the mask"
    assert {path.name for path in tmp_path.iterdir()} - {"cache"} == {"exemplars", "pictures", "exemplars.csv"}


@pytest.mark.parametrize(("pool", "by", "said"), [("avg", "pool", "mean"), ("max", "peak", "peak")])
def test_pictures_follow_what_is_scored(job, trainer, tmp_path, pool, by, said):
    target, probe = job
    dull = replace(target, module=target.module[:1], digest="", layers={"0": pool})
    exemplars.draw({"net": dull}, probe, Wanted(4, images="all", by=by, size=24), trainer, tmp_path, {})
    pictures = probe.load(range(40)).float() / 255
    values = (pictures.mean((2, 3)) if pool == "avg" else pictures.amax((2, 3))) * 20 - 6
    layer = tmp_path / "exemplars" / "net" / "0"
    shown = np.loadtxt(layer / "ids.csv", delimiter=",", dtype=int)
    written = torch.from_numpy(np.loadtxt(layer / "activations.csv", delimiter=",")).float()
    torch.testing.assert_close(written, values.T.sort(1, descending=True).values[:, :4], atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(written, values.T.gather(1, torch.from_numpy(shown)), atol=1e-3, rtol=1e-4)
    assert np.load(layer / "images.npy").shape == (3, 4, 3, 24, 24)
    page = (tmp_path / "pictures" / "net" / "0" / "index.html").read_text()
    assert f"4 images of 40 with the strongest {said}, bright" in page and "as published" not in page
    assert {row["ranked_by"] for row in table(tmp_path / "exemplars.csv")} == {said}
