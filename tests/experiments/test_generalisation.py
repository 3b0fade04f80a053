from collections import Counter

import pytest
import torch

from neuronx.errors import UserError
from neuronx.experiments.generalisation import CONSTANT, NEAREST, generalisation, outcome_table, write_outcomes
from neuronx.experiments.learned import as_caption, captions_of, compare_labels
from neuronx.experiments.splits import LEAVE_ONE_OUT, WITHIN, splits
from neuronx.types import Explanation, Unit


def parrot(units):
    """A captioner that repeats the description it heard most often, and mumbles it without PMI."""

    def fit(training, seed):
        most = Counter(text for i in training for text in units.annotations[i]).most_common(1)[0][0]
        return lambda asked: {"pmi": [most] * len(asked), "likelihood": [most.split()[0]] * len(asked)}

    return fit


def test_every_experiment_splits_units_into_two(units):
    found = splits(units)
    assert Counter(split.experiment for split in found) == {
        WITHIN: 6,
        LEAVE_ONE_OUT: 6,
        "across architectures": 2,  # nobody looked at a transformer
        "across datasets": 2,
        "across tasks": 2,
    }
    for split in found:
        assert not set(split.training) & set(split.testing) and split.training and split.testing
    within = found[0]
    assert len(within.testing) == 1 and len(within.training) == 5
    assert {units.model(i) for i in within.training + within.testing} == {within.name}
    out = next(split for split in found if split.experiment == LEAVE_ONE_OUT)
    assert {units.model(i) for i in out.testing} == {"alexnet/imagenet"} and len(out.training) == 30


def test_splits_are_those_of_their_seed(units):
    assert splits(units, [WITHIN], seed=1) == splits(units, [WITHIN], seed=1) != splits(units, [WITHIN], seed=2)


def test_splits_that_cannot_be_are_refused(units):
    with pytest.raises(UserError, match="hold_out"):
        splits(units, hold_out=1)
    with pytest.raises(UserError, match="across dataset"):
        splits(units, ["across dataset"])
    one = units.subset([i for i in range(len(units)) if units.model(i) == "biggan/imagenet"])
    with pytest.raises(UserError, match="none of"):
        splits(one, ["across tasks"])


def test_captions_are_scored_beside_baselines(units, tmp_path):
    chosen = [split for split in splits(units) if split.name in ("alexnet/imagenet", "cls → gen")]
    features = torch.eye(6).repeat_interleave(6, 0)
    outcomes = generalisation(units, chosen, parrot(units), trials=2, features=lambda rows: features[list(rows)])
    assert [one.method for one in outcomes[:4]] == ["pmi", "pmi", "likelihood", "likelihood"]
    best = {(one.split.name, one.method): one.scores.bleu[3] for one in outcomes if one.example != "depictions"}
    assert best["alexnet/imagenet", "pmi"] == 1 == best["alexnet/imagenet", NEAREST]
    assert best["cls → gen", "pmi"] < 0.5 and best["cls → gen", "likelihood"] == 0
    assert [one.example for one in outcomes if one.method == CONSTANT and one.split is chosen[0]] == [
        "depictions",
        "red circles on grass",
    ]
    text = outcome_table(outcomes)
    assert "within network" in text and 'always "depictions"' in text and "100.0 ± 0.0" in text
    assert text.count("cls → gen") == 1
    lines = write_outcomes(tmp_path / "generalisation.csv", outcomes).read_text().splitlines()
    assert len(lines) == 1 + len(outcomes) and lines[1].startswith("within network,alexnet/imagenet,pmi,0,1,5,")


def test_labels_become_words():
    assert as_caption("Street-s") == "street" and as_caption("swimming_pool-outdoor") == "swimming pool-outdoor"
    assert as_caption("water OR (river-s AND NOT blue_sky)") == "water or river and not blue sky"


def test_labels_of_other_methods_stand_in_the_same_table(units):
    split = next(split for split in splits(units, [LEAVE_ONE_OUT]) if split.testing[0] == 0)
    labels = [Explanation(Unit(layer, u), (("red_circles", 1.0),)) for layer in ("conv1", "conv2") for u in range(2)]
    outcomes = compare_labels(units, split, parrot(units)(split.training, 0)(split.testing), {"net_dissect": labels})
    found = {one.method: one.scores for one in outcomes}
    assert list(found) == ["pmi", "likelihood", "net_dissect"] and found["net_dissect"].n == 6
    assert found["net_dissect"].rouge1 > found["likelihood"].rouge1
    assert captions_of(labels, units, split.testing)[2] == ""
    with pytest.raises(UserError, match="say which"):
        captions_of(labels, units, split.training)
    with pytest.raises(UserError, match="layers named alike"):
        captions_of([Explanation(Unit("layer1", 0), (("x", 1.0),))], units, split.testing)
