"""What each pixel of the embedded world shows: each object is a region, and what no object covers is one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256

import torch
from torch import Tensor

from neuronx.data.segmentation import Regions, cells, under
from neuronx.store.cache import digest
from neuronx.world.pictures import seeds
from neuronx.world.pictures.names import BACKGROUNDS, CLASS_NAMES, COLOURS, FAMILIES, PLACES, SHAPES, SIZES, TEXTURES
from neuronx.world.pictures.render import render_masks
from neuronx.world.pictures.scene import OBJECTS, SIDE, Scenes, sample
from neuronx.world.pictures.words import TRUTH, presence, shown

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
        scenes = sample(seeds.PROBE, torch.arange(128))
        truth = sha256(render_masks(scenes).numpy().tobytes() + shown(scenes, self.names).numpy().tobytes())
        return digest({"pictures": self.pictures, "names": self.names, "truth": truth.hexdigest()})
