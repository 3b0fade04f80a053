"""Reference patches: crops of a unit's references to where the unit fires, as pictures for a CLIP or for people."""

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.ops import roi_align

from neuronx.data.probe import Probe, Transform
from neuronx.methods.pure.heat import heat_maps
from neuronx.recording.exemplars import gather
from neuronx.recording.maps import FieldCentres, upsampled
from neuronx.recording.pictures import View, view
from neuronx.targets.preprocess import Preprocess
from neuronx.types import TrainerFactory

if TYPE_CHECKING:
    from neuronx.recording.exemplars import Exemplars
    from neuronx.targets.target import Target

CROPS = ("mask", "peak", "heat", "none")
"""Ways to crop: around where the unit's map is above its threshold, around its peak, around what its heat map marks, or
not at all."""
SIZE = 224
LEAST = 0.25
"""Side of the smallest crop, as a share of the picture's: of less a CLIP sees little."""
WINDOW = 0.5
"""The same of the crop around a peak, and of crops for people, who need more around it than a CLIP."""
HEAT = 0.02
"""Of the largest heat: what is below does not count, as published."""


def side_of(target: "Target", probe: Probe) -> int:
    """Side of the pictures that patches are cut from: what the network sees."""
    first = probe.load([0])
    square = isinstance(first, Tensor) and first.shape[-1] == first.shape[-2]
    return target.input_size or (int(first.shape[-1]) if square else SIZE)  # type: ignore[union-attr]


def find_masks(
    exemplars: "Exemplars",
    units: Tensor,
    target: "Target",
    probe: Probe,
    trainer: TrainerFactory,
    side: int,
    crop: str,
    heat: str = "auto",
) -> Iterator[Tensor]:
    """What counts in the pictures of exemplars, for each unit (U,) in turn: masks (m, side, side) bool.

    Of `mask`, where the unit's map is above its threshold; of `heat`, where the heat map is above 2 % of its largest
    value; of `peak`, the one pixel in the middle of the peak's cell; else everything, and so where the layer has no
    positions. `heat` says by what heat maps are made, see `heat_maps`.

    Raises:
        UserError: As `heat_maps` does.
    """
    m, layer = exemplars.rows.shape[1], exemplars.layer
    positions = crop != "none" and exemplars.grid is not None
    if crop == "mask" and positions:
        maps = gather({layer: exemplars}, {layer: units}, target, probe, trainer)[0][layer]
    for at, unit in enumerate(units.tolist()):
        rows, places = exemplars.rows[[unit]], exemplars.places[[unit]]
        if not positions:
            yield torch.ones(m, side, side, dtype=torch.bool)
        elif crop == "peak":
            yield _points(places[0], exemplars.grid, side, exemplars.centres)  # type: ignore[arg-type]
        elif crop == "heat":
            (hot,) = heat_maps(target, probe, layer, rows, torch.tensor([unit]), places, heat)
            yield cut(hot, HEAT * hot.amax((1, 2)), side)
        else:
            yield cut(maps[at], exemplars.thresholds[unit].expand(m), side, exemplars.centres)


def cut(maps: Tensor, cuts: Tensor, side: int, centres: FieldCentres | None = None) -> Tensor:
    """Maps (P, h, w) as masks (P, side, side) bool: what is above the cut (P,).

    Where nothing is, what is above half of the largest value counts.
    """
    large = upsampled(maps, (side, side), centres)
    top = large.amax((1, 2))
    return large > torch.where(top > cuts, cuts, top / 2)[:, None, None]


def boxes(masks: Tensor, least: float = LEAST) -> Tensor:
    """The smallest squares inside the picture that hold masks (P, S, S): (P, 4) int64, top, left, bottom, right.

    Ends are exclusive. The shorter side grows evenly, and a square that would leave the picture moves inwards. An empty
    mask gives the whole picture.

    Args:
        masks: Bool.
        least: Side of the smallest square, as a share of S.
    """
    size = masks.shape[-1]
    ends = []
    for line in (masks.any(2), masks.any(1)):
        ends.append((line.int().argmax(1), size - line.flip(1).int().argmax(1)))
    (top, bottom), (left, right) = ends
    side = torch.maximum(bottom - top, right - left).clamp(min=round(least * size), max=size)
    side = torch.where(masks.any(2).any(1), side, size)
    up = ((top + bottom - side) // 2).clamp(min=0).minimum(size - side)
    over = ((left + right - side) // 2).clamp(min=0).minimum(size - side)
    return torch.stack([up, over, up + side, over + side], 1)


def seen(probe: Probe, rows: Tensor, shown: View) -> Tensor:
    """Pictures of rows (B,) as a network sees them: (B, 3, S, S) uint8."""
    pictures = probe.load(rows.tolist())
    return shown(pictures) if isinstance(pictures, Tensor) else torch.stack([shown(picture) for picture in pictures])


def cropped(pictures: Tensor, boxes: Tensor, side: int) -> Tensor:
    """Crops (P, 4) of pictures (P, C, S, S), bilinear: (P, C, side, side) float32."""
    index = torch.arange(len(boxes), dtype=torch.float32)
    corners = boxes[:, [1, 0, 3, 2]].float()
    return roi_align(pictures.float(), torch.cat([index[:, None], corners], 1), (side, side), 1.0, 1, True)


class Patches(Probe):
    """Crops of a probe's pictures as pictures, each of the size of the whole; one split only, `test`."""

    def __init__(self, probe: Probe, transform: Transform, rows: Tensor, boxes: Tensor, side: int) -> None:
        """Takes what a network sees through `transform`.

        Args:
            probe: The pictures.
            transform: Of the network.
            rows: (P,) int64, the picture of each crop; best sorted, for each batch opens its pictures once.
            boxes: (P, 4) int64, as `boxes` gives them.
            side: Of the pictures seen, and of the patches.
        """
        super().__init__(batch_size=probe.batch_size, num_workers=probe.num_workers)
        self.name, self.domain = f"{probe.name}-patches", probe.domain
        self.splits = {"test": torch.arange(len(rows))}
        self.probe, self.shown = probe, view(transform, side)
        self.rows, self.boxes, self.side, self.as_pictures = rows, boxes, side, False

    def __len__(self) -> int:
        return len(self.rows)

    def load(self, rows: Sequence[int]) -> Tensor | list[Image.Image]:
        """The patches: (B, 3, S, S) uint8, or PIL pictures for transforms that take no batches."""
        own, at = self.rows[list(rows)].unique(return_inverse=True)
        crops = cropped(seen(self.probe, own, self.shown)[at], self.boxes[list(rows)], self.side)
        patches = crops.round().clamp(0, 255).byte()
        if not self.as_pictures:
            return patches
        return [Image.fromarray(patch.permute(1, 2, 0).contiguous().numpy()) for patch in patches]

    def loader(self, transform: Transform, rows: Tensor | None = None, **options: object) -> DataLoader:
        """As any probe's; PIL pictures for a transform that is no `Preprocess`."""
        self.as_pictures = not isinstance(transform, Preprocess)
        return super().loader(transform, rows, **options)  # type: ignore[arg-type]

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the pictures' and of all crops."""
        content = hashlib.sha256(f"{self.probe.fingerprint} {self.shown!r} {self.side}".encode())
        for part in (self.rows, self.boxes):
            content.update(part.contiguous().numpy().tobytes())
        return content.hexdigest()


def _points(places: Tensor, grid: tuple[int, int], side: int, centres: FieldCentres | None = None) -> Tensor:
    """Where positions y * w + x (P,) of a grid (h, w) look, as masks (P, side, side) of one pixel."""
    height, width = grid
    of = centres or FieldCentres((0.5 / height, 0.5 / width), (1 / height, 1 / width))
    y, x = of.start[0] + of.step[0] * (places // width), of.start[1] + of.step[1] * (places % width)
    at = (y * side).long().clamp(0, side - 1) * side + (x * side).long().clamp(0, side - 1)
    return torch.nn.functional.one_hot(at, side * side).bool().view(-1, side, side)
