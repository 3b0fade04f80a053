import hashlib

import pytest
import torch

from neuronx.targets.latents import mix, pick, uniforms
from neuronx.world.pictures.probe import TRAINED
from neuronx.world.pictures.scene import (
    BACKGROUNDS,
    BANK,
    CLASS_NAMES,
    COLOURS,
    POOL,
    PROBE,
    PROBE_OF_PLACES,
    SHAPES,
    SIZES,
    TEXTURES,
    sample,
)
from neuronx.world.pictures.words import labels

FIELDS = ("shape", "colour", "texture", "size", "place", "background", "turn", "window")


@pytest.fixture(scope="module")
def scenes():
    return sample(5, torch.arange(20000))


def test_mix_is_splitmix64():
    # The first outputs of the published generator seeded with 1234567.
    golden = 0x9E3779B97F4A7C15
    expected = (6457827717110365317, 3203168211198807973, 9817491932198370423)
    for step, value in enumerate(expected):
        state = (1234567 + step * golden) % 2**64
        word = torch.tensor(state - 2**64 if state >= 2**63 else state)
        assert int(mix(word)) % 2**64 == value


def test_uniforms_are_uniform_and_belong_to_the_index():
    draws = uniforms(3, torch.arange(4000), 50)
    assert draws.min() >= 0 and draws.max() < 1
    assert abs(draws.mean() - 0.5) < 0.005 and abs(draws.std() - 12**-0.5) < 0.005
    assert (torch.corrcoef(draws.T) - torch.eye(50)).abs().max() < 0.08
    assert torch.equal(uniforms(3, torch.tensor([17, 3999]), 9), draws[[17, 3999], :9])
    assert not torch.equal(uniforms(4, torch.arange(4000), 50), draws)


def test_pick_never_reaches_n():
    assert pick(torch.tensor([0.0, 1 - 2**-24]), 12).tolist() == [0, 11]


@pytest.mark.parametrize("size", [1, 7, 64, 250])
def test_a_scene_does_not_depend_on_its_batch(scenes, size):
    for start in (0, 300):
        part = sample(5, torch.arange(start, start + size))
        for name in (*FIELDS, "x", "y", "radius", "tint", "light", "voice"):
            assert torch.equal(getattr(part, name), getattr(scenes, name)[start : start + size])


def test_factors_are_pinned():
    """Trained weights depend on these very pictures; a change here needs new ones."""
    first = sample(PROBE, torch.arange(100))
    numbers = torch.cat([getattr(first, name).flatten() for name in FIELDS])
    assert (
        hashlib.sha256(numbers.numpy().tobytes()).hexdigest()
        == "0a97d619b934bd0459b7d04600599140b510a64505ea5b267a51180d66d61a16"
    )
    assert (
        hashlib.sha256(torch.cat([first.x, first.y, first.radius]).numpy().tobytes()).hexdigest()
        == "c5912768d17ed742ad11612c4341ac980544a8d2415def4b91b30819876293d3"
    )


def test_there_is_enough_of_everything():
    assert len(SHAPES) >= 10 and len(COLOURS) >= 12 and len(TEXTURES) >= 4 and len(BACKGROUNDS) >= 6
    assert len(CLASS_NAMES) >= 120 and len(set(CLASS_NAMES)) == len(CLASS_NAMES)


def test_values_of_each_factor_are_equally_frequent(scenes):
    present = scenes.shape >= 0
    for name, n in (("shape", len(SHAPES)), ("colour", len(COLOURS)), ("texture", len(TEXTURES))):
        values = getattr(scenes, name)
        assert torch.equal(values >= 0, present)
        counts = values[present].bincount(minlength=n).float()
        assert (counts / counts.mean() - 1).abs().max() < 0.06
    assert (scenes.background.bincount().float() / 20000 * len(BACKGROUNDS) - 1).abs().max() < 0.06
    assert 0.4 < (scenes.count == 1).float().mean() < 0.5 and scenes.count.unique().tolist() == [1, 2, 3]


def test_classes_are_balanced(scenes):
    counts = labels(scenes).bincount(minlength=len(CLASS_NAMES)).float()
    # Chi squared with 143 degrees of freedom: 200 has a chance of .1 %.
    assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() < 200


def test_the_class_is_that_of_the_main_object(scenes):
    names = [CLASS_NAMES[i] for i in labels(scenes[:50]).tolist()]
    expected = [f"{COLOURS[c]} {SHAPES[s]}" for c, s in zip(scenes.colour[:50, 0], scenes.shape[:50, 0], strict=True)]
    assert names == expected


def test_the_main_object_is_clearly_the_largest(scenes):
    assert (scenes.shape[:, 0] >= 0).all()
    for slot in (1, 2):
        there = scenes.shape[:, slot] >= 0
        assert (scenes.radius[there, 0] / scenes.radius[there, slot]).min() > 1.2
        assert (scenes.size[there, 0] > scenes.size[there, slot]).all()
    assert scenes.size.max() == len(SIZES) - 1


def test_objects_seldom_overlap_and_stay_inside(scenes):
    present = scenes.shape >= 0
    for centre in (scenes.x, scenes.y):
        assert (centre - scenes.radius)[present].min() > 1 and (centre + scenes.radius)[present].max() < 63
    for a, b in ((0, 1), (0, 2), (1, 2)):
        both = present[:, a] & present[:, b]
        apart = torch.hypot(scenes.x[:, a] - scenes.x[:, b], scenes.y[:, a] - scenes.y[:, b])
        closer = (apart < 0.85 * (scenes.radius[:, a] + scenes.radius[:, b]))[both]
        assert closer.float().mean() < 0.1


def test_no_two_parts_share_pictures():
    seeds = [PROBE, PROBE_OF_PLACES, BANK, POOL, *(seed for pair in TRAINED.values() for seed in pair)]
    assert len(set(seeds)) == len(seeds)
    one, other = (sample(seed, torch.arange(500)) for seed in (PROBE, TRAINED["shapes_resnet"][0]))
    assert not torch.isin(one.x[:, 0], other.x[:, 0]).float().mean() > 0.1
