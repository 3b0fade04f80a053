"""The two versions of the world: what is common in each, and what their classes say."""

import pytest
import torch

from neuronx.errors import UserError
from neuronx.world.pictures.probe import WORLDS, ShapesProbe, world_of
from neuronx.world.pictures.scene import CLASS_NAMES, sample
from neuronx.world.pictures.words import labels, presence


@pytest.mark.parametrize("world", WORLDS.values(), ids=lambda world: world.name)
def test_every_picture_has_the_class_whose_name_is_true_of_it(world):
    scenes = sample(5, torch.arange(300), world.layouts)
    classes = world.classes(scenes)
    assert len(set(world.class_names)) == len(world.class_names) == world.values[0] * world.values[1]
    assert presence(scenes, world.class_names)[torch.arange(300), classes].all()
    for name, members in world.hierarchy.items():
        fits = presence(scenes, [name])[:, 0]
        assert fits[torch.isin(classes, torch.tensor(members))].all()


def test_places_have_small_objects_and_as_many_of_one_as_of_three():
    places, shapes = (sample(5, torch.arange(3000), world.layouts) for world in (WORLDS["places"], WORLDS["shapes"]))
    assert (places.size < 2).all() and (shapes.size == 2).any()
    assert (places.count.bincount()[1:] / 3000 - 1 / 3).abs().max() < 0.04
    assert ((places.size == places.size[:, :1]).sum(1) == 1).all(), "the main object is the only one of its size"


def test_the_probe_of_places_is_another_one():
    places, shapes = ShapesProbe(40, 8, world="places"), ShapesProbe(40, 8)
    assert places.name == "places" and shapes.name == "shapes" and places.fingerprint != shapes.fingerprint
    assert places.class_names == WORLDS["places"].class_names and shapes.class_names == CLASS_NAMES
    assert torch.equal(shapes.labels, labels(shapes.scenes))
    assert not torch.equal(places.load([0, 1]), shapes.load([0, 1]))
    assert torch.equal(places.scenes.background, shapes.scenes.background), "only the objects differ"


def test_another_world_does_not_exist():
    with pytest.raises(UserError, match="world"):
        world_of("place")
