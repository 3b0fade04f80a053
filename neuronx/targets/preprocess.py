"""How a picture becomes a network's input: one frozen record, so that it can be compared, printed and keyed."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from neuronx.errors import UserError, unknown

LARGEST = 8192
"""Pixels of a side at most: a picture of 8192 x 8192 is 800 MB of floats."""
INTERPOLATIONS = ("bilinear", "bicubic", "nearest")
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocess:
    """Resize, crop, scale to [0, 1], normalise. Its `repr` is its identity in cache keys.

    Attributes:
        resize: An int scales the short side to it; a (height, width) pair squashes to it; None leaves the size.
        crop: Side or (height, width) of the central crop; None for no crop.
        mean: Per channel, of pictures in [0, 1]; None leaves [0, 1].
        std: Per channel.
        interpolation: `bilinear`, `bicubic` or `nearest`.
        grey: One channel, the luminance, instead of three.
    """

    resize: int | tuple[int, int] | None = None
    crop: int | tuple[int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    interpolation: str = "bilinear"
    grey: bool = False

    def __post_init__(self) -> None:
        # YAML brings lists; tuples keep the record hashable and its repr stable.
        for name in ("resize", "crop", "mean", "std"):
            value = getattr(self, name)
            if isinstance(value, list):
                object.__setattr__(self, name, tuple(value))
        self._check()

    def _check(self) -> None:
        """Raises UserError for fields that make no picture."""
        for name in ("resize", "crop"):
            value = getattr(self, name)
            sides = value if isinstance(value, tuple) else (value,)
            whole = all(isinstance(side, int) and not isinstance(side, bool) for side in sides)
            if value is not None and not (whole and len(sides) <= 2 and all(1 <= side <= LARGEST for side in sides)):
                raise UserError(
                    f"transform {name}={_listed(value)}: write a side or [height, width] in pixels, 1 to {LARGEST}."
                )
        for name in ("mean", "std"):
            value = getattr(self, name)
            numbers = isinstance(value, tuple) and all(
                isinstance(one, int | float) and math.isfinite(one) for one in value
            )
            if value is not None and not (numbers and len(value) in (1, 3)):
                raise UserError(f"transform {name}={_listed(value)}: write three numbers, one a channel, or null.")
        if (self.mean is None) != (self.std is None) or (self.mean and self.std and len(self.mean) != len(self.std)):
            raise UserError(
                f"transform mean={_listed(self.mean)}, std={_listed(self.std)}: give both, of one length, or none."
            )
        if self.std and not all(one > 0 for one in self.std):
            raise UserError(f"transform std={_listed(self.std)}: pictures are divided by it, so it must be above 0.")
        if self.interpolation not in INTERPOLATIONS:
            raise unknown("interpolation of a transform", str(self.interpolation), INTERPOLATIONS)
        if not isinstance(self.grey, bool):
            raise UserError(f"transform grey={self.grey}: write true or false.")

    def __call__(self, picture: Image.Image | Tensor) -> Tensor:
        """Turns an RGB picture into (3, H, W) float32, or a uint8 batch (B, 3, H, W) into (B, 3, H, W) float32.

        With `grey` they have one channel.
        """
        if isinstance(picture, Image.Image) and picture.mode != "RGB":
            picture = picture.convert("RGB")
        if self.resize is not None:
            size = [self.resize] if isinstance(self.resize, int) else list(self.resize)
            picture = F.resize(picture, size, InterpolationMode(self.interpolation), antialias=True)
        if self.crop is not None:
            picture = F.center_crop(picture, [self.crop] * 2 if isinstance(self.crop, int) else list(self.crop))
        tensor = picture if isinstance(picture, Tensor) else F.pil_to_tensor(picture)
        tensor = F.to_dtype(tensor, torch.float32, scale=True)
        if self.grey:
            tensor = grey(tensor)
            if self.mean is not None and len(self.mean) == 3:
                raise UserError(
                    f"The network takes pictures of one channel, but mean={_listed(self.mean)} of its transform has "
                    "three numbers; give transform=mnist, none, or fields as {resize: 28, mean: [0.13], std: [0.31]}."
                )
        if self.mean is not None and self.std is not None:
            tensor = F.normalize(tensor, list(self.mean), list(self.std))
        return tensor

    def sizes(self, height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """(height, width) of a picture after resizing, and after cropping."""
        scaled = height, width
        if isinstance(self.resize, int):
            short, long = min(scaled), max(scaled)
            other = int(self.resize * long / short)
            scaled = (self.resize, other) if height <= width else (other, self.resize)
        elif self.resize is not None:
            scaled = self.resize
        crop = (self.crop, self.crop) if isinstance(self.crop, int) else self.crop
        return scaled, crop or scaled

    @property
    def side(self) -> int | None:
        """The side of the pictures that it makes, if they are all squares of one size."""
        made = self.crop if self.crop is not None else self.resize if isinstance(self.resize, tuple) else None
        sides = {made} if made is None or isinstance(made, int) else set(made)
        return sides.pop() if len(sides) == 1 else None


def grey(images: Tensor) -> Tensor:
    """The luminance (..., 1, H, W) of floats (..., 3, H, W) in RGB (ITU-R BT.601); equal channels keep their value."""
    if images.shape[-3] == 1:
        return images
    red, green, blue = images.split(1, -3)
    return blue + 0.299 * (red - blue) + 0.587 * (green - blue)


@dataclass(frozen=True)
class Grey:
    """A transform of one's own, for a network that takes pictures of one channel: it is given grey pictures.

    Attributes:
        transform: From a PIL picture in mode L, or a uint8 batch (B, 1, H, W), to the network's input.
    """

    transform: Callable[..., Tensor]

    def __call__(self, picture: Image.Image | Tensor) -> Tensor:
        """Turns an RGB picture, or a batch (B, 3, H, W), into the input."""
        if isinstance(picture, Image.Image):
            return self.transform(picture.convert("L"))
        return self.transform(grey(picture.float()).round().to(picture.dtype))


TRANSFORMS = {
    # The usual evaluation transform of ImageNet and Places365 networks.
    "imagenet": Preprocess(resize=256, crop=224, mean=IMAGENET_MEAN, std=IMAGENET_STD),
    # The widespread CIFAR-10 ResNets (20, 32, 44, 56, 110) were trained with ImageNet's statistics.
    "cifar10": Preprocess(resize=(32, 32), mean=IMAGENET_MEAN, std=IMAGENET_STD),
    # CIFAR-10's own statistics.
    "cifar10_own": Preprocess(resize=(32, 32), mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616)),
    # As the networks of chenyaofo/pytorch-cifar-models for CIFAR-100.
    "cifar100": Preprocess(resize=(32, 32), mean=(0.5070, 0.4865, 0.4409), std=(0.2673, 0.2564, 0.2761)),
    # MNIST's own statistics, for networks of one channel.
    "mnist": Preprocess(resize=(28, 28), mean=(0.1307,), std=(0.3081,), grey=True),
    # SqueezeNet as first published: RGB in 0..255 minus (123, 117, 104), not scaled.
    "squeezenet": Preprocess(
        resize=(256, 256), crop=227, mean=(123 / 255, 117 / 255, 104 / 255), std=(1 / 255, 1 / 255, 1 / 255)
    ),
    # Pictures as they are, in [0, 1].
    "none": Preprocess(),
}


def transform_of(wanted: str | Mapping[str, Any] | Any, channels: int | None = None) -> Any:
    """A transform from its name, from the fields of a `Preprocess`, or from itself.

    Args:
        wanted: Which; None is `none`.
        channels: That the network takes; for one, pictures are made grey.

    Raises:
        UserError: An unknown name or field.
    """
    made = _transform_of("none" if wanted is None else wanted)
    if channels != 1:
        return made
    return replace(made, grey=True) if isinstance(made, Preprocess) else Grey(made)


def _listed(value: Any) -> str:
    """A field as YAML writes it."""
    return str(list(value)) if isinstance(value, tuple) else str(value)


def _transform_of(wanted: str | Mapping[str, Any] | Any) -> Any:
    if isinstance(wanted, str):
        if wanted not in TRANSFORMS:
            raise unknown(
                "transform",
                wanted,
                TRANSFORMS,
                "Or give the fields: {resize: 256, crop: 224, mean: [...], std: [...]}.",
            )
        return TRANSFORMS[wanted]
    if isinstance(wanted, Mapping):
        fields = Preprocess.__dataclass_fields__
        for name in wanted:
            if name not in fields:
                raise unknown("field of a transform", str(name), fields)
        return Preprocess(**wanted)
    if not callable(wanted):
        raise UserError(f"transform={wanted!r} is neither a name nor the fields of a transform.")
    return wanted
