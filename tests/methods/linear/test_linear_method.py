import logging
from collections import OrderedDict
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from linear_cases import planted
from torch import nn

from neuronx.data.probe import Probe, seeded_splits
from neuronx.errors import UserError
from neuronx.methods.linear.method import LinearExplanations
from neuronx.targets.target import Target
from neuronx.types import Activations, Concepts, Unit

CASE = planted(images=1500, units=8)
NAMES = tuple(f"concept {c}" for c in range(40))


class Source:
    """Concepts of a case, as given."""

    def __init__(self, scores=CASE.scores, names=NAMES):
        self.scores, self.names = scores, names

    def concepts(self, probe, trainer):
        return Concepts(self.names, self.scores, ("digest of a CLIP",))


@pytest.fixture
def world(monkeypatch):
    """A probe and a target of two layers whose activations are those of the case."""
    probe = Probe()
    probe.name, probe.splits = "planted", seeded_splits(1500)
    values = {"a": CASE.values[:, :5].clone(), "b.0": CASE.values[:, 5:].clone()}

    def record(target, probe, trainer, layers=None):
        return {
            layer: Activations(v, tuple(Unit(layer, k) for k in range(v.shape[1])), "avg")
            for layer, v in values.items()
        }

    monkeypatch.setattr("neuronx.recording.record.record", record)
    module = nn.Sequential(OrderedDict(a=nn.Identity(), b=nn.Sequential(nn.Identity())))
    target = Target("net", module, lambda x: x, {"a": "avg", "b.0": "avg"})
    return SimpleNamespace(probe=probe, target=target, values=values)


@pytest.mark.parametrize("search", ["forward", "greedy"])
@pytest.mark.parametrize("solver", ["exact", "saga", "prox"])
def test_units_of_all_layers_are_explained_by_what_made_them(world, trainer, search, solver):
    if solver == "saga":
        pytest.importorskip("glm_saga")
    method = LinearExplanations(Source(), search=search, solver=solver, epochs=40 if solver == "saga" else None)
    found = method.explain(world.target, world.probe, trainer)
    assert [str(one.unit) for one in found] == [f"a:{k}" for k in range(5)] + [f"b.0:{k}" for k in range(3)]
    assert {one.made_by for one in found} == {("digest of a CLIP",)}
    hits = 0
    for k, one in enumerate(found):
        truth = {NAMES[c] for c in CASE.weights[k].nonzero().flatten()}
        named = {name for name, _ in one.terms}
        hits += len(named & truth)
        assert named <= truth or search == "forward"
        values = world.values[one.unit.layer][:, one.unit.index]
        train = world.probe.splits["train"]
        assert len(one.evidence) == 5 and set(one.evidence) <= set(train.tolist())
        assert values[list(one.evidence)].tolist() == values[train].topk(5).values.tolist()
    assert hits >= 0.8 * int((CASE.weights != 0).sum())


def test_top_gives_five_terms(world, trainer):
    found = LinearExplanations(Source(), search="top").explain(world.target, world.probe, trainer)
    assert {len(one.terms) for one in found} == {5}


def test_only_the_units_asked_for(world, trainer):
    some = replace(world.target, units={"a": [3, 1], "b.0": [2]})
    found = LinearExplanations(Source()).explain(some, world.probe, trainer)
    assert [str(one.unit) for one in found] == ["a:3", "a:1", "b.0:2"]
    everyone = {one.unit: one for one in LinearExplanations(Source()).explain(world.target, world.probe, trainer)}
    for one in found:
        other = everyone[one.unit]
        assert dict(one.terms) == pytest.approx(dict(other.terms)) and one.evidence == other.evidence


def test_test_images_have_no_say(world, trainer):
    scores = CASE.scores.clone()
    before = LinearExplanations(Source(scores)).explain(world.target, world.probe, trainer)
    hidden = world.probe.splits["test"]
    scores[hidden] = 0.99
    for values in world.values.values():
        values[hidden] = 1e6
    assert LinearExplanations(Source(scores)).explain(world.target, world.probe, trainer) == before


def test_dead_units_are_inactive(world, trainer):
    world.values["a"][:, 2] = 0
    found = LinearExplanations(Source()).explain(world.target, world.probe, trainer)
    assert str(found[2]) == "inactive" and found[2].terms == () and found[2].evidence == ()
    assert all(one.terms for k, one in enumerate(found) if k != 2)


def test_the_activity_filter_says_what_it_removed(world, trainer, caplog):
    scores = CASE.scores.clone()
    scores[:, :7] *= 0.4
    scores[:, 7] = 0.9
    with caplog.at_level(logging.INFO, logger="neuronx"):
        found = LinearExplanations(Source(scores)).explain(world.target, world.probe, trainer)
    assert "the activity filter removed 8 of 40 concepts" in caplog.text
    assert not {name for one in found for name, _ in one.terms} & set(NAMES[:8])


def test_the_module_reads_all_concepts_and_remembers_its_units(world, trainer):
    scores = CASE.scores.clone()
    scores[:, 0] = 0.0
    heads = LinearExplanations(Source(scores)).fit(world.target, world.probe, trainer)
    assert heads.concepts == NAMES
    predicted = heads(scores[world.probe.splits["test"]])
    actual = torch.cat(list(world.values.values()), 1)[world.probe.splits["test"]].double()
    r = [torch.corrcoef(torch.stack([predicted[:, k], actual[:, k]]))[0, 1] for k in range(8)]
    assert torch.stack(r).mean() > 0.7


def test_few_concepts_after_saga_or_prox(world, trainer):
    method = LinearExplanations(Source(), solver="prox", most=12)
    heads = method.fit(world.target, world.probe, trainer)
    assert len(heads.columns[heads.columns >= 0].unique()) <= 12


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solver": "exakt"}, "no solver of linear explanations `exakt`.*exact"),
        ({"search": "beam"}, "no search of linear explanations `beam`.*greedy"),
        ({"lam": 0.0}, r"lam of linear explanations is 0\.0; it must be positive"),
        ({"alpha": 1.5}, "alpha .* at most 1"),
        ({"max_length": 0}, "max_length .* at least 1"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        LinearExplanations(Source(), **options)


def test_wrong_data_is_refused(world, trainer):
    with pytest.raises(UserError, match="None of the 40 concepts shows on the 1200 images of train and val"):
        LinearExplanations(Source(CASE.scores * 0.1)).explain(world.target, world.probe, trainer)
    broken = CASE.scores.clone()
    broken[world.probe.splits["val"][3], 4] = float("nan")
    with pytest.raises(UserError, match="Concept `concept 4` has scores that are NaN"):
        LinearExplanations(Source(broken)).explain(world.target, world.probe, trainer)
    world.values["b.0"][world.probe.splits["train"][0], 1] = float("nan")
    with pytest.raises(UserError, match=r"Unit b\.0:1 of layer `b\.0` has activations that are NaN"):
        LinearExplanations(Source()).explain(world.target, world.probe, trainer)
    world.probe.splits["val"] = world.probe.splits["val"][:4]
    with pytest.raises(UserError, match="need 10 images in val; `planted` has 4 there"):
        LinearExplanations(Source()).explain(world.target, world.probe, trainer)


def test_each_term_says_how_many_train_and_test_images_show_it(world, trainer):
    found = LinearExplanations(Source()).explain(world.target, world.probe, trainer)
    train, test = (CASE.scores[world.probe.splits[name]].double().sum(0) for name in ("train", "test"))
    for one in found:
        places = [NAMES.index(concept) for concept, _ in one.terms]
        assert one.support == tuple((round(train[c].item(), 1), round(test[c].item(), 1)) for c in places)


def test_concepts_with_too_little_support_take_no_part(world, trainer):
    train = CASE.scores[world.probe.splits["train"]].double().sum(0)
    least = float(train.median())
    found = LinearExplanations(Source(), min_support=least).explain(world.target, world.probe, trainer)
    used = {NAMES.index(concept) for one in found for concept, _ in one.terms}
    assert used and all(train[c] >= least for c in used)
    with pytest.raises(UserError, match=r"No concept is shown by 1e\+06 of the 1050 train images \(min_support\)"):
        LinearExplanations(Source(), min_support=1e6).explain(world.target, world.probe, trainer)
