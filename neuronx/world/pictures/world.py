"""The two versions of the world, one about objects, the other about places; and the seeds of all pictures.

The versions share all factors and the renderer. What differs is which scenes are common and what a classifier is asked.
"""

from dataclasses import dataclass

from torch import Tensor

from neuronx.errors import unknown
from neuronx.world.pictures.names import BACKGROUNDS, CLASS_NAMES, HIERARCHY, NUMBERS
from neuronx.world.pictures.scene import LAYOUTS, Layouts, Scenes
from neuronx.world.pictures.words import labels

_SMALL, _MEDIUM = range(2)
_WHERE = {"sky": "in the sky", "water": "on water", "night": "at night", "brick": "on brick"}


@dataclass(frozen=True)
class World:
    """Which scenes there are, and which classes they fall into.

    Attributes:
        name: "shapes" or "places".
        layouts: Sizes of the objects, and how often.
        class_names: One for each pair of two factors; class index = first * number of second values + second.
        factors: What the two are called.
        values: (number of first values, number of second values).
        hierarchy: Superclass -> its classes.
        about: What the classes say of a picture, for cards.
    """

    name: str
    layouts: Layouts
    class_names: tuple[str, ...]
    factors: tuple[str, str]
    values: tuple[int, int]
    hierarchy: dict[str, tuple[int, ...]]
    about: str

    def classes(self, scenes: Scenes) -> Tensor:
        """(B,) int64, the class of each scene."""
        if self.name == "places":
            return scenes.background * len(NUMBERS) + scenes.count - 1
        return labels(scenes)


def _objects(number: str) -> str:
    return f"{number} object" + "s" * (number != "one")


_PLACES = tuple(
    f"{_objects(number)} {_WHERE.get(background, f'on {background}')}"
    for background in BACKGROUNDS
    for number in NUMBERS
)
_KINDS = len(NUMBERS)
WORLDS = {
    "shapes": World(
        name="shapes",
        layouts=LAYOUTS,
        class_names=CLASS_NAMES,
        factors=("colour", "shape"),
        values=(12, 12),
        hierarchy=HIERARCHY,
        about="the colour and shape of a picture's main object",
    ),
    "places": World(
        name="places",
        # No large objects, and one, two or three equally often.
        layouts=(
            ((_MEDIUM,), 0.17),
            ((_SMALL,), 0.16),
            ((_MEDIUM, _SMALL), 0.33),
            ((_MEDIUM, _SMALL, _SMALL), 0.34),
        ),
        class_names=_PLACES,
        factors=("place", "number"),
        values=(len(BACKGROUNDS), _KINDS),
        hierarchy={
            **{place: tuple(range(i * _KINDS, (i + 1) * _KINDS)) for i, place in enumerate(BACKGROUNDS)},
            **{_objects(number): tuple(range(i, len(_PLACES), _KINDS)) for i, number in enumerate(NUMBERS)},
        },
        about="a picture's place and the number of objects in it",
    ),
}
"""Both by name."""


def world_of(name: str) -> World:
    """The version of the world of a name. Raises UserError for another name."""
    if name not in WORLDS:
        raise unknown("world", name, WORLDS)
    return WORLDS[name]


TRAINED = {
    "shapes_resnet": (1001, 1501),
    "shapes_vit": (1002, 1502),
    "shapes_alexnet": (1003, 1503),
    "shapes_spurious": (1005, 1505),
    "places_resnet": (1011, 1511),
    "places_alexnet": (1013, 1513),
    "shapes_explainer": (2001, 2501),
    "shapes_judge": (3001, 3501),
    "shapes_gan": (4001, 4501),
    "places_gan": (4011, 4511),
}
"""Part of the embedded world -> seeds of its training pictures and of its held-out pictures; none are shared."""


def seeds_of(part: str) -> tuple[int, int]:
    """Seeds of the training pictures and of the held-out pictures of a part of the embedded world."""
    if part not in TRAINED:
        raise unknown("trained part", part, TRAINED)
    return TRAINED[part]
