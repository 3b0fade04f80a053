import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuronx.world.annotations.sharing import FACTORS, words
from neuronx.world.clip import PAD, UNKNOWN, WordTokenizer, vocabulary
from neuronx.world.pictures.scene import sample
from neuronx.world.pictures.words import CONCEPTS, captions
from neuronx.world.training.contrastive import SENTENCE_WORDS

TOKENIZER = WordTokenizer(("blue", "red", "square"), context=5)


def test_words_get_their_numbers_the_end_mark_the_highest():
    assert TOKENIZER(["red square", "blue"]).tolist() == [[3, 4, 5, 0, 0], [2, 5, 0, 0, 0]]
    assert TOKENIZER.size == 6


def test_case_articles_and_punctuation_do_not_matter():
    assert torch.equal(TOKENIZER("A Red, square!"), TOKENIZER(["red square"]))


def test_unknown_words_are_left_out_and_the_empty_phrase_is_only_its_end():
    assert torch.equal(TOKENIZER("crimson square"), TOKENIZER("square"))
    assert TOKENIZER(["crimson", "", "the"]).tolist() == [[UNKNOWN, 5, PAD, PAD, PAD], *[[5, PAD, PAD, PAD, PAD]] * 2]


def test_plurals_and_everyday_words_are_read_as_those_of_the_world():
    tokenizer = WordTokenizer(vocabulary(CONCEPTS + SENTENCE_WORDS))
    for said, meant in (
        ("Mostly gray hoops on a lawn", "grey ring on grass"),
        ("crosses", "cross"),
        ("a trio of spiky things", "three pointed object"),
        ("two objects", "two objects"),
    ):
        assert torch.equal(tokenizer(said), tokenizer(meant))


@pytest.mark.parametrize("factor", [one for one in FACTORS if not one.endswith("edge")])
def test_people_may_say_every_factor_of_the_world(factor):
    tokenizer = WordTokenizer(vocabulary(CONCEPTS + SENTENCE_WORDS))
    own = tokenizer(factor)[0, 0]
    assert own != UNKNOWN
    for said in words(factor):
        assert own in tokenizer(said) and own in tokenizer(said + "s")


def test_long_phrases_are_cut_and_keep_the_end_mark():
    assert TOKENIZER("red " * 9).tolist() == [[3, 3, 3, 3, 5]]


@given(st.lists(st.text(max_size=60), min_size=1, max_size=5))
def test_any_text_becomes_numbers_of_the_vocabulary_with_one_end_mark(texts):
    tokens = TOKENIZER(texts)
    assert tokens.shape == (len(texts), 5) and tokens.dtype == torch.int64
    assert tokens.min() >= 0 and tokens.max() < TOKENIZER.size
    assert ((tokens == TOKENIZER.size - 1).sum(1) == 1).all()


def test_the_worlds_vocabulary_knows_every_concept_and_caption():
    tokenizer = WordTokenizer(vocabulary(CONCEPTS + SENTENCE_WORDS))
    assert not (tokenizer([*CONCEPTS, *captions(sample(1, torch.arange(300)))]) == UNKNOWN).any()
    tokens = tokenizer(CONCEPTS)
    assert len(tokens.unique(dim=0)) == len(CONCEPTS)
