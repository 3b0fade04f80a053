import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuronx.errors import UserError
from neuronx.methods.milan.networks import Specials, Vocabulary, tokens


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("black-and-white", "black - and - white"),
        ("people's", "people 's"),
        ("top/bottom", "top / bottom"),
        ("  The Dog,\n\tand THE cat.  ", "the dog , and the cat ."),
        ("a person wearing a facemask", "a person wearing a facemask"),
        (" \n ", ""),
    ],
)
def test_tokens_are_spacys_in_lower_case(text, expected):
    assert tokens(text) == expected.split()


def test_words_come_by_frequency_then_by_first_appearance():
    vocabulary = Vocabulary.build([["b a", "c a"], "c d"])
    assert vocabulary.words == ("a", "c", "b", "d")
    assert vocabulary.specials == Specials(start=4, stop=5, pad=6, unknown=7)
    assert vocabulary.specials.size == 8


def test_texts_become_ids_with_stop_pads_and_unknown_words():
    vocabulary = Vocabulary.build(["the dog , the cat"])
    the, dog, comma, cat = (vocabulary.words.index(word) for word in ("the", "dog", ",", "cat"))
    stop, pad, unknown = vocabulary.specials[1:]
    ids = vocabulary.index(["the dog, the cat", "The zebra", ""])
    assert ids.tolist() == [
        [the, dog, comma, the, cat, stop],
        [the, unknown, stop, pad, pad, pad],
        [stop, pad, pad, pad, pad, pad],
    ]
    assert ids.dtype == torch.int64
    assert vocabulary.index(["the dog, the cat"], length=2).tolist() == [[the, dog, stop]]
    assert vocabulary.index([]).shape == (0, 1)


def sentence(text):
    words = text.split()
    vocabulary = Vocabulary(tuple(dict.fromkeys(words)))
    return vocabulary.sentence([vocabulary.words.index(word) for word in words])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the white - haired dog , white . the dog .", "The white-haired dog, white. The dog."),
        ("people 's faces", "People 's faces"),
        ("dogs ; cats : birds", "Dogs; cats: birds"),
        ("a dog . cats", "A dog. Cats"),
    ],
)
def test_ids_become_sentences(text, expected):
    assert sentence(text) == expected


def test_a_sentence_ends_at_the_first_stop_and_has_no_special_tokens():
    vocabulary = Vocabulary(("dogs", "cats"))
    start, stop, pad, unknown = vocabulary.specials
    assert vocabulary.sentence([start, 0, unknown, 1, pad, stop, 0]) == "Dogs cats"
    assert vocabulary.sentences(torch.tensor([[stop, 0], [1, stop]])) == ("", "Cats")


@given(st.lists(st.sampled_from(["red", "dogs", "of", "cats", "a"]), max_size=6))
def test_plain_words_come_back_as_they_went(words):
    vocabulary = Vocabulary.build(["red dogs of cats a"])
    text = " ".join(words)
    assert vocabulary.sentence(vocabulary.index([text])[0]) == text.capitalize()


def test_a_vocabulary_needs_distinct_words():
    with pytest.raises(UserError, match="has no words"):
        Vocabulary.build(["", " "])
    with pytest.raises(UserError, match="`dog` more than once"):
        Vocabulary(("dog", "cat", "dog"))


def test_real_descriptions_have_their_tokens_counted(shared):
    import csv

    with (shared / "data/published/milannotations/resnet152_imagenet.csv").open() as file:
        texts = [row["summary"] for row in csv.DictReader(file)][:600]
    vocabulary = Vocabulary.build(texts)
    counts = [sum(tokens(text).count(word) for text in texts) for word in (vocabulary.words[0], vocabulary.words[1])]
    assert counts[0] >= counts[1] > 100
    assert vocabulary.specials.unknown not in vocabulary.index(texts)
