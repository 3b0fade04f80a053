import oracles_shapes as oracle
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuronx.world.pictures import words
from neuronx.world.pictures.render import render_masks
from neuronx.world.pictures.scene import COLOUR_FAMILIES, SHAPE_FAMILIES, sample
from neuronx.world.pictures.words import (
    BACKGROUNDS,
    CLASS_NAMES,
    COLOURS,
    CONCEPTS,
    DISTRACTORS,
    HIERARCHY,
    NUMBERS,
    PLACES,
    SHAPES,
    SIZES,
    TEXTURES,
    TRUTH,
    captions,
    concept_masks,
    labels,
    presence,
)

VOCABULARY = (*SHAPES, *COLOURS, *TEXTURES, *SIZES, *PLACES, *SHAPE_FAMILIES, *COLOUR_FAMILIES, *BACKGROUNDS, *NUMBERS)


@pytest.fixture(scope="module")
def scenes():
    return sample(21, torch.arange(3000))


def test_a_thousand_phrases_and_three_hundred_distractors():
    assert len(CONCEPTS) == len(set(CONCEPTS)) >= 1300
    assert len(DISTRACTORS) == len(set(DISTRACTORS)) == 300
    assert set(TRUTH) - set(CONCEPTS) == set()
    assert {len(c.split()) for c in CONCEPTS} >= {1, 2, 3}
    assert all(c == c.lower().strip() for c in CONCEPTS)


def test_distractors_are_never_true_and_the_rest_sometimes():
    true = presence(sample(22, torch.arange(12000)), CONCEPTS).sum(0)
    assert (true[-300:] == 0).all()
    assert (true[:-300] > 0).all()


def test_presence_agrees_with_the_slow_check(scenes):
    phrases = CONCEPTS[:60] + CONCEPTS[60::7]
    found = presence(scenes[:150], phrases)
    for row in range(150):
        assert found[row].tolist() == [oracle.presence(scenes, row, phrase) for phrase in phrases]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.sampled_from((*VOCABULARY, "on", "the")), min_size=1, max_size=4), min_size=1, max_size=3))
def test_any_phrase_agrees_with_the_slow_check(parts):
    phrase = " and ".join(" ".join(part) for part in parts)
    scenes = sample(23, torch.arange(25))
    assert presence(scenes, [phrase])[:, 0].tolist() == [oracle.presence(scenes, row, phrase) for row in range(25)]


def test_one_object_must_fit_the_whole_phrase(scenes):
    crossed = (scenes.colour[:, 0] == 0) & (scenes.shape[:, 1] == 1) & (scenes.shape[:, 0] != 1)
    crossed &= scenes.colour[:, 1] != 0
    crossed &= ~((scenes.colour[:, 2] == 0) & (scenes.shape[:, 2] == 1))
    some = scenes[crossed]
    assert len(some) > 0
    found = presence(some, [f"{COLOURS[0]} {SHAPES[1]}", f"{COLOURS[0]} and {SHAPES[1]}"])
    assert not found[:, 0].any() and found[:, 1].all()


@pytest.mark.parametrize("phrase", ["violin", "red violin", "", "shape", "on the", "redcircle", "red and", "no circle"])
def test_what_says_nothing_is_true_nowhere(scenes, phrase):
    assert not presence(scenes[:200], [phrase]).any()


def test_writing_does_not_matter(scenes):
    same = presence(scenes, ["warm colour", "Warm_Colour", "a warm colour"])
    assert same[:, 0].any() and (same == same[:, :1]).all()


def test_the_hierarchy_covers_every_shape_and_colour():
    assert set(SHAPES) | set(COLOURS) <= set(HIERARCHY)
    assert len(HIERARCHY["red"]) == len(SHAPES) and len(HIERARCHY["star"]) == len(COLOURS)
    assert {CLASS_NAMES[i] for i in HIERARCHY["red"]} == {f"red {shape}" for shape in SHAPES}
    assert len(HIERARCHY["warm colour"]) == 4 * len(SHAPES)
    assert all(0 <= i < len(CLASS_NAMES) for classes in HIERARCHY.values() for i in classes)


def test_superclasses_of_the_label_are_present(scenes):
    names = tuple(HIERARCHY)
    found = presence(scenes, (*CLASS_NAMES, *names))
    label = labels(scenes)
    rows = torch.arange(len(scenes))
    assert found[rows, label].all()
    for column, name in enumerate(names, len(CLASS_NAMES)):
        member = torch.isin(label, torch.tensor(HIERARCHY[name]))
        assert found[member, column].all(), name


def test_masks_agree_with_presence_and_pixels(scenes):
    some = scenes[:120]
    ids = render_masks(some)
    masks = concept_masks(some, ids, TRUTH)
    assert masks.shape == (120, len(TRUTH), 64, 64) and masks.dtype == torch.bool
    assert torch.equal(masks.flatten(2).any(2), presence(some, TRUTH))
    column = TRUTH.index("red")
    for row in range(120):
        red = [slot + 1 for slot in range(3) if some.colour[row, slot] == COLOURS.index("red")]
        assert torch.equal(masks[row, column], torch.isin(ids[row], torch.tensor(red, dtype=torch.uint8)))
    for background in BACKGROUNDS:
        there = some.background == BACKGROUNDS.index(background)
        assert torch.equal(masks[there, TRUTH.index(background)], (ids == 0)[there])


def test_masks_of_compound_phrases(scenes):
    some = scenes[scenes.count == 2][:50]
    ids = render_masks(some)
    names = [CLASS_NAMES[i] for i in labels(some).tolist()]
    for row, name in enumerate(names[:10]):
        second = f"{COLOURS[some.colour[row, 1]]} {SHAPES[some.shape[row, 1]]}"
        phrases = [f"{name} and {second}", f"{name} and {second} and violin", "two objects", "two circle"]
        both, never, number, _ = concept_masks(some[[row]], ids[[row]], phrases)[0]
        assert torch.equal(both, ids[row] > 0) and not never.any() and not number.any()


def test_captions_are_true_and_name_the_factors(scenes):
    sentences = captions(scenes)
    assert presence(scenes[:400], sentences[:400]).diagonal().all()
    for row in range(300):
        found, scene = oracle.objects(scenes, row)
        said = set(sentences[row].replace(",", "").split())
        assert scene & set(BACKGROUNDS) <= said
        for each in found:
            assert each & (set(COLOURS) | set(SHAPES) | set(TEXTURES[1:])) <= said
    assert len(set(sentences)) > 2900
    assert captions(scenes[5:9]) == sentences[5:9]


def test_captions_are_true_of_few_others(scenes):
    assert presence(scenes[:500], captions(scenes[:500])).float().mean() < 0.01


def test_public_names_are_there():
    assert all(hasattr(words, name) for name in words.__all__)
