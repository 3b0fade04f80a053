"""The embedded world as a probe: rendered when asked for, nothing kept but the factors."""

import io
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256

import torch
from PIL import Image
from torch import Tensor

from neuronx.data.probe import Probe, seeded_splits
from neuronx.data.segmentation import Regions, cells, under
from neuronx.errors import UserError
from neuronx.store.cache import digest, write_atomic
from neuronx.world.pictures.names import BACKGROUNDS, CLASS_NAMES, COLOURS, FAMILIES, PLACES, SHAPES, SIZES, TEXTURES
from neuronx.world.pictures.render import RENDERER, render, render_masks
from neuronx.world.pictures.scene import OBJECTS, PROBE, SIDE, Scenes, sample
from neuronx.world.pictures.words import TRUTH, captions, concept_masks, presence, shown
from neuronx.world.pictures.world import world_of

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


class ShapesProbe(Probe):
    """Pictures 0 to size - 1 of one seed's world.

    Attributes:
        scenes: The factors of all pictures, by row.
        world: The version of the world.
    """

    name = "shapes"
    domain = "shapes"

    def __init__(
        self,
        size: int = 5000,
        seed: int = PROBE,
        *,
        world: str = "shapes",
        batch_size: int = 250,
        num_workers: int = 0,
    ) -> None:
        """Draws the factors and splits the rows 70/10/20.

        Args:
            size: Number of pictures.
            seed: Of the pictures and the splits.
            world: The version of the world, "shapes" or "places"; see `neuronx.world.pictures.world`.
            batch_size: Of the loader.
            num_workers: Of the loader.

        Raises:
            UserError: When `size` is below 1 or `seed` below 0, or there is no such world.
        """
        super().__init__(batch_size=batch_size, num_workers=num_workers)
        if size < 1 or seed < 0:
            raise UserError(f"data={world} has size={size} and seed={seed}; size must be at least 1, seed at least 0.")
        self.size, self.seed, self.world = size, seed, world_of(world)
        self.name = world
        self.scenes = sample(seed, torch.arange(size), self.world.layouts)
        self.splits = seeded_splits(size, seed)
        self.labels = self.world.classes(self.scenes)
        self.class_names = self.world.class_names
        self.hierarchy = self.world.hierarchy

    def __len__(self) -> int:
        return self.size

    def load(self, rows: Sequence[int]) -> Tensor:
        """Renders some rows: (B, 3, 64, 64) uint8."""
        return render(self.scenes[list(rows)])

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
