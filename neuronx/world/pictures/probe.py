"""The embedded world as a probe: rendered when asked for, nothing kept but the factors."""

from collections.abc import Sequence
from functools import cached_property
from hashlib import sha256

import torch
from torch import Tensor

from neuronx.data.probe import Probe, seeded_splits
from neuronx.errors import UserError
from neuronx.store.cache import digest
from neuronx.world.pictures import seeds
from neuronx.world.pictures.captions import captions
from neuronx.world.pictures.render import RENDERER, render, render_masks
from neuronx.world.pictures.scene import sample
from neuronx.world.pictures.segmentation import ShapesSegmentation
from neuronx.world.pictures.words import TRUTH, concept_masks, presence
from neuronx.world.pictures.world import world_of


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
        seed: int = seeds.PROBE,
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
        pixels = render(sample(seeds.PROBE, torch.arange(128))).numpy().tobytes()
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
