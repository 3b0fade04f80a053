"""A sheet of sample pictures: `python -m neuronx.world.pictures.contact_sheet docs/shapes.png`."""

import io
import sys

import torch
from PIL import Image
from torch import Tensor

from neuronx.store.atomic import write_atomic
from neuronx.world.pictures import seeds
from neuronx.world.pictures.render import render
from neuronx.world.pictures.scene import sample


def contact_sheet(rows: int = 8, columns: int = 14, gap: int = 4) -> Image.Image:
    """Lays out the first rows x columns pictures of the default probe."""
    return laid_out(render(sample(seeds.PROBE, torch.arange(rows * columns))), columns, gap)


def laid_out(pictures: Tensor, columns: int, gap: int = 4) -> Image.Image:
    """Lays out pictures (N, 3, H, W) uint8 in reading order, `gap` white pixels around each."""
    rows, (height, width) = -(-len(pictures) // columns), pictures.shape[2:]
    sheet = torch.full((3, rows * (height + gap) + gap, columns * (width + gap) + gap), 255, dtype=torch.uint8)
    for number, picture in enumerate(pictures):
        row, column = divmod(number, columns)
        top, left = gap + row * (height + gap), gap + column * (width + gap)
        sheet[:, top : top + height, left : left + width] = picture
    return Image.fromarray(sheet.permute(1, 2, 0).numpy())


def png(image: Image.Image) -> bytes:
    """The image as a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, format="png", optimize=True)
    return buffer.getvalue()


if __name__ == "__main__":
    print(write_atomic(sys.argv[1] if len(sys.argv) > 1 else "docs/shapes.png", png(contact_sheet())))
