import io
import math
from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
import torch
from oracles_pure_splits import Meanings, network
from rich.console import Console
from torch import nn

from neuronx.command.pipeline import evaluate
from neuronx.concepts.clip import mean_tokens
from neuronx.concepts.labels import LabelConcepts
from neuronx.errors import UserError
from neuronx.methods.pure.samples import Samples
from neuronx.metrics.purity import Alignment
from neuronx.report.evaluation import show, write
from neuronx.scoring.clustering.purity import Purity
from neuronx.scoring.clustering.purity_tables import LayerPurity, alignment_table
from neuronx.scoring.compare import compare
from neuronx.targets.preprocess import Preprocess
from neuronx.targets.target import Target
from neuronx.world.clip import ShapesClip
from neuronx.world.pictures.probe import ShapesProbe

JUDGE = SimpleNamespace(name="judge", domain="", encoders=(), vocabulary=lambda probe: ())


def space():
    return Target("pixels", nn.Flatten(), Preprocess(), {"": "none"}, input_size=4)


@dataclass(frozen=True)
class Planted:
    """References whose circuits tell two kinds of patches apart, in all units but the last, which fires but once."""

    references: int = 40
    crop: str = "none"
    informative: bool = True

    def sample(self, target, probe, trainer, layer):
        draw = torch.Generator().manual_seed(0)
        rows = torch.randperm(len(probe), generator=draw)[: self.references].repeat(5, 1)
        counted = torch.ones_like(rows, dtype=torch.bool)
        counted[4, 1:] = False
        circuits = 0.1 * torch.randn(5, self.references, 3, generator=draw)
        circuits[..., 0] += probe.labels[rows] * (1.0 if self.informative else 0.0)
        # A table that starts with something else, so that places count.
        table = torch.cat([torch.full((7, 3), 99.0), circuits.flatten(0, 1)])
        at = 7 + torch.arange(rows.numel()).view_as(rows)
        return SimpleNamespace(
            units=torch.arange(5), rows=rows, counted=counted, patches=probe, at=rows, vectors={"pure": (table, at)}
        )

    def show(self, target, probe, trainer, sample, which, k):
        return [(target.name, int(unit), k) for unit in which]

    def cluster(self, vectors, counted, k):
        return Samples().cluster(vectors, counted, k)


def run(trainer, references=None, shown=2, **options):
    target, probe = network(), Meanings(60)
    sim = Purity(references or Planted(), space=space(), ks=(2, 3), draws=4, shown=shown, **options)
    return sim.score({}, target, probe, JUDGE, trainer)


def mean(scores, method, score="purity"):
    own = [one.value for one in scores if (one.method, one.score, one.status) == (method, score, "ok")]
    return sum(own) / len(own)


def test_circuits_that_tell_patches_apart_score_and_shuffled_ones_do_not(trainer):
    scores = run(trainer).rows
    for score in ("purity", "purity_held_out"):
        assert mean(scores, "pure", score) > 0.1
        assert abs(mean(scores, "shuffled-pure", score)) < 0.2 * mean(scores, "pure", score)
        assert mean(scores, "ceiling", score) >= mean(scores, "pure", score) - 0.1
    dead = [one for one in scores if one.unit.index == 4]
    assert {(one.status, one.explanation, one.n) for one in dead} == {("inactive", "inactive", 1)}
    one = scores[0]
    assert (one.judge, one.images, one.pool) == ("pixels", "meanings/train:42", "avg")
    assert one.explanation.startswith("gap ") and one.explanation.endswith("for k = 2, 3")
    assert math.isnan(one.sem) and one.n == 40
    pair = [one for one in compare(scores) if (one.a, one.b, one.score) == ("pure", "shuffled-pure", "purity")]
    assert pair[0].low > 0 and pair[0].n_units == 4


def test_the_units_that_split_best_are_pictured(trainer):
    found = run(trainer)
    scores = found.rows
    gaps = {
        one.unit.index: float(one.explanation.split()[1].rstrip(","))
        for one in scores
        if (one.method, one.score, one.status) == ("pure", "purity", "ok")
    }
    shown = [unit for _, unit, _ in found.samples]
    assert len(shown) == 2 and min(gaps[unit] for unit in shown) >= max(
        gap for unit, gap in gaps.items() if unit not in shown
    )


def test_circuits_that_say_nothing_score_nothing_held_out(trainer):
    scores = run(trainer, Planted(informative=False)).rows
    assert abs(mean(scores, "pure", "purity_held_out")) < 0.05


def test_the_published_table(trainer):
    found = run(trainer)
    scores = found.rows
    columns, rows = found.tables["purity.csv"]
    table = [dict(zip(columns, row, strict=True)) for row in rows]
    assert [(row["references"], row["k"], row["method"]) for row in table] == [
        (which, k, method) for which in ("all", "held out") for k in (2, 3) for method in ("pure", "random", "ceiling")
    ]
    gaps = [row["gap"] for row in table if row["method"] == "pure"]
    assert mean(scores, "pure") == pytest.approx((gaps[0] + gaps[1]) / 2)
    for row in table:
        assert row["units"] == 4 and row["gap"] == pytest.approx(row["inter"] - row["intra"])
        assert row["gap_low"] <= row["gap"] <= row["gap_high"]
    columns, rows = found.tables["alignment.csv"]
    (aligned,) = [dict(zip(columns, row, strict=True)) for row in rows]
    assert aligned["vectors"] == "pure" and aligned["pooled"] > 0.5 and aligned["within"] > 0.5


def test_units_without_an_alignment_do_not_spoil_the_mean():
    layer = LayerPurity(
        target="net",
        layer="upper",
        pool="avg",
        units=(0, 1),
        counted=torch.tensor([9, 9]),
        live=torch.tensor([True, True]),
        space="pixels",
        crop="none",
        images="some/train:9",
        distances=(),
        aligned={"pure": Alignment(torch.tensor([0.5, math.nan]), 0.25, torch.tensor([0.2, math.nan, 0.4]))},
    )
    columns, (row,) = alignment_table([layer])
    found = dict(zip(columns, row, strict=True))
    assert (found["units"], found["pooled"], found["within"]) == (1, 0.25, 0.5)
    assert found["subsets"] == pytest.approx(0.3) and found["subsets_sem"] == pytest.approx(0.1)


def test_units_of_few_references_are_inactive(trainer):
    class Rare(Planted):
        def sample(self, *args):
            made = super().sample(*args)
            made.counted[3, 5:], made.counted[2, 6:] = False, False
            return made

    status = {row.unit.index: row.status for row in run(trainer, Rare()).rows if row.method == "pure"}
    assert status == {0: "ok", 1: "ok", 2: "ok", 3: "inactive", 4: "inactive"}  # of 2 x 3 references at least


def test_it_is_the_same_every_time(trainer):
    first, second = run(trainer), run(trainer)
    assert repr(first.rows) == repr(second.rows) and first.tables == second.tables


def test_from_pictures_to_files_and_print(tmp_path, trainer):
    target, probe = network(), Meanings(100)
    sim = Purity(Samples(references=12, crop="none"), space=space(), ks=(2,), draws=3)
    found = evaluate(
        {"small": target}, probe, {}, [], {"purity": sim}, [JUDGE], SimpleNamespace(of=lambda _: ()), trainer, 0
    )
    by = {(one.method, one.unit.index): one for one in found.scores if one.score == "purity"}
    assert by["pure", 0].value > 10 * abs(by["pure", 1].value) and by["pure", 2].status == "inactive"
    assert [one.unit.index for one in found.samples] == [0, 1]
    assert found.samples[0].crops.shape == (12, 3, 4, 4) and found.samples[0].names == ("", "")
    names = {path.name for path in write(found, tmp_path)}
    assert {"purity.csv", "alignment.csv", "scores.csv"} <= names
    out = io.StringIO()
    show(found, tmp_path, Console(file=out, width=80))
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.split()[:6] == ["k", "method", "intra", "inter", "gap", "over"] for line in lines)
    (row,) = (line for line in lines if line.split()[:2] == ["2", "pure"])
    table = [dict(zip(found.tables["purity.csv"][0], own, strict=True)) for own in found.tables["purity.csv"][1]]
    own = [each for each in table if each["method"] == "pure"]
    intervals = [f"{each['over_random']:+.3f} [{each['over_random_low']:.2f}," for each in own]
    assert [each["references"] for each in own] == ["all", "held out"] and all(text in row for text in intervals)
    assert "…" not in "".join(lines)


def test_mistakes_are_told(trainer):
    explainer, probe = ShapesClip(pretrained="shapes_explainer"), Meanings(60)
    same = Purity(Planted(), embeddings=explainer, ks=(2,))
    with pytest.raises(UserError, match="same space"):
        same.score({}, network(), probe, replace(explainer, name="another"), trainer)
    with pytest.raises(UserError, match="embeds none"):
        same.score({}, network(), probe, LabelConcepts(), trainer)
    for options, what in (({"ks": ()}, "from 2 on"), ({"ks": (1, 2)}, "from 2 on"), ({"draws": 0}, "at least 1")):
        with pytest.raises(UserError, match=what):
            Purity(Planted(), **options)
    with pytest.raises(UserError, match="too few for 5"):
        Purity(Planted(references=9))


def test_embeddings_before_the_head(trainer):
    clip, probe = ShapesClip(pretrained="shapes_judge"), ShapesProbe(size=20, batch_size=20)
    found = mean_tokens(clip, probe, trainer)
    visual = clip.encoder.model.visual
    images = clip.encoder.transform(probe.load(list(range(20))))
    with torch.no_grad():
        expected = visual.trunk.forward_features(images).mean((2, 3))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    with pytest.raises(UserError, match="natural"):
        mean_tokens(replace(clip, domain="natural"), probe, trainer)
