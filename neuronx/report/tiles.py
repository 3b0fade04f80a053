"""Pictures of units: their exemplars side by side, what excites the unit bright, the rest dimmed."""

import io
from bisect import bisect
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as TF
from torchvision.utils import make_grid

from neuronx.store.cache import write_atomic

TILE = 128
"""Side of each picture in a grid, in pixels."""
GAP = 4
DRAWN_AT_ONCE = 256
"""Pictures; about 60 MB."""
DIMMED = 4
"""Outside the mask, pictures have this part of their brightness: a fourth."""
OUTLINE = (255, 230, 80)
INK, FAINT, PAPER = (32, 34, 40), (120, 124, 134), (255, 255, 255)


@dataclass(frozen=True)
class Strip:
    """A row of a sheet.

    Attributes:
        title: In dark letters.
        remark: In grey behind it.
        tiles: (n, 3, T, T) uint8.
    """

    title: str
    remark: str
    tiles: Tensor


def tiles(images: Tensor, masks: Tensor | None = None, side: int = TILE) -> Tensor:
    """Pictures (..., 3, S, S) uint8 brought to the side of a tile: (..., 3, T, T) uint8.

    Where there are masks (..., 1, S, S), what is outside them has a fourth of its brightness, and a thin line runs
    along their edge. All pictures are drawn at once.
    """
    shape = images.shape[:-3]
    shown = TF.resize(images.reshape(-1, *images.shape[-3:]), [side, side], InterpolationMode.BICUBIC, antialias=True)
    if masks is not None:
        inside = F.interpolate(masks.reshape(-1, *masks.shape[-3:]).float(), (side, side), mode="bilinear") > 0.5
        core = F.max_pool2d((~inside).float(), 3, 1, 1) == 0
        shown = torch.where(inside, shown, shown // DIMMED)
        shown = torch.where(inside & ~core, torch.tensor(OUTLINE, dtype=torch.uint8)[:, None, None], shown)
    return shown.reshape(*shape, 3, side, side)


def sheet(strips: Sequence[Strip], columns: int, letters: int = 15) -> Image.Image:
    """Strips under each other, each with its line of text and at most so many tiles in a row.

    Args:
        strips: At least one.
        columns: Tiles in a row.
        letters: Their size, in pixels.
    """
    font = ImageFont.load_default(letters)
    side = strips[0].tiles.shape[-1]
    width, line = GAP + columns * (side + GAP), letters + 9
    grids = [_grid(strip.tiles, columns) for strip in strips]
    page = Image.new("RGB", (width, sum(grid.height + line for grid in grids) + GAP), PAPER)
    draw, top = ImageDraw.Draw(page), 0
    for strip, grid in zip(strips, grids, strict=True):
        title = _fitting(strip.title, font, width - 4 * GAP)
        draw.text((GAP + 1, top + line - 4), title, INK, font, anchor="ls")
        left = GAP + 1 + font.getlength(f"{title}   ")
        draw.text((left, top + line - 4), _fitting(strip.remark, font, width - left - GAP), FAINT, font, anchor="ls")
        page.paste(grid, (0, top + line))
        top += line + grid.height
    return page


def write_pngs(paths: Sequence[Path], pictures: Iterable[Image.Image]) -> list[Path]:
    """Writes one picture to each path, some at a time."""
    with ThreadPoolExecutor(4) as pool:  # compression needs no interpreter
        return list(pool.map(lambda path, picture: write_atomic(path, png(picture)), paths, pictures))


def parts(units: int, pictures: int) -> Iterator[list[int]]:
    """The numbers 0 to units - 1 in groups to draw at once, where each unit has so many pictures."""
    step = max(1, DRAWN_AT_ONCE // pictures)
    return (list(range(start, min(start + step, units))) for start in range(0, units, step))


def png(picture: Image.Image) -> bytes:
    """The picture as a file."""
    buffer = io.BytesIO()
    picture.save(buffer, format="png", compress_level=4)  # half the time of 6 for a twentieth more bytes
    return buffer.getvalue()


def spread(count: int, wanted: int = 10) -> list[int]:
    """At most so many of the numbers 0 to count - 1, spread evenly, the first and the last among them."""
    return sorted({round(place) for place in torch.linspace(0, count - 1, min(count, wanted)).tolist()})


def _grid(pictures: Tensor, columns: int) -> Image.Image:
    grid = make_grid(pictures, nrow=columns, padding=GAP, pad_value=255)
    return Image.fromarray(grid.permute(1, 2, 0).numpy())


def _fitting(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float) -> str:
    """As much of a text as there is room for."""
    if font.getlength(text) <= width:
        return text
    room = bisect(range(len(text)), width, key=lambda letters: font.getlength(f"{text[:letters]}…"))
    return f"{text[: room - 1]}…" if room > 1 else ""
