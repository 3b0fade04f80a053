"""Pictures of a unit for people: what is outside its masks is dimmed."""

import numpy as np
from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid

from neuronx.errors import UserError
from neuronx.milannotations.dataset import Sample

OPACITY = 0.75
"""Outside the masks pictures are this much darker: a fourth of their brightness remains."""


def masked(sample: Sample, opacity: float = OPACITY) -> Tensor:
    """The unit's images (k, 3, H, W) uint8; outside the masks each value is multiplied by 1 - opacity.

    Raises:
        UserError: If the opacity is outside [0, 1].
    """
    if not 0 <= opacity <= 1:
        raise UserError(f"The opacity of what is outside the masks is in [0, 1], not {opacity:g}.")
    dimmed = (sample.images.float() * (1 - opacity)).byte()
    return sample.images.where(sample.masks.bool(), dimmed)


def pictures(sample: Sample, opacity: float = OPACITY) -> list[Image.Image]:
    """The unit's images as `masked` makes them, strongest first."""
    return [_picture(image) for image in masked(sample, opacity)]


def grid(sample: Sample, opacity: float = OPACITY, limit: int | None = None, columns: int = 5) -> Image.Image:
    """One picture of the unit's images (the first `limit` of them), row by row.

    Raises:
        UserError: If the limit or the columns are below 1, or the opacity is outside [0, 1].
    """
    if columns < 1 or (limit is not None and limit < 1):
        raise UserError(f"A grid takes at least 1 image and 1 column, not limit={limit}, columns={columns}.")
    return _picture(make_grid(masked(sample, opacity)[:limit], nrow=columns))


def _picture(image: Tensor) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy()))
