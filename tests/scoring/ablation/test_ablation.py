"""Ablation scores against the plain formula, on linear heads and where the network's tail has to run."""

import math
from dataclasses import replace

import oracles_simulation as oracle
import pytest
import torch
from oracles_simulation import Table
from torch import nn

from neuronx.data.in_memory import probe_of
from neuronx.errors import UserError
from neuronx.scoring.ablation.ablation import Ablation
from neuronx.targets.target import Target
from neuronx.types import Explanation, Unit

N, CLASSES = 300, 7


class Net(nn.Module):
    """Two convolutions, a hidden layer and a class head, for 8-pixel pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU())
        self.two = nn.Sequential(nn.Conv2d(5, 6, 3, stride=2), nn.ReLU())
        self.hidden = nn.Sequential(nn.Linear(6, 9), nn.Tanh())
        self.head = nn.Linear(9, CLASSES)

    def forward(self, x):
        return self.head(self.hidden(self.two(self.one(x)).mean((2, 3))))


@pytest.fixture(scope="module")
def world():
    """A network, pictures with its own noisy answers as labels, and a judge whose concepts know the units a little."""
    torch.manual_seed(0)
    module = Net()
    for parameter in module.parameters():
        parameter.data *= 2.5
    images = torch.randn(N, 3, 8, 8)
    with torch.no_grad():
        logits = module(images)
    labels = (logits + torch.randn(N, CLASSES).mul(0.5)).argmax(1)
    labels[:CLASSES] = torch.arange(CLASSES)
    probe = probe_of(images)
    probe.labels, probe.class_names = labels, ()
    target = Target("net", module, lambda x: x, {"hidden": "none", "one": "avg", "two": "avg"})
    return target, probe


def explained(target, probe, layer, noise=0.7, units=4):
    """Explanations of some units by one noisy concept each, and the judge's table."""
    with target.record([layer]) as found, torch.no_grad():
        target.module(probe_images(probe))
    z = found[layer] if found[layer].ndim == 2 else found[layer].mean((2, 3))
    generator = torch.Generator().manual_seed(1)
    scores = (z - z.amin(0)) / (z.amax(0) - z.amin(0)) + noise * 0.2 * torch.randn(z.shape, generator=generator)
    judge = Table([f"c{k}" for k in range(z.shape[1])], scores.clamp(0, 1).float())
    one = [
        Explanation(Unit(layer, k), ((f"c{k}", float(z[:, k].max() - z[:, k].min())),), float(z[:, k].min()))
        for k in range(units)
    ]
    return one, judge, z


def probe_images(probe):
    return next(iter(probe.loader(lambda x: x, torch.arange(len(probe)), batch_size=len(probe))))[0]


def direct(world, layer, one, judge, z, mode, temperature, combine="shift"):
    """The oracle's score, the whole network run by hand."""
    target, probe = world
    module, images = target.module, probe_images(probe)
    (concept, weight), k = one.terms[0], one.unit.index
    q = judge.scores[:, judge.names.index(concept)] * weight + one.bias
    with torch.no_grad():
        x = module.one(images)
        x = x if layer == "one" else module.two(x)
        x = module.hidden(x.mean((2, 3)))[..., None, None] if layer == "hidden" else x

    def logits_at(amounts, rows):
        old = x[rows]
        onto = torch.zeros(x.shape[1]).index_fill(0, torch.tensor(k), 1.0)[:, None, None]
        pooled, to = old[:, k].mean((1, 2)), amounts.float()
        by = torch.where(pooled == 0, to, 0) if combine == "scale" else to - pooled
        factor = (
            torch.where(pooled == 0, 1, to / pooled.masked_fill(pooled == 0, 1)) if combine == "scale" else 1 + 0 * to
        )
        new = old * (1 - onto) + old * onto * factor[:, None, None, None] + by[:, None, None, None] * onto
        if layer == "hidden":
            return module.head(new.flatten(1))
        new = module.two(new) if layer == "one" else new
        return module.head(module.hidden(new.mean((2, 3))))

    val, test = probe.split("val"), probe.split("test")
    return oracle.ablation(q, logits_at, probe.labels, z[:, k], val, test, mode, temperature)


@pytest.mark.parametrize("mode", ["norm", "optim"])
def test_a_linear_head_gives_the_plain_formula(world, trainer, mode):
    one, judge, z = explained(*world, "hidden")
    sim = Ablation(modes=[mode], temperature=1.1, floors=False, ceiling=False, batch_size=32)
    scores = sim.score({"le": one}, *world, judge, trainer).rows
    assert [(s.score, s.pool, s.status) for s in scores] == [(f"ablation_{mode}", "none", "ok")] * 4
    for score, claim in zip(scores, one, strict=True):
        assert abs(score.value - direct(world, "hidden", claim, judge, z, mode, 1.1)) < 1e-5
        assert 0 < score.sem < 0.5


@pytest.mark.parametrize(("layer", "combine"), [("one", "shift"), ("two", "shift"), ("two", "scale")])
def test_inside_a_network_of_rectifiers_it_agrees_with_brute_force(world, trainer, layer, combine):
    one, judge, z = explained(*world, layer, units=2)
    sim = Ablation(temperature=1.0, floors=False, ceiling=False, combine=combine, nodes=40)
    scores = sim.score({"le": one}, *world, judge, trainer).rows
    assert {s.pool for s in scores} == {f"avg, {combine}"}
    for score in scores:
        claim = one[score.unit.index]
        expected = direct(world, layer, claim, judge, z, score.score.removeprefix("ablation_"), 1.0, combine)
        # Kinks make the last steps of the fit turn on rounding; a fraction of the standard error is what that leaves.
        assert abs(score.value - expected) < (1e-3 if score.score == "ablation_norm" else 0.2 * score.sem), score


def test_floors_and_ceiling_stand_beside(world, trainer):
    one, judge, _ = explained(*world, "hidden", units=6)
    scores = Ablation().score({"le": one}, *world, judge, trainer).rows
    mean = {
        (method, mode): sum(s.value for s in scores if (s.method, s.score) == (method, f"ablation_{mode}")) / 6
        for method in ("le", "shuffled-le", "random-le", "ceiling")
        for mode in ("optim", "norm")
    }
    for mode in ("optim", "norm"):
        assert mean["le", mode] > max(mean["shuffled-le", mode], mean["random-le", mode]) + 0.1
        assert mean["ceiling", mode] > mean["shuffled-le", mode] + 0.1
    assert len(scores) == 6 * 4 * 2 and all(s.images == f"{world[1].name}/test:60" for s in scores)


def test_a_unit_without_effect_is_counted_and_not_infinite(world, trainer):
    target, probe = world
    module = Net()
    module.load_state_dict(target.module.state_dict())
    module.head.weight.data[:, 1] = 0.3  # adds the same to every logit
    same = Target("same", module, lambda x: x, target.layers)
    one, judge, _ = explained(same, probe, "hidden")
    scores = Ablation(floors=False, ceiling=False).score({"le": one}, same, probe, judge, trainer).rows
    assert [s.status for s in scores] == ["ok", "no_effect", "ok", "ok"] * 2
    assert all(math.isnan(s.value) and math.isnan(s.sem) for s in scores if s.unit.index == 1)


def test_constant_predictions(world, trainer):
    one, judge, _ = explained(*world, "hidden", units=2)
    one = [replace(claim, terms=()) for claim in one]
    scores = Ablation(floors=False, ceiling=False).score({"le": one}, *world, judge, trainer).rows
    assert all(abs(s.value) < 1e-9 for s in scores if s.score == "ablation_norm"), "the prediction is the mean"
    assert all(math.isfinite(s.value) for s in scores)


def test_what_was_measured_is_kept(world, trainer, own_cache):
    one, judge, _ = explained(*world, "two", units=2)
    sim = Ablation(floors=False, ceiling=False, nodes=4)
    first = sim.score({"le": one}, *world, judge, trainer).rows
    stamps = {path: path.stat().st_mtime_ns for path in (own_cache / "effects").rglob("*") if path.is_file()}
    assert sim.score({"le": one}, *world, judge, trainer).rows == first
    assert stamps and all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())


def test_fewer_images_where_the_network_is_run_and_the_table_says_so(world, trainer):
    one, judge, _ = explained(*world, "two", units=2)
    two, other, _ = explained(*world, "hidden", units=2)
    judge.names, judge.scores = other.names, other.scores
    sim = Ablation(floors=False, ceiling=False, nodes=6, most_images=20)
    scores = sim.score({"le": [*one, *two]}, *world, judge, trainer).rows
    assert {(s.unit.layer, s.n, s.images) for s in scores} == {
        ("two", 20, "memory/test:20"),
        ("hidden", 60, "memory/test:60"),
    }


def test_labels_may_be_the_networks_own_answers(world, trainer):
    target, probe = world
    one, judge, _ = explained(target, probe, "hidden", units=2)
    blind = probe_of(probe_images(probe))
    assert blind.labels is None
    with pytest.raises(UserError, match=r"has no labels.*labels=predicted"):
        Ablation().score({"le": one}, target, blind, judge, trainer)
    scores = Ablation(labels="predicted").score({"le": one}, target, blind, judge, trainer).rows
    assert all(s.status == "ok" for s in scores)


def test_labels_of_other_classes_and_no_class_head_are_refused(world, trainer):
    target, probe = world
    one, judge, _ = explained(target, probe, "hidden", units=2)
    other = probe_of(probe_images(probe))
    other.labels, other.class_names = torch.zeros(N, dtype=torch.int64), ("a", "b")
    with pytest.raises(UserError, match=r"7 classes apart.*labelled with 2"):
        Ablation().score({"le": one}, target, other, judge, trainer)
    headless = Target("maps", target.module.one, lambda x: x, {"0": "avg"})
    claims = [Explanation(Unit("0", 0), (("c0", 1.0),))]
    with pytest.raises(UserError, match="maps has no class head"):
        Ablation().score({"le": claims}, headless, probe, judge, trainer)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modes": ["best"]}, "mode of ablation"),
        ({"modes": []}, "modes is empty"),
        ({"combine": "add"}, "way to combine"),
        ({"temperature": 0.0}, "above 0"),
        ({"temperature": -1.0}, "above 0"),
        ({"nodes": 1}, "at least 2"),
    ],
)
def test_options_that_make_no_sense(options, message):
    with pytest.raises(UserError, match=message):
        Ablation(**options)


def test_a_generator_has_no_class_head(trainer):
    from neuronx.data.latents import latent_probe
    from neuronx.world.generator import load

    target = load("shapes_gan", layers="layer2")
    probe = latent_probe(target, size=40)
    with pytest.raises(UserError, match="generates pictures and has no class head"):
        Ablation().score({"a": [Explanation(Unit("layer2", 0), (("red", 1.0),))]}, target, probe, None, trainer)


@pytest.mark.parametrize("scale", [1e154, 1e307])
def test_a_huge_explanation_is_right_in_norm_broken_in_optim_and_harms_no_other(world, trainer, scale):
    target, probe = world
    said, judge, _ = explained(target, probe, "hidden")
    huge = [replace(one, terms=tuple((c, w * scale) for c, w in one.terms), bias=one.bias * scale) for one in said]
    sim = Ablation(floors=False, ceiling=False)
    alone = sim.score({"usual": said}, target, probe, judge, trainer).rows
    beside = sim.score({"usual": said, "huge": huge}, target, probe, judge, trainer).rows
    for a, b in zip(alone, [row for row in beside if row.method == "usual"], strict=True):
        assert (b.status, b.value) == ("ok", pytest.approx(a.value, abs=1e-6))
    for a, b in zip(alone, [row for row in beside if row.method == "huge"], strict=True):
        if a.score == "ablation_norm":
            assert b.value == pytest.approx(a.value, abs=1e-6)
        else:
            assert b.status == "broken" and math.isnan(b.value)


@pytest.mark.parametrize(("option", "value"), [("lr", math.nan), ("steps", -1), ("batch_size", 0), ("most_nodes", 1)])
def test_numbers_that_cannot_be_options(option, value):
    with pytest.raises(UserError, match=rf"sim\.ablation\.{option}={value}"):
        Ablation(**{option: value})
