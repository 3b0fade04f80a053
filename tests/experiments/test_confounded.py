"""Right and wrong words where they go together, on a planted unit."""

import csv

import pytest
import torch

from neuronx.data.in_memory import probe_of
from neuronx.errors import UserError
from neuronx.experiments.confounded import Confounded
from neuronx.experiments.given import Given
from neuronx.scoring.verification.pictures import Changes
from neuronx.targets.target import Target
from neuronx.types import Explanation, Judgement, Unit

WORDS = ("red", "blue", "circle", "star")


class Truthful(type(probe_of(torch.zeros(3, 3, 1, 2)))):
    """Pictures whose first four numbers say which words are true."""

    @property
    def truth(self):
        return WORDS, self.pictures.flatten(1)[:, :4] > 0


def of(factors):
    return Truthful(factors.float().view(-1, 3, 1, 2), name="planted")


class Sees:
    name, domain, encoders = "sees", "", ()

    def judge(self, names, probe, trainer):
        truth = probe.pictures.flatten(1)[:, [WORDS.index(name) for name in names]]
        return Judgement(torch.ones(len(names), dtype=torch.bool), lambda rows: truth[rows])


class Plants:
    domain = "tensors"

    def pool(self, size):
        return of(torch.rand(size, 6, generator=torch.Generator().manual_seed(0)) < 0.3)

    def bank(self, scenes):
        base = torch.rand(scenes, 6, generator=torch.Generator().manual_seed(1)).round()
        found = base.repeat(8, 1).view(4, 2, scenes, 6)
        for factor in range(4):
            for value in range(2):
                found[factor, value, :, factor] = value
        scene = torch.arange(scenes).repeat(8)
        group = torch.arange(4).repeat_interleave(2 * scenes) * scenes + scene
        return Changes(of(found.flatten(0, 2)), torch.arange(len(scene)), group, scene, torch.full_like(scene, -1))


class Says:
    def __init__(self, *terms):
        self.terms = terms

    def explain(self, target, probe, trainer):
        return [Explanation(Unit("1", k), (term,)) for k, term in enumerate(self.terms)]


@pytest.fixture
def given(trainer, tmp_path):
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(6, 2))
    module[1].weight.data = torch.tensor([[1.0, 0, 0, 0, 0, 0.5], [0, 0, 0, -1, 0, 0.5]])
    target = Target("net", module, lambda x: x, {"1": "none"})
    method = Says(("red", 2.0), ("star", -1.0))
    return Given(trainer, tmp_path, {"net": target}, Plants().pool(50), {"le": method})


def experiment(**options):
    options = {"first": WORDS[:2], "second": WORDS[2:], "pool_size": 2000, "candidates": 2} | options
    return Confounded(judge=Sees(), drawer=Plants(), **options)


def test_correlation_is_fooled_and_pairs_are_not(given):
    text = experiment().run(given)
    assert "right is larger" in text and "repaired" in text
    with (given.folder / "confounded.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["right"], row["unit"]) for row in rows] == [("red", "0")] * 2 + [("star", "1")] * 2
    for row in rows:
        assert row["wrong"] in (WORDS[2:] if row["right"] == "red" else WORDS[:2])
        assert float(row["natural_wrong"]) > 0.4 and float(row["natural_right"]) > 0.7
        assert float(row["pairs_right"]) == pytest.approx(1) and abs(float(row["pairs_wrong"])) < 1e-9
        assert row["repaired"] == row["right"]


def test_words_that_nobody_knows_and_units_without_one_word_are_said(given):
    with pytest.raises(UserError, match="Nobody knows which pictures of `planted` show `green`"):
        experiment(first=("red", "green")).run(given)
    with pytest.raises(UserError, match="No unit is explained by one of the words alone"):
        experiment(first=("blue",), second=("circle",)).run(given)
