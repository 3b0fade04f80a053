"""Reference patches: what a unit's references show where the unit fires, as pictures that a CLIP can look at."""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.ops import roi_align

from neuronx.data.probe import Probe, Transform
from neuronx.errors import unknown
from neuronx.methods.pure.heat import heat_maps
from neuronx.recording.gather import gather
from neuronx.recording.maps import upsampled
from neuronx.recording.pictures import view
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
"""Side of the crop around a peak."""
HEAT = 0.02
"""Of the largest heat: what is below does not count, as published."""
CHUNK = 2**23
"""Pixels of masks at a time."""


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
    crop: str,
    heat: str = "auto",
) -> tuple[Tensor, Tensor] | None:
    """Where units (U,) fire on their exemplars: maps (U, m, h, w), and what counts in each is above a cut (U, m).

    None where the whole picture counts: the layer has no positions, or nothing is to be cropped.

    The cut of `mask` is the unit's threshold; on an image that does not reach it, half of the largest value there.
    That of `heat` is 2 % of the largest value; `heat` says by what, see `heat_maps`.

    Raises:
        UserError: Another way to crop than mask, peak, heat or none; and as `heat_maps` does.
    """
    if crop not in CROPS:
        raise unknown("way to crop", crop, CROPS)
    layer = exemplars.layer
    if crop == "none" or exemplars.grid is None:
        return None
    if crop == "heat":
        maps = heat_maps(target, probe, layer, exemplars.rows[units], units, exemplars.places[units], heat)
        return maps, HEAT * maps.amax((2, 3))
    if crop == "peak":
        height, width = exemplars.grid
        maps = torch.zeros(*exemplars.rows[units].shape, height * width)
        maps.scatter_(2, exemplars.places[units].clamp(min=0)[..., None], 1.0)
        return maps.unflatten(2, (height, width)), torch.full(maps.shape[:2], 0.5)
    maps = gather({layer: exemplars}, {layer: units}, target, probe, trainer)[0][layer]
    return maps, exemplars.thresholds[units][:, None].expand(maps.shape[:2])


def cut(maps: Tensor, cuts: Tensor, side: int) -> Tensor:
    """Maps (P, h, w) as masks (P, side, side) bool: what is above the cut (P,).

    Where nothing is, what is above half of the largest value counts.
    """
    large = upsampled(maps, (side, side))
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


def find_boxes(
    exemplars: "Exemplars",
    units: Tensor,
    target: "Target",
    probe: Probe,
    trainer: TrainerFactory,
    crop: str,
    side: int,
    heat: str = "auto",
) -> Tensor:
    """The crops (U, m, 4) int64 of the exemplars of units (U,), in pictures of `side`; see `boxes`, `find_masks`."""
    if len(units) and crop == "heat" and (step := max(1, CHUNK // (exemplars.rows.shape[1] * side**2))) < len(units):
        own = units.split(step)  # heat is as large as the pictures
        return torch.cat([find_boxes(exemplars, some, target, probe, trainer, crop, side, heat) for some in own])
    found = find_masks(exemplars, units, target, probe, trainer, crop, heat)
    shape = exemplars.rows[units].shape
    if found is None:
        return torch.tensor([0, 0, side, side]).expand(*shape, 4).contiguous()
    maps, cuts = found[0].flatten(0, 1), found[1].flatten()
    least = WINDOW if crop == "peak" else LEAST
    parts = []
    for some in torch.arange(len(maps)).split(max(1, CHUNK // side**2)):
        inside = _points(maps[some], side) if crop == "peak" else cut(maps[some], cuts[some], side)
        parts.append(boxes(inside, least))
    return torch.cat(parts).view(*shape, 4)


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
        pictures = self.probe.load(own.tolist())
        seen = (
            self.shown(pictures) if isinstance(pictures, Tensor) else torch.stack([self.shown(one) for one in pictures])
        )
        found = cropped(seen[at], self.boxes[list(rows)], self.side).round().clamp(0, 255).byte()
        if not self.as_pictures:
            return found
        return [Image.fromarray(one.permute(1, 2, 0).contiguous().numpy()) for one in found]

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


def _points(maps: Tensor, side: int) -> Tensor:
    """The middle of the largest cell of maps (P, h, w), as masks (P, side, side) of one pixel."""
    height, width = maps.shape[1:]
    at = maps.flatten(1).argmax(1)
    y = ((at // width + 0.5) * side / height).long().clamp(max=side - 1)
    x = ((at % width + 0.5) * side / width).long().clamp(max=side - 1)
    return torch.nn.functional.one_hot(y * side + x, side * side).bool().view(-1, side, side)
