"""Each feature of pictures is high on a made picture that shows it and low on one that does not."""

import pytest
import torch

from neuronx.concepts.seen import as_seen_by
from neuronx.concepts.visual.bank import FEATURES, Bank, VisualConcepts
from neuronx.concepts.visual.examples import dots, example, grating, noise, patch, plain
from neuronx.concepts.visual.planes import COLOURS, DIRECTIONS, Planes
from neuronx.data.in_memory import probe_of
from neuronx.targets.preprocess import Preprocess
from neuronx.targets.target import Target

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


@pytest.mark.parametrize("apart", [6, 8, 12, 16])
@pytest.mark.parametrize("light", [0.2, 0.9])
def test_a_lattice_of_dots_is_a_grid(apart, light):
    lattice = of("a grid or mesh", dots(light, 1.1 - light, apart / 4, apart))
    others = [*(noise(blur) for blur in (0, 1, 2, 4)), plain(), *(grating(d, 8) for d in DIRECTIONS)]
    assert lattice > 0.4 > 3 * max(of("a grid or mesh", other) for other in others)


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


def framed_red(n=12):
    """Grey pictures (n, 3, 64, 64) whose left quarter is red where n is even."""
    pictures = torch.full((n, 3, 64, 64), 128, dtype=torch.uint8)
    pictures[::2, :, :, :16] = torch.tensor([220, 20, 20], dtype=torch.uint8)[:, None, None]
    return pictures


def network(transform):
    return Target("net", torch.nn.Conv2d(3, 2, 3), transform, {"": "avg"})


def test_what_the_network_sees_is_looked_at(trainer):
    probe = probe_of(framed_red())
    red = VisualConcepts().vocabulary(probe).index("red")
    whole = as_seen_by(network(Preprocess(mean=(0.5,), std=(0.2,))), VisualConcepts())
    middle = as_seen_by(network(Preprocess(crop=32)), VisualConcepts())
    assert whole.concepts(probe, trainer).scores[:, red].tolist() == [1.0, 0.0] * 6
    assert not middle.concepts(probe, trainer).scores[:, red].any()
    chosen = VisualConcepts(transform={"crop": 32})
    assert as_seen_by(network(Preprocess()), chosen) is chosen
    assert as_seen_by(network(lambda picture: picture), VisualConcepts()) == VisualConcepts()
    assert as_seen_by(network(Preprocess()), "any other") == "any other"


def test_networks_of_one_crop_share_what_was_computed(trainer, monkeypatch):
    probe = probe_of(framed_red())
    one, other = (
        as_seen_by(network(Preprocess(crop=48, mean=(mean,), std=(0.2,))), VisualConcepts()) for mean in (0.2, 0.5)
    )
    first = one.concepts(probe, trainer).scores
    monkeypatch.setattr(Bank, "forward", lambda *_: pytest.fail("computed anew"))
    assert torch.equal(other.concepts(probe, trainer).scores, first)


def test_grey_pictures_of_one_channel_are_as_their_grey_copies():
    grey = torch.rand(2, 1, 64, 64)
    found = Bank()(grey)
    assert found.isfinite().all() and torch.equal(found, Bank()(grey.expand(-1, 3, -1, -1)))


def test_exact_repeats_and_whatever_precision():
    pictures = torch.rand(5, 3, 48, 48)
    first = Bank()(pictures)
    assert torch.equal(Bank()(pictures), first)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(Bank()(pictures), first)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_gpu_finds_the_same():
    pictures = torch.rand(5, 3, 224, 224)
    assert torch.allclose(Bank()(pictures.cuda()).cpu(), Bank()(pictures), atol=1e-3)
