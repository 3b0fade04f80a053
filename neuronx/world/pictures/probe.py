"""The embedded world as a probe: rendered when asked for, nothing kept but the factors."""

import io
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from hashlib import sha256

import torch
from PIL import Image
from torch import Tensor

from neuronx.data.probe import Probe, seeded_splits
from neuronx.data.segmentation import Regions, cells, under
from neuronx.errors import UserError, unknown
from neuronx.options import Count, Natural
from neuronx.store.cache import digest, write_atomic
from neuronx.world.pictures.render import RENDERER, render, render_masks
from neuronx.world.pictures.scene import (
    BACKGROUNDS,
    CLASS_NAMES,
    COLOURS,
    FAMILIES,
    HIERARCHY,
    LAYOUTS,
    NUMBERS,
    OBJECTS,
    PLACES,
    PROBE,
    SHAPES,
    SIDE,
    SIZES,
    TEXTURES,
    Layouts,
    Scenes,
    sample,
)
from neuronx.world.pictures.words import TRUTH, captions, concept_masks, labels, presence, shown

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
_FACTORS = len(NUMBERS)
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
        values=(len(BACKGROUNDS), _FACTORS),
        hierarchy={
            **{place: tuple(range(i * _FACTORS, (i + 1) * _FACTORS)) for i, place in enumerate(BACKGROUNDS)},
            **{_objects(number): tuple(range(i, len(_PLACES), _FACTORS)) for i, number in enumerate(NUMBERS)},
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


_KINDS = {
    "shape": SHAPES,
    "colour": COLOURS,
    "texture": TEXTURES,
    "size": SIZES,
    "place": PLACES,
    "background": BACKGROUNDS,
    "family": tuple(FAMILIES),
    "class": CLASS_NAMES,
}
_OUTSIDE = OBJECTS + 1


@dataclass(frozen=True)
class ShapesSegmentation:
    """Regions and truth of scenes: the same as `words.concept_masks`, for all concepts of `words.TRUTH`.

    Attributes:
        scenes: The N pictures' factors.
        pictures: The probe's fingerprint.
    """

    scenes: Scenes
    pictures: str

    names = labels = TRUTH
    categories = tuple(_KINDS)
    grid = (SIDE, SIDE)

    @property
    def category(self) -> Tensor:
        """(C,) int64: shape, colour, texture, size, place, background, family or class."""
        kinds = {word: kind for kind, words in enumerate(_KINDS.values()) for word in words}
        return torch.tensor([kinds[name] for name in self.names])

    def regions(
        self, rows: Sequence[int], transform: Callable[..., Tensor], grid: tuple[int, int] | None = None
    ) -> Regions:
        """One region for the ground of each picture and one for each object in it, lower objects first."""
        scenes = self.scenes[torch.as_tensor(rows)]
        ids = under(render_masks(scenes), *cells(transform, SIDE, SIDE, grid or self.grid), outside=_OUTSIDE)
        # A picture's regions are its ground, its objects and, if the crop reaches beyond it, what lies there.
        there = torch.nn.functional.pad(scenes.shape >= 0, (1, 1), value=True)
        there[:, _OUTSIDE] = bool((ids == _OUTSIDE).any())
        numbers = (there.flatten().cumsum(0) - 1).view_as(there)
        maps = numbers.gather(1, ids.flatten(1).long()).view(ids.shape)
        shows = torch.nn.functional.pad(shown(scenes, self.names), (0, 0, 0, 1))
        return Regions(maps, there.nonzero()[:, 0], shows[there])

    def presence(self, rows: Sequence[int]) -> Tensor:
        """(B, C) bool: which concepts are true of the pictures."""
        return presence(self.scenes[torch.as_tensor(rows)], self.names)

    @cached_property
    def fingerprint(self) -> str:
        """Of the pictures, the concepts, and the masks and the truth of sample pictures."""
        scenes = sample(PROBE, torch.arange(128))
        truth = sha256(render_masks(scenes).numpy().tobytes() + shown(scenes, self.names).numpy().tobytes())
        return digest({"pictures": self.pictures, "names": self.names, "truth": truth.hexdigest()})


class ScenesProbe(Probe):
    """Pictures of given scenes, all of them in the test split.

    Attributes:
        scenes: The factors of all pictures, by row.
        world: The version of the world.
    """

    name = "shapes"
    domain = "shapes"

    def __init__(
        self, scenes: Scenes, *, world: str = "shapes", batch_size: Count = 250, num_workers: Natural = 0
    ) -> None:
        """Takes the scenes.

        Args:
            scenes: N scenes.
            world: The version of the world, which decides the classes.
            batch_size: Of the loader.
            num_workers: Of the loader.

        Raises:
            UserError: When there is no such world.
        """
        super().__init__(batch_size=batch_size, num_workers=num_workers)
        self.scenes, self.world = scenes, world_of(world)
        none = torch.zeros(0, dtype=torch.int64)
        self.splits = {"train": none, "val": none, "test": torch.arange(len(scenes))}
        self.labels = self.world.classes(scenes)
        self.class_names = self.world.class_names
        self.hierarchy = self.world.hierarchy

    def __len__(self) -> int:
        return len(self.scenes)

    def load(self, rows: Sequence[int]) -> Tensor:
        """Renders some rows: (B, 3, 64, 64) uint8."""
        return render(self.scenes[list(rows)])

    @cached_property
    def fingerprint(self) -> str:
        """Of the scenes and the renderer."""
        factors = (getattr(self.scenes, factor.name).contiguous().numpy().tobytes() for factor in fields(Scenes))
        return digest({"renderer": RENDERER, "scenes": sha256(b"".join(factors)).hexdigest()})

    @cached_property
    def segmentation(self) -> ShapesSegmentation:  # type: ignore[override]
        """The masks of all concepts of `truth`."""
        return ShapesSegmentation(self.scenes, self.fingerprint)

    @property
    def truth(self) -> tuple[tuple[str, ...], Tensor]:
        """Single words, families and classes, and (N, C) bool: which are true of which picture."""
        return TRUTH, presence(self.scenes, TRUTH)

    def masks(self, rows: Sequence[int], phrases: Sequence[str]) -> Tensor:
        """Where B pictures show C phrases: (B, C, 64, 64) bool."""
        scenes = self.scenes[list(rows)]
        return concept_masks(scenes, render_masks(scenes), phrases)

    def captions(self, rows: Sequence[int]) -> list[str]:
        """One sentence for each of some rows."""
        return captions(self.scenes[list(rows)])


class ShapesProbe(ScenesProbe):
    """Pictures 0 to size - 1 of one seed's world."""

    def __init__(
        self,
        size: Count = 5000,
        seed: Natural = PROBE,
        *,
        world: str = "shapes",
        batch_size: Count = 250,
        num_workers: Natural = 0,
    ) -> None:
        """Draws the factors and splits the rows 70/10/20.

        Args:
            size: Number of pictures.
            seed: Of the pictures and the splits.
            world: The version of the world, "shapes" or "places"; see `neuronx.world.pictures.probe`.
            batch_size: Of the loader.
            num_workers: Of the loader.

        Raises:
            UserError: When `size` is below 1 or `seed` below 0, or there is no such world.
        """
        if size < 1 or seed < 0:
            raise UserError(f"data={world} has size={size} and seed={seed}; size must be at least 1, seed at least 0.")
        scenes = sample(seed, torch.arange(size), world_of(world).layouts)
        super().__init__(scenes, world=world, batch_size=batch_size, num_workers=num_workers)
        self.size, self.seed, self.name = size, seed, world
        self.splits = seeded_splits(size, seed)

    @cached_property
    def fingerprint(self) -> str:
        """Of the seed, the size, and the pixels of sample pictures: if the renderer ever changes, so does this."""
        pixels = render(sample(PROBE, torch.arange(128))).numpy().tobytes()
        return digest(
            {
                "world": self.name,
                "renderer": RENDERER,
                "seed": self.seed,
                "size": self.size,
                "pixels": sha256(pixels).hexdigest(),
            }
        )


def contact_sheet(rows: int = 8, columns: int = 14, gap: int = 4) -> Image.Image:
    """Lays out the first rows x columns pictures of the default probe."""
    return laid_out(render(sample(PROBE, torch.arange(rows * columns))), columns, gap)


def laid_out(pictures: Tensor, columns: int, gap: int = 4) -> Image.Image:
    """Lays out pictures (N, 3, H, W) uint8 in reading order, `gap` white pixels around each."""
    rows, (height, width) = -(-len(pictures) // columns), pictures.shape[2:]
    sheet = torch.full((3, rows * (height + gap) + gap, columns * (width + gap) + gap), 255, dtype=torch.uint8)
    for number, picture in enumerate(pictures):
        row, column = divmod(number, columns)
        top, left = gap + row * (height + gap), gap + column * (width + gap)
        sheet[:, top : top + height, left : left + width] = picture
    return Image.fromarray(sheet.permute(1, 2, 0).numpy())


def png(image: Image.Image) -> bytes:
    """The image as a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, format="png", optimize=True)
    return buffer.getvalue()


if __name__ == "__main__":
    print(write_atomic(sys.argv[1] if len(sys.argv) > 1 else "docs/shapes.png", png(contact_sheet())))
