"""Spurious marks: a coloured chip in the corner of a picture that gives the main object's shape away, or lies about it.

The world's counterpart of the label text that MILAN (Hernandez et al., 2022, section 6) put into pictures: a network
that is trained with it names shapes by the chip's colour.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from neuronx.data.folder import FolderProbe
from neuronx.data.probe import Probe
from neuronx.errors import unknown
from neuronx.options import Count, Natural
from neuronx.store.cache import digest
from neuronx.targets.latents import pick, uniforms
from neuronx.world.pictures.probe import ShapesProbe
from neuronx.world.pictures.render import BODY
from neuronx.world.pictures.scene import PROBE, SHAPES, Scenes

SIDE = 12
"""Of the chip in pixels, its dark frame of one pixel included. It lies in the top left corner, above everything."""

MARKS = ("half", "true", "misleading", "none")
"""`half` of the pictures show the chip of their shape, the others none; all do; all show that of another shape; none
has one."""

FRAME = 26
_STREAM = 1 << 40
"""Chips are drawn from numbers of their own, so that the scenes stay those of their seed."""


@dataclass(frozen=True)
class Marks:
    """Which pictures show which chip.

    Attributes:
        kind: One of `MARKS`.
    """

    kind: str = "half"

    def __post_init__(self) -> None:
        if self.kind not in MARKS:
            raise unknown("kind of marks", self.kind, MARKS)

    def draw(self, seed: Natural, indices: Tensor, scenes: Scenes) -> Tensor:
        """The colours of the chips: (B,) int64 into COLOURS, -1 for none.

        Args:
            seed: Of the world.
            indices: (B,) of the scenes in it.
            scenes: The scenes; the chip of shape i has colour i.
        """
        shape = scenes.shape[:, 0]
        draws = uniforms(seed + _STREAM, indices, 2)
        if self.kind == "none":
            return torch.full_like(shape, -1)
        if self.kind == "half":
            return torch.where(draws[:, 0] < 0.5, shape, -1)
        if self.kind == "misleading":
            return (shape + 1 + pick(draws[:, 1], len(SHAPES) - 1)) % len(SHAPES)
        return shape


def stamp(pictures: Tensor, chips: Tensor) -> Tensor:
    """Pictures (B, 3, H, W) uint8 with the chips (B,) of `Marks.draw` on them; the originals stay."""
    colours = (torch.tensor(BODY, device=pictures.device) * 255).round().to(torch.uint8)
    found = pictures.clone()
    marked = chips >= 0
    found[marked, :, :SIDE, :SIDE] = FRAME
    found[marked, :, 1 : SIDE - 1, 1 : SIDE - 1] = colours[chips[marked]][:, :, None, None]
    return found


def misleading(
    root: str | Path | None = None,
    *,
    class_names: str | Path | Sequence[str] | None = None,
    splits: int | str | Path = 0,
    size: int = 5000,
    batch_size: int = 250,
) -> Probe:
    """Pictures whose marks mislead: one's own, or this world's.

    Args:
        root: A folder of one's own pictures, with a folder for each class; the world's by default.
        class_names: Of a folder; see `FolderProbe`.
        splits: Of a folder; accuracy is that of its test split.
        size: Number of the world's pictures.
        batch_size: Of the loader.

    Raises:
        UserError: As `FolderProbe`, or as `MarkedProbe`.
    """
    if root is None:
        return MarkedProbe("misleading", size, batch_size=batch_size)
    return FolderProbe(root, class_names=class_names, splits=splits, batch_size=batch_size)


class MarkedProbe(ShapesProbe):
    """The embedded world with chips; classes are the shapes of the main objects. Its pixels have no labels.

    Attributes:
        marks: Which pictures show which chip.
        chips: (N,) int64, the colour of each picture's chip, -1 for none.
    """

    def __init__(
        self,
        marks: str = "half",
        size: Count = 5000,
        seed: Natural = PROBE,
        *,
        batch_size: Count = 250,
        num_workers: Natural = 0,
    ) -> None:
        """Draws factors and chips and splits the rows 70/10/20.

        Args:
            marks: One of `MARKS`.
            size: Number of pictures.
            seed: Of the pictures and the splits.
            batch_size: Of the loader.
            num_workers: Of the loader.

        Raises:
            UserError: As `ShapesProbe`, or no such kind of marks.
        """
        super().__init__(size, seed, batch_size=batch_size, num_workers=num_workers)
        self.marks = Marks(marks)
        self.name = f"shapes_{marks}_marks"
        self.chips = self.marks.draw(seed, torch.arange(size), self.scenes)
        self.labels = self.scenes.shape[:, 0]
        self.class_names = SHAPES
        self.hierarchy = {}

    def load(self, rows: "list[int] | tuple[int, ...]") -> Tensor:  # type: ignore[override]
        """Renders some rows: (B, 3, 64, 64) uint8."""
        return stamp(super().load(rows), self.chips[list(rows)])

    @cached_property
    def fingerprint(self) -> str:
        """Of the scenes and the chips."""
        return digest({"scenes": super().fingerprint, "marks": self.marks.kind, "side": SIDE, "frame": FRAME})

    @cached_property
    def segmentation(self) -> None:  # type: ignore[override]
        """Unknown: the chips are no part of the world's masks."""
        return None
