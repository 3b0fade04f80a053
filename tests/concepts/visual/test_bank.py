"""Each feature of pictures is high on a made picture that shows it and low on one that does not."""

import pytest
import torch

from neuronx.concepts.visual.bank import FEATURES, Bank, VisualConcepts
from neuronx.concepts.visual.examples import dots, example, grating, noise, patch, plain
from neuronx.concepts.visual.planes import COLOURS, DIRECTIONS, Planes
from neuronx.data.in_memory import probe_of

VALUE = {feature.name: feature.value for feature in FEATURES}


def of(name, picture):
    return float(VALUE[name](Planes(picture[None])))


def test_there_are_114_features_with_words_of_their_own():
    assert len(FEATURES) == 114
    words = [word for feature in FEATURES for word in (feature.name, feature.little)]
    assert len({word.casefold() for word in words}) == 228
    assert all(feature.definition and feature.group for feature in FEATURES)


@pytest.mark.parametrize("name", VALUE)
def test_a_picture_that_shows_it_has_more_of_it(name):
    shows, lacks = example(name)
    assert of(name, shows) > of(name, lacks) + 0.02


@pytest.mark.parametrize("name", VALUE)
def test_its_example_ranks_high_among_all_examples(name):
    values = [of(name, example(other)[0]) for other in list(VALUE)[::7]]
    assert of(name, example(name)[0]) >= torch.tensor(values).median()


@pytest.mark.parametrize("number", range(len(DIRECTIONS)))
def test_directions_are_told_apart(number):
    picture = grating(DIRECTIONS[number], 4.5)
    energies = [of(f"fine {direction} lines", picture) for direction in DIRECTIONS]
    stripes = [of(f"{direction} stripes", grating(DIRECTIONS[number], 6)) for direction in DIRECTIONS]
    assert torch.tensor(energies).argmax() == torch.tensor(stripes).argmax() == number


def test_scales_are_told_apart():
    for place, wavelength in enumerate((4.5, 9, 18)):
        picture = grating("vertical", wavelength)
        found = [of(f"{scale} vertical lines", picture) for scale in ("fine", "medium", "coarse")]
        assert torch.tensor(found).argmax() == place


@pytest.mark.parametrize("colour", COLOURS)
def test_a_plain_picture_is_of_its_colour_alone(colour):
    shares = Planes(plain(colour)[None]).shares[0]
    assert shares.argmax() == COLOURS.index(colour) and shares.max() == 1


@pytest.mark.parametrize("side", [32, 64, 224])
@pytest.mark.parametrize("light", [0.0, 0.5, 1.0])
def test_one_colour_and_small_pictures_are_finite(side, light):
    bank = Bank()
    assert bank(torch.full((2, 3, side, side), light)).isfinite().all()
    assert bank(torch.rand(5, 3, side, side)).isfinite().all()


def test_pictures_do_not_depend_on_those_beside_them():
    pictures = torch.stack([noise(seed=seed) for seed in range(5)])
    together = Bank()(pictures)
    alone = torch.cat([Bank()(picture[None]) for picture in pictures])
    assert torch.allclose(together, alone, atol=1e-5)


def test_places_lie_on_what_is_shown():
    place = next(feature.place for feature in FEATURES if feature.name == "red")
    where = place(Planes(patch("red", size=100)[None]))[0]
    assert where[62:162, 62:162].all() and where.sum() == 100 * 100


def test_a_lattice_of_dots_is_a_grid():
    assert of("a grid or mesh", dots(0.9, 0.2, 2, 8)) > of("a grid or mesh", noise(1)) + 0.02


def test_complements_add_to_one_and_judge_as_they_explain(trainer):
    pictures = (torch.stack([example(name)[0] for name in list(VALUE)[:40]]) * 255).to(torch.uint8)
    probe = probe_of(pictures)
    visual = VisualConcepts()
    found = visual.concepts(probe, trainer)
    assert found.scores.shape == (40, 228) and found.scores.min() == 0 and found.scores.max() == 1
    index = {name: place for place, name in enumerate(found.names)}
    green, little = found.scores[:, index["green"]], found.scores[:, index["little green"]]
    assert torch.allclose(green + little, torch.ones(40))
    judged = visual.judge(["Little Green", "zebra"], probe, trainer)
    assert judged.known.tolist() == [True, False]
    assert torch.equal(judged.scores(torch.arange(40))[:, 0], little)
