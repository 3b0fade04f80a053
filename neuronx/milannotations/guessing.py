"""What generated pictures show, pixel by pixel, as far as a trained network can tell: seen, not known.

A generator's pictures have no scenes. What the colour of an object or the ground at a pixel is, is read linearly from a
classifier's layers at that place, as learned from rendered pictures; the class asked for counts where a classifier that
had no part in making the pictures finds it too.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from neuronx.data.latents import LatentProbe
from neuronx.data.shapes.names import BACKGROUNDS, COLOURS
from neuronx.data.shapes.probe import ShapesProbe
from neuronx.data.shapes.scene import SIDE
from neuronx.data.shapes.world import World
from neuronx.milannotations.factors import KINDS
from neuronx.milannotations.seen import cells, everywhere, of_scenes
from neuronx.targets import shapes
from neuronx.targets.target import Target

LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5")
LEARNED, TESTED = 600, 100
"""Rendered pictures that the reader learns from, and further ones that it is tested on."""
STEP = 3
"""Every so many pixels in either direction are learned from."""
AT_ONCE = 50


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
        return (torch.stack(parts).sum(0) + self.bias[:, None, None]).argmax(1)


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
        columns = torch.cat([_large(maps)[..., ::STEP, ::STEP] for maps in outputs.values()], 1)
        columns = F.pad(columns.movedim(1, -1).flatten(0, 2), (0, 1), value=1.0)
        truth = _labels(probe, rows)[:, ::STEP, ::STEP].flatten()
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


def of_pictures(probe: LatentProbe, rows: Tensor, world: World, reader: Reader, witness: Target) -> dict[str, Tensor]:
    """Kind -> (B, 64, 64) int8, what generated pictures seem to show at each pixel, -1 for what nobody can tell.

    Args:
        probe: The generator's pictures.
        rows: (B,) of the probe.
        world: Whose classes the generator was asked for.
        reader: Of colours and grounds.
        witness: A classifier of the world that had no part in training the generator.
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
    asked, second = probe.labels[rows], world.values[1]
    with torch.inference_mode():
        found = torch.cat([witness.module(witness.transform(some)).argmax(1) for some in pictures.split(AT_ONCE)])
    agreed = torch.where(found % second == asked % second, asked % second, -1)
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
    return F.interpolate(maps, (SIDE, SIDE), mode="bilinear", align_corners=False)
