"""From masks to words: planted regions are described by what they share, and by nothing else."""

import pytest
import torch

from neuronx.world.annotations.describe import describe
from neuronx.world.annotations.pixels import of_scenes
from neuronx.world.annotations.sharing import FACTORS, KINDS, base_rates, named, shared, sharing
from neuronx.world.pictures.scene import BACKGROUNDS, COLOURS, SHAPES, TEXTURES, sample

K = 15


@pytest.fixture(scope="module")
def world():
    seen = of_scenes(sample(7, torch.arange(1500)))
    return seen, base_rates({kind: maps[:300] for kind, maps in seen.items()})


def planted(world, where, seed=0):
    """A unit that fires where `where` (N, H, W) says, on the first pictures in which it does at least a little."""
    seen, base = world
    rows = (where.flatten(1).sum(1) > 30).nonzero().squeeze(1)[:K]
    of = sharing(where[rows][None], rows[None], seen)
    found = shared(of, 0, base)
    return [one.factor.name for one in found], describe(of, 0, found, f"unit {seed}"), found


def test_red_things_are_described_as_red(world):
    names, said, found = planted(world, world[0]["colour"] == COLOURS.index("red"))
    assert names[0] == "red" and found[0].share == 1 and 8 < found[0].lift < 20
    assert all(named("red", text) for text in said)
    assert not any(named(other, text) for text in said for other in (*COLOURS, *SHAPES, *BACKGROUNDS) if other != "red")


def test_two_factors_that_meet_are_one_phrase(world):
    seen = world[0]
    where = (seen["colour"] == COLOURS.index("blue")) & (seen["texture"] == TEXTURES.index("striped"))
    names, said, _ = planted(world, where)
    assert set(names[:2]) == {"blue", "striped"}
    assert sum("striped blue" in text for text in said) == 2 and all(named(names[0], text) for text in said)


def test_factors_that_do_not_meet_are_said_apart(world):
    seen = world[0]
    circle, red = seen["shape"] == SHAPES.index("circle"), seen["colour"] == COLOURS.index("red")
    plain = torch.arange(len(red))[:, None, None] % 2 == 0
    names, said, _ = planted(world, ((circle & ~red & plain) | (red & ~circle & ~plain)))
    assert not any("red circle" in text or "red disc" in text for text in said)
    assert set(names) <= {"red", "circle", "round", "warm"}


def test_the_ground_is_named_where_no_object_is(world):
    seen = world[0]
    names, said, _ = planted(world, (seen["background"] == BACKGROUNDS.index("grass")) & (seen["colour"] < 0))
    assert names[0] == "grass" and all(named("grass", text) for text in said)


def test_top_edges_are_seen(world):
    names, said, _ = planted(world, world[0]["edge"] == 0)
    assert names[0] == "top edge" and all(named("top edge", text) for text in said)
    assert named("top edge", "the top borders of things") and not named("top", said[0])


def test_nothing_is_claimed_of_random_regions(world):
    draw = torch.Generator().manual_seed(3)
    seen, base = world
    rows = torch.randint(1500, (40, K), generator=draw)
    corner = torch.randint(48, (40, K, 2), generator=draw)
    line = torch.arange(64)
    inside = (line >= corner[..., None]) & (line < corner[..., None] + 16)
    of = sharing(inside[:, :, 0, :, None] & inside[:, :, 1, None], rows, seen)
    found = [shared(of, unit, base) for unit in range(40)]
    assert sum(map(bool, found)) <= 6, "one or two of twenty factors by chance"
    silent = next(unit for unit in range(40) if not found[unit])
    assert not any(named(name, text) for text in describe(of, silent, [], "unit") for name in FACTORS)


def test_a_unit_that_never_fires_is_said_to_show_nothing(world):
    seen, base = world
    of = sharing(torch.zeros(1, K, 64, 64, dtype=torch.bool), torch.arange(K)[None], seen)
    assert shared(of, 0, base) == []
    assert "nothing" in describe(of, 0, [], "unit") and float(of.shares["colour"].sum()) == 0


def test_the_same_key_gives_the_same_words_and_others_vary(world):
    where = world[0]["colour"] == COLOURS.index("green")
    assert planted(world, where)[1] == planted(world, where)[1]
    said = {text for seed in range(30) for text in planted(world, where, seed)[1]}
    assert len(said) >= 8 and all(named("green", text) for text in said)


def test_every_factor_is_recognised_in_its_own_words_only_where_they_stand():
    assert sum(len(factor.members) > 1 for factor in FACTORS.values()) == 6 + 4
    assert set(factor.kind for factor in FACTORS.values()) == set(KINDS)
    for name, text in {"ring": "red hoops", "cross": "Crosses", "dotted": "spotted things", "two": "a pair"}.items():
        assert named(name, text)
    for name, text in {
        "ring": "a string",
        "sky": "risky",
        "warm": "lukewarm",
        "star": "start",
        "red": "hundred",
    }.items():
        assert not named(name, text)
