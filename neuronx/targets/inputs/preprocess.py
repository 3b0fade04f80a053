"""How a picture becomes a network's input. One frozen record, so that it can be compared, printed and keyed."""

from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

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
