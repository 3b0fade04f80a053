from dataclasses import replace

import pytest
import torch
from oracles_pure_splits import Meanings, network

from neuronx.concepts.labels import LabelConcepts
from neuronx.errors import UserError
from neuronx.methods.linear.method import LinearExplanations
from neuronx.methods.pure.circuits import circuit_vectors
from neuronx.methods.pure.method import Pure, split_target, study
from neuronx.methods.pure.references import ReferenceOptions, find_references
from neuronx.methods.pure.relevant import find_relevant
from neuronx.recording.exemplars import find_exemplars
from neuronx.recording.record import record
from neuronx.scoring.correlation import Correlation
from neuronx.types import Unit
from neuronx.world import networks as shapes
from neuronx.world.pictures.probe import ShapesProbe


class Namer:
    """Names every unit that it is asked for after itself."""

    def explain(self, target, probe, trainer):
        from neuronx.types import Explanation

        return [
            Explanation(recorded.units[column], ((str(recorded.units[column]), 1.0),))
            for layer, recorded in record(target, probe, trainer).items()
            for column in target.units[layer]
        ]


def pure(**options):
    return Pure({"namer": Namer()}, **({"references": 60, "alpha": 0.01} | options))


def with_parts(target, probe, trainer, **options):
    how = pure(**options)
    return split_target(target, study(target, probe, trainer, how), how)


@pytest.fixture
def world():
    return network(), Meanings()


@pytest.mark.parametrize("gate", ["hard", "soft", "reject", "distilled"])
def test_parts_add_up_to_their_unit_on_all_images(world, trainer, gate):
    target, probe = world
    split = with_parts(target, probe, trainer, gate=gate)
    recorded = record(split, probe, trainer)["high"]
    own, parts = recorded.values[:, :3], recorded.values[:, 3:]
    assert recorded.units[:3] == tuple(Unit("high", k) for k in range(3))
    assert recorded.units[3:] == tuple(Unit("high", 0, c) for c in range(3 if gate == "reject" else 2))
    torch.testing.assert_close(parts.sum(1), own[:, 0], atol=1e-6, rtol=0)
    assert (parts >= 0).all()
    torch.testing.assert_close(own, record(target, probe, trainer)["high"].values)


@pytest.mark.parametrize("gate", ["hard", "distilled"])
def test_parts_are_the_meanings_on_images_that_were_no_references(world, trainer, gate):
    target, probe = world
    recorded = record(with_parts(target, probe, trainer, gate=gate), probe, trainer)["high"]
    test = probe.split("test")
    means_even = recorded.values[test, 3] > recorded.values[test, 4]
    agreement = (means_even == (probe.labels[test] == 0)).float().mean()
    assert max(agreement, 1 - agreement) > 0.98


def test_pure_and_dead_units_stay_whole_and_all_are_explained(world, trainer):
    target, probe = world
    method = pure()
    assert method.name == "pure-namer"
    result = method.explain(target, probe, trainer)
    found = result.explanations
    assert sorted(map(str, (one.unit for one in found))) == ["high:0/0", "high:0/1", "high:1", "high:2"]
    assert all(str(one.unit) == one.terms[0][0] for one in found)
    columns, rows = result.tables["units.csv"]
    table = {row[columns.index("unit")]: dict(zip(columns, row, strict=True)) for row in rows}
    assert [table[unit]["status"] for unit in range(3)] == ["split", "whole", "inactive"]
    assert rows[0][columns.index("unit")] == 0
    assert table[0]["p"] < 0.01 < table[1]["p"] and table[0]["repeats"] > 0.9
    assert table[2]["p"] == 1 and table[2]["references"] == 0


def test_weak_activations_may_be_shared_alike(world, trainer):
    target, probe = world
    recorded = record(with_parts(target, probe, trainer, quantile=0.5), probe, trainer)["high"].values
    weak = recorded[:, 0] <= recorded[probe.splits["train"], 0].quantile(0.5, interpolation="lower")
    assert 0.4 < weak.float().mean() < 0.6
    torch.testing.assert_close(recorded[weak, 3], recorded[weak, 4])
    assert (recorded[~weak, 3:].amin(1) == 0).all()


@pytest.mark.parametrize("gate", ["hard", "distilled"])
def test_where_a_unit_does_not_fire_its_parts_have_equal_shares(world, trainer, gate):
    target, probe = world
    split = with_parts(target, probe, trainer, gate=gate)
    probe = Meanings()
    probe.images[:30] = 0  # other pictures, on which nothing fires
    gates = split.parts["high"].gates(target, probe, trainer)
    assert (gates[:30] == 0.5).all() and ((gates[30:] == 0) | (gates[30:] == 1)).all()


def test_the_distilled_gate_learns_from_as_many_circuits_as_it_may(world, trainer, monkeypatch):
    target, probe = world
    split, seen = with_parts(target, probe, trainer, gate="distilled", learns_from=20), []

    def counted(target, probe, trainer, layer, rows, units, **options):
        seen.extend(rows.tolist())
        return circuit_vectors(target, probe, trainer, layer, rows, units, **options)

    monkeypatch.setattr("neuronx.methods.pure.gates.circuit_vectors", counted)
    record(split, probe, trainer)
    assert len(seen) == 20 and set(seen) <= set(probe.splits["train"].tolist())


def test_the_most_polysemantic_units_are_shown(world, trainer, monkeypatch):
    monkeypatch.setattr("neuronx.methods.pure.method.SHOWN", 1)
    found = pure(alpha=None).explain(*world, trainer)
    columns, rows = found.tables["units.csv"]
    split = [row[columns.index("unit")] for row in rows if row[columns.index("status")] == "split"]
    assert split == [0, 1] and [sample.unit.index for sample in found.samples] == [0]


def test_only_units_asked_for_are_split(world, trainer):
    target, probe = world
    found = pure().explain(replace(target, units={"high": [1]}), probe, trainer).explanations
    assert [str(one.unit) for one in found] == ["high:1"]


def test_parts_have_exemplars_with_the_masks_of_their_unit(world, trainer):
    target, probe = world
    split = with_parts(target, probe, trainer)
    found = find_exemplars(split, probe, trainer, k=10)["high"]
    assert found.units[3:] == (Unit("high", 0, 0), Unit("high", 0, 1))
    assert [len(probe.labels[found.rows[k]].unique()) for k in (3, 4)] == [1, 1]
    torch.testing.assert_close(found.thresholds[3:], found.thresholds[[0, 0]])
    best = int(found.rows[3, 0] if found.peaks[3, 0] > found.peaks[4, 0] else found.rows[4, 0])
    assert best == found.rows[0, 0]


def test_other_methods_and_the_score_take_parts_as_they_are(world, trainer):
    target, probe = world
    labels = LabelConcepts(superclasses=False)
    how = Pure({"le_label": LinearExplanations(labels)}, references=60, alpha=0.01)
    found = how.explain(target, probe, trainer)
    explained = {how.name: found.explanations}
    scores = Correlation(ceiling=False, floors=False).score(explained, found.target, probe, labels, trainer).rows
    by = {(one.method, str(one.unit)): one for one in scores}
    assert {unit for method, unit in by if method == "pure-le_label"} == {"high:0", "high:1", "high:2"}
    for part in ("high:0/0", "high:0/1"):
        assert by["pure-le_label-parts", part].value > 0.95
    assert by["pure-le_label", "high:2"].status == "inactive"
    assert by["pure-le_label", "high:0"].explanation.count("|") == 1


@pytest.mark.parametrize("crop", ["mask", "none"])
def test_references_of_split_units_are_shown_with_the_names_of_their_parts(world, trainer, crop):
    target, probe = world
    found = pure(crop=crop).explain(target, probe, trainer)
    explained, (shown,) = found.explanations, found.samples
    assert shown.unit == Unit("high", 0) and (shown.masks is None) == (crop == "none")
    assert shown.names == tuple(str(one) for one in explained if one.unit.part is not None)
    assert len(shown.crops) == len(shown.labels) == len(shown.vectors) and set(shown.labels.tolist()) == {0, 1}


def test_mistakes_are_told(world, trainer):
    target, probe = world
    for options, what in (
        ({"k": 0}, "at least 1"),
        ({"k": "elbow"}, "silhouette"),
        ({"references": 8}, "no 2 parts of at least 5"),
        ({"references": 20, "k": 5}, "no 5 parts"),
        ({"references": 10_000}, "train images"),
        ({"alpha": 2.0}, "between 0 and 1"),
        ({"gate": "medium"}, "gate"),
        ({"quantile": 1.0}, "below 1"),
        ({"crop": "middle"}, "way to crop `middle`"),
        ({"heat": "red"}, "red"),
        ({"gate": "distilled", "rule": "adjacent"}, "rule=adjacent"),
    ):
        with pytest.raises(UserError, match=what):
            with_parts(target, probe, trainer, **options)
    with pytest.raises(UserError, match="first layer"):
        with_parts(replace(target, layers={"low": "avg"}), probe, trainer)
    with pytest.raises(UserError, match="one method"):
        Pure({})


def test_references_may_be_chosen_by_relevance(trainer):
    target, probe = shapes.load("shapes_resnet", layers=["layer4"]), ShapesProbe(60, seed=3)
    train, units = probe.splits["train"], torch.tensor([3, 9])
    options = ReferenceOptions(references=10, chosen_by="gradient")
    ours = find_references(target, probe, trainer, "layer4", units, options)
    assert torch.equal(ours.rows, find_relevant(target, probe, trainer, "layer4", 10, "gradient", train).rows[units])
    by_activation = find_references(target, probe, trainer, "layer4", units, ReferenceOptions(references=10))
    assert not torch.equal(ours.rows, by_activation.rows)
    assert torch.equal(ours.exemplars.thresholds, by_activation.exemplars.thresholds)
    with pytest.raises(UserError, match="way to choose references `luck`"):
        ReferenceOptions(chosen_by="luck")


def test_references_and_circuits_are_of_what_is_explained(trainer):
    probe, units = ShapesProbe(40, seed=3), torch.tensor([0, 17])
    train = probe.splits["train"]
    target = shapes.load("shapes_vit", layers={"blocks.3": "first"})
    token = find_references(target, probe, trainer, "blocks.3", units, ReferenceOptions(references=5))
    values = record(target, probe, trainer)["blocks.3"].values[train]
    for at, unit in enumerate(units.tolist()):
        assert token.rows[at].tolist() == train[values[:, unit].argsort(descending=True)[:5]].tolist()
    assert token.exemplars.grid is None
    network, picture = target.module, next(iter(probe.loader(target.transform, token.rows[0][:1], batch_size=1)))[0]
    found = {}
    handles = [
        network.get_submodule(name).register_forward_hook(lambda *_, name=name: found.update({name: _[-1]}))
        for name in (token.lower, "blocks.3")
    ]
    network(picture.requires_grad_())
    for handle in handles:
        handle.remove()
    lower = found[token.lower]
    (gradient,) = torch.autograd.grad(found["blocks.3"][0, 0, 0], lower)
    share = (gradient * lower).flatten(0, -2).sum(0)
    torch.testing.assert_close(token.vectors[0, 0], share / share.abs().sum(), atol=1e-4, rtol=1e-3)
    pooled = replace(target, layers={"blocks.3": "avg"})
    options = ReferenceOptions(references=5, chosen_by="pool")
    mean = find_references(pooled, probe, trainer, "blocks.3", units, options)
    values = record(pooled, probe, trainer)["blocks.3"].values[train]
    assert mean.rows[0].tolist() == train[values[:, 0].argsort(descending=True)[:5]].tolist()
