import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuronx.errors import UserError
from neuronx.metrics.agreement import agreement
from neuronx.metrics.captions import bleu, normalised, rouge, score_captions, words
from neuronx.metrics.constants import best_constant, constant_captions, nearest_units

SAID = [
    ["red circles on grass", "Red, round things.", "circles"],
    ["the tops of trees and skies"],
    ["black-and-white dogs, no. 12", "dogs' heads."],
]


def test_the_same_words_score_one_and_other_words_nothing():
    perfect = score_captions(["Red circles on grass.", "the tops of trees and skies", "dogs' heads"], SAID)
    assert perfect.bleu == pytest.approx((1, 1, 1, 1))
    assert 0.5 < perfect.rouge1 < 1, "each caption is compared with every reference of its unit"
    nothing = score_captions(["zebra"] * 3, SAID)
    assert nothing.bleu == (0, 0, 0, 0) and nothing.rouge1 == nothing.rougel == 0


def test_bleu_is_that_of_torchmetrics_with_its_own_tokenizer():
    from torchmetrics.functional.text import sacre_bleu_score

    captions = ["red circles on the grass", "tops of trees, and skies", "black-and-white dogs, no. 12"]
    low = [[normalised(text) for text in given] for given in SAID]
    for n, value in enumerate(bleu(captions, low), start=1):
        assert value == pytest.approx(float(sacre_bleu_score(captions, low, n_gram=n)), abs=1e-6)


def test_words_are_those_of_mteval():
    assert words("cat's, black-white 3.5 a/b (x)") == ["cat's", ",", "black-white", "3.5", "a", "/", "b", "(", "x", ")"]


def test_all_references_count_however_many_each_unit_has():
    few, many = [["red dots"], ["blue dots"]], [["red dots"], ["blue dots", "a sky", "green grass"]]
    assert bleu(["red dots", "green grass"], few)[0] == 0.5
    assert bleu(["red dots", "green grass"], many)[0] == 1


def test_units_without_descriptions_do_not_count():
    assert score_captions(["x", "red dots"], [[], ["red dots"]]) == score_captions(["red dots"], [["red dots"]])
    assert score_captions(["", "red dots"], [["a"], ["red dots"]]).n == 2


def test_rouge_of_a_known_pair():
    one, two, longest = rouge(["red circle on a square"], [["red square on a circle"]])
    assert (one, two, longest) == pytest.approx((1.0, 0.25, 0.6))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.text("ab c.", min_size=1, max_size=12), max_size=3), min_size=1, max_size=5))
def test_the_best_constant_is_the_best_by_bleu(said):
    texts = [normalised(text) for unit in said for text in unit]
    if not texts:
        with pytest.raises(UserError):
            best_constant(texts, said)
        return
    low = [[normalised(text) for text in unit] for unit in said if unit]
    values = {text: bleu([text] * len(low), low)[-1] for text in texts}
    assert values[best_constant(texts, said)] == pytest.approx(max(values.values()), abs=1e-6)


def test_people_who_agree_agree_and_others_do_not():
    same = agreement([["red dots on grass"] * 3, ["the blue sky at night"] * 2, ["alone"]])
    assert same["people"].bleu == pytest.approx((1, 1, 1, 1)) and same["people"].n == 5
    assert same["people, of another unit"].bleu[0] == 0
    assert same['always "depictions"'].bleu[0] == 0
    with pytest.raises(UserError, match="described twice"):
        agreement([["alone"], []])


def test_agreement_leaves_each_person_out_in_turn():
    rng = random.Random(0)
    said = [[" ".join(rng.choices("abcdef", k=5)) for _ in range(rng.randint(2, 4))] for _ in range(6)]
    folds = [(text, given[:i] + given[i + 1 :]) for given in said for i, text in enumerate(given)]
    assert agreement(said)["people"] == score_captions([text for text, _ in folds], [rest for _, rest in folds])


def test_constant_captions_are_named_after_what_they_say():
    training = [["red dots"], ["red dots", "sky"], ["grass"]]
    assert constant_captions(["red dots"], training)['always "red dots"'] == "red dots"


def test_neighbours_are_the_units_of_like_features():
    training = torch.tensor([[10.0, 1, 0], [10, 0, 1], [10, 1, 1]])
    features = torch.stack([training[2], training[0]])
    assert nearest_units(features, training).tolist() == [2, 0]
    exemplars = features[:, None].expand(-1, 4, -1)
    assert nearest_units(exemplars, training[:, None].expand(-1, 4, -1)).tolist() == [2, 0]
    with pytest.raises(UserError, match="neighbours"):
        nearest_units(features, training[:, :2])


def test_captions_must_fit_their_units():
    with pytest.raises(UserError, match="1 captions for the descriptions of 2 units"):
        score_captions(["a"], [["a"], ["b"]])
    with pytest.raises(UserError, match="None of the units"):
        score_captions(["a"], [[]])
