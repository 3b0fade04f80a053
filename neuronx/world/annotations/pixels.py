"""What each pixel of the embedded world's pictures shows: known of rendered ones, seen in generated ones.

A generator's pictures have no scenes. What the colour of an object or the ground at a pixel is, is read linearly from a
classifier's layers at that place, as learned from rendered pictures. The shape or number asked for counts where
classifiers that had no part in making the pictures are sure of it too.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from neuronx.data.latents import LatentProbe
from neuronx.targets.target import Target
from neuronx.world import networks as shapes
from neuronx.world.annotations.sharing import KINDS, OF_OBJECTS
from neuronx.world.pictures.probe import ShapesProbe, World
from neuronx.world.pictures.render import render_masks
from neuronx.world.pictures.scene import BACKGROUNDS, COLOURS, SIDE, Scenes

BAND = 2
"""Pixels within this many of an object's outline are its edge."""
LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5")
LEARNED, TESTED = 300, 100
"""Rendered pictures that the reader learns from, and further ones that it is tested on."""
AT_ONCE = 50
SURE = 0.8
"""The belief in the shape or number asked for, from which on a classifier sees it."""
COARSE = 32
"""Side of the maps that are read, before they are brought to the pictures' size."""


def of_scenes(scenes: Scenes) -> dict[str, Tensor]:
    """Kind -> (B, 64, 64) int8, the value of each pixel of B rendered pictures, -1 for none.

    Background and number belong to all pixels of a picture, an object's factors to its own; an edge is a pixel near an
    outline, by the side of the upper object's centre on which it lies.
    """
    ids = render_masks(scenes).long()
    maps = {}
    for kind in OF_OBJECTS:
        values = F.pad(getattr(scenes, kind), (1, 0), value=-1)
        maps[kind] = values.gather(1, ids.flatten(1)).view_as(ids).to(torch.int8)
    for kind, values in (("background", scenes.background), ("number", scenes.count - 1)):
        maps[kind] = everywhere(values)
    maps["cell"] = cells(len(scenes))
    maps["edge"] = _edges(scenes, ids)
    return maps


def everywhere(values: Tensor) -> Tensor:
    """Maps (B, 64, 64) int8 of one value (B,) for each picture."""
    return values.to(torch.int8)[:, None, None].expand(-1, SIDE, SIDE)


def cells(pictures: int) -> Tensor:
    """(pictures, 64, 64) int8, which of 3 x 3 cells each pixel lies in, in reading order."""
    third = torch.arange(SIDE) * 3 // SIDE
    return (third[:, None] * 3 + third).to(torch.int8).expand(pictures, -1, -1)


def _edges(scenes: Scenes, ids: Tensor) -> Tensor:
    highest, lowest = _highest_around(ids), -_highest_around(-ids)
    slot = highest.long() - 1
    line = torch.arange(SIDE) + 0.5

    def centre(values: Tensor) -> Tensor:
        return values.gather(1, slot.clamp(min=0).flatten(1)).view_as(slot)

    across, down = line - centre(scenes.x), line[:, None] - centre(scenes.y)
    vertical = down.abs() >= across.abs()
    side = torch.where(vertical, (down > 0).long(), 2 + (across > 0).long())
    return torch.where((highest > lowest) & (slot >= 0), side, -1).to(torch.int8)


def _highest_around(ids: Tensor) -> Tensor:
    return F.max_pool2d(ids.float()[:, None], 2 * BAND + 1, 1, BAND)[:, 0]


@dataclass(frozen=True)
class Reader:
    """Reads from a classifier's layers whether a pixel shows an object and of which colour, or which ground.

    Attributes:
        target: A small AlexNet of the embedded world.
        weights: Layer -> (colours + grounds, channels).
        bias: (colours + grounds,).
        accuracy: Share of the tested pictures' pixels that it reads right.
    """

    target: Target
    weights: dict[str, Tensor]
    bias: Tensor
    accuracy: float = float("nan")

    def __call__(self, pictures: Tensor) -> Tensor:
        """(B, 64, 64) int64 of pictures (B, 3, 64, 64) uint8: a colour, or the number of colours plus a ground."""
        return torch.cat([self._read(some) for some in pictures.split(AT_ONCE)])

    def _read(self, pictures: Tensor) -> Tensor:
        outputs = layers_of(self.target, pictures)
        # Weighing the channels and upsampling may change places, and the small maps cost less.
        parts = [_large(torch.einsum("oc,bchw->bohw", self.weights[layer], outputs[layer])) for layer in outputs]
        read = torch.stack(parts).sum(0) + self.bias[:, None, None]
        return F.interpolate(read, (SIDE, SIDE), mode="bilinear", align_corners=False).argmax(1)


def layers_of(target: Target, pictures: Tensor) -> dict[str, Tensor]:
    """Layer -> maps (B, C, h, w) float32 of pictures (B, 3, 64, 64) uint8; the pictures themselves are one."""
    inputs = target.transform(pictures)
    with torch.inference_mode(), target.record(LAYERS) as outputs:
        target.module(inputs)
        return {"pixels": inputs, **{layer: outputs[layer] for layer in LAYERS}}


def learn(world: World, seed: int, network: str = "shapes_alexnet") -> Reader:
    """Fits a reader on rendered pictures: least squares of one-hot labels, rare ones weighing more.

    Args:
        world: The version of the world whose pictures are rendered.
        seed: Of the pictures.
        network: Name of the shipped classifier whose layers are read.
    """
    target = shapes.load(network)
    probe = ShapesProbe(LEARNED + TESTED, seed, world=world.name)
    classes = len(COLOURS) + len(BACKGROUNDS)
    gram, cross = torch.zeros(()), torch.zeros(())
    for rows in torch.arange(LEARNED).split(AT_ONCE):
        outputs = layers_of(target, probe.load(rows.tolist()))
        columns = torch.cat([_large(maps) for maps in outputs.values()], 1)
        columns = F.pad(columns.movedim(1, -1).flatten(0, 2), (0, 1), value=1.0)
        truth = _labels(probe, rows)[:, 1::2, 1::2].flatten()
        weight = truth.bincount(minlength=classes).clamp(min=1).rsqrt()[truth][:, None]
        gram = gram + columns.T @ (weight * columns)
        cross = cross + columns.T @ (weight * F.one_hot(truth, classes))
    ridge = 1e-4 * gram.diagonal().mean() * torch.eye(len(gram))
    solved = torch.linalg.solve(gram + ridge, cross).T
    sizes = [maps.shape[1] for maps in outputs.values()]
    weights = dict(zip(outputs, solved[:, :-1].split(sizes, 1), strict=True))
    reader = Reader(target, weights, solved[:, -1])
    tested = torch.arange(LEARNED, LEARNED + TESTED)
    right = reader(probe.load(tested.tolist())) == _labels(probe, tested)
    return Reader(target, weights, solved[:, -1], round(right.double().mean().item(), 4))


def of_pictures(
    probe: LatentProbe, rows: Tensor, world: World, reader: Reader, witnesses: Sequence[Target]
) -> dict[str, Tensor]:
    """Kind -> (B, 64, 64) int8, what generated pictures seem to show at each pixel, -1 for what nobody can tell.

    Args:
        probe: The generator's pictures.
        rows: (B,) of the probe.
        world: Whose classes the generator was asked for.
        reader: Of colours and grounds.
        witnesses: Classifiers of the world that had no part in training the generator; all must be sure.
    """
    pictures = probe.load(rows.tolist())
    read = reader(pictures)
    thing = read < len(COLOURS)
    maps = {kind: torch.full_like(read, -1, dtype=torch.int8) for kind in KINDS}
    maps["colour"] = torch.where(thing, read, -1).to(torch.int8)
    grounds = F.one_hot((read - len(COLOURS)).clamp(min=0), len(BACKGROUNDS)) * ~thing[..., None]
    maps["background"] = everywhere(grounds.sum((1, 2)).argmax(1))
    maps["cell"] = cells(len(rows))
    assert probe.labels is not None
    agreed = probe.labels[rows] % world.values[1]
    sure = torch.ones(len(rows), dtype=torch.bool)
    for witness in witnesses:
        with torch.inference_mode():
            outputs = torch.cat([witness.module(witness.transform(some)) for some in pictures.split(AT_ONCE)])
        beliefs = outputs.softmax(1).view(-1, *world.values).sum(1)
        sure &= beliefs.gather(1, agreed[:, None])[:, 0] >= SURE
    agreed = agreed.where(sure, -1)
    if world.name == "places":
        maps["number"] = everywhere(agreed)
    else:
        maps["shape"] = torch.where(thing, everywhere(agreed), -1)
    return maps


def _labels(probe: ShapesProbe, rows: Tensor) -> Tensor:
    maps = of_scenes(probe.scenes[rows])
    colour = maps["colour"].long()
    return torch.where(colour < 0, maps["background"].long() + len(COLOURS), colour)


def _large(maps: Tensor) -> Tensor:
    """Maps (B, C, h, w) at 32 x 32, which is as fine as the layers are; pictures become as coarse."""
    shrinks = maps.shape[-1] > COARSE
    return F.interpolate(maps, (COARSE, COARSE), mode="bilinear", align_corners=False, antialias=shrinks)
