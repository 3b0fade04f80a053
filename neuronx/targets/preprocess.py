"""How a picture becomes a network's input: one frozen record, so that it can be compared, printed and keyed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from neuronx.errors import UserError, unknown

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
    """

    resize: int | tuple[int, int] | None = None
    crop: int | tuple[int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        # YAML brings lists; tuples keep the record hashable and its repr stable.
        for name in ("resize", "crop", "mean", "std"):
            value = getattr(self, name)
            if isinstance(value, list):
                object.__setattr__(self, name, tuple(value))

    def __call__(self, picture: Image.Image | Tensor) -> Tensor:
        """Turns an RGB picture into (3, H, W) float32, or a uint8 batch (B, 3, H, W) into (B, 3, H, W) float32."""
        if isinstance(picture, Image.Image) and picture.mode != "RGB":
            picture = picture.convert("RGB")
        if self.resize is not None:
            size = [self.resize] if isinstance(self.resize, int) else list(self.resize)
            picture = F.resize(picture, size, InterpolationMode(self.interpolation), antialias=True)
        if self.crop is not None:
            picture = F.center_crop(picture, [self.crop] * 2 if isinstance(self.crop, int) else list(self.crop))
        tensor = picture if isinstance(picture, Tensor) else F.pil_to_tensor(picture)
        tensor = F.to_dtype(tensor, torch.float32, scale=True)
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


TRANSFORMS = {
    # The usual evaluation transform of ImageNet and Places365 networks.
    "imagenet": Preprocess(resize=256, crop=224, mean=IMAGENET_MEAN, std=IMAGENET_STD),
    # The widespread CIFAR-10 ResNets (20, 32, 44, 56, 110) were trained with ImageNet's statistics.
    "cifar10": Preprocess(resize=(32, 32), mean=IMAGENET_MEAN, std=IMAGENET_STD),
    # CIFAR-10's own statistics.
    "cifar10_own": Preprocess(resize=(32, 32), mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616)),
    # As the networks of chenyaofo/pytorch-cifar-models for CIFAR-100.
    "cifar100": Preprocess(resize=(32, 32), mean=(0.5070, 0.4865, 0.4409), std=(0.2673, 0.2564, 0.2761)),
    # SqueezeNet as first published: RGB in 0..255 minus (123, 117, 104), not scaled.
    "squeezenet": Preprocess(
        resize=(256, 256), crop=227, mean=(123 / 255, 117 / 255, 104 / 255), std=(1 / 255, 1 / 255, 1 / 255)
    ),
    # Pictures as they are, in [0, 1].
    "none": Preprocess(),
}


def transform_of(wanted: str | Mapping[str, Any] | Any) -> Any:
    """A transform from its name, from the fields of a `Preprocess`, or from itself.

    Raises:
        UserError: An unknown name or field.
    """
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
