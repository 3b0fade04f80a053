"""Scenes that change in one attribute, or show a phrase."""

import torch

from neuronx.world.pictures.changes import FACTORS, Drawing, wanted
from neuronx.world.pictures.scene import SHAPES, SIDE
from neuronx.world.pictures.words import presence

DRAWING = Drawing()


def test_a_group_of_the_bank_differs_in_its_factor_only():
    bank = DRAWING.bank(4)
    scenes = bank.images.scenes
    assert len(bank.images) == 4 * sum(FACTORS.values()) == 4 * 51
    assert len(bank.group.unique()) == 4 * len(FACTORS) and torch.equal(bank.group % 4, bank.scene)
    for number, (factor, values) in enumerate(FACTORS.items()):
        for scene in range(4):
            own = scenes[bank.group == 4 * number + scene]
            assert len(own) == values
            for other in ("shape", "colour", "texture", "size", "place", "background"):
                seen = getattr(own, other)
                seen = seen if other == "background" else seen[:, 0]
                assert len(seen.unique()) == (values if other == factor else 1)
            assert len(own.count.unique()) == (values if factor == "number" else 1)


def test_objects_stay_inside_the_picture():
    scenes = DRAWING.bank(20).images.scenes
    there = scenes.shape >= 0
    for centre in (scenes.x, scenes.y):
        assert (centre - scenes.radius)[there].min() > 0 and (centre + scenes.radius)[there].max() < SIDE


def test_contrasts_show_a_phrase_and_then_do_not():
    concepts = ["large red circle", "elephant", "two objects", "warm star on grass", "left"]
    made = DRAWING.contrasts(concepts, 6)
    assert made.about.unique().tolist() == [0, 2, 3, 4]
    truth = presence(made.images.scenes, concepts)[torch.arange(len(made.about)), made.about]
    pairs = [truth[made.group == group].tolist() for group in made.group.unique()]
    assert all(len(pair) == 2 and pair[0] for pair in pairs)
    # Another object may still show a single word.
    assert sum(not hidden for _, hidden in pairs) >= 0.8 * len(pairs)


def test_phrases_are_shown():
    concepts = ["striped blue heart in the centre", "three objects", "night", "nonsense"]
    images, about = DRAWING.shows(concepts, 5)
    assert about.bincount().tolist() == [5, 5, 5]
    assert presence(images.scenes, concepts)[torch.arange(15), about].all()


def test_words_allow_values_and_words_that_exclude_each_other_any_of_theirs():
    assert wanted("big discs") == {"size": (2,), "shape": (SHAPES.index("circle"),)}
    assert wanted("top left") == {"place": (0,)}
    assert wanted("a red circle and a blue circle")["colour"] == (0, 6)
    assert wanted("elephant") == {}


def test_nothing_to_draw_makes_nothing():
    assert len(DRAWING.contrasts([], 8).images) == 0 and len(DRAWING.shows(["elephant"], 8)[0]) == 0


def test_other_seeds_draw_other_pictures_and_fingerprints_tell():
    one, other = DRAWING.bank(2).images, Drawing(seed=3).bank(2).images
    assert one.fingerprint != other.fingerprint and one.fingerprint == DRAWING.bank(2).images.fingerprint
    assert one.fingerprint != DRAWING.pool(102).fingerprint
