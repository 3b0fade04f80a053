"""Pictures of what a unit does beyond its top: a row of images for each range of its ranking.

After Linear Explanations, figure 4.
"""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from torch import Tensor

from neuronx.recording.pictures import Gallery
from neuronx.recording.ranges import Ranges
from neuronx.report.tiles import Strip, parts, sheet, write_pngs

SIDE = 84
"""Of each picture, in pixels: four rows are as tall as three rows of exemplars."""
LETTERS = 13


def draw_ranges(ranges: Ranges, images: int, units: Sequence[int], pictures: Gallery, folder: Path) -> list[Path]:
    """Draws a grid for each unit, a row a range, titled with the share of the images and the activations in it.

    Args:
        ranges: Of these units.
        images: How many images were ranked.
        units: Their indices, for the names of the files.
        pictures: Holds all images of the ranges.
        folder: Gets `unit_<u>_ranges.png`.
    """
    titles = [f"Top {100 * first / images:.3g}%-{100 * end / images:.3g}%" for first, end in ranges.ranks]
    paths = []
    for some in parts(len(units), ranges.rows[0].numel()):
        shown = pictures.of(ranges.rows[some].clamp(min=0))
        shown[ranges.rows[some] < 0] = 255  # a range with fewer images
        files = [folder / f"unit_{units[place]}_ranges.png" for place in some]
        paths += write_pngs(files, (_grid(titles, ranges, *one) for one in zip(some, shown, strict=True)))
    return paths


def _grid(titles: Sequence[str], ranges: Ranges, place: int, shown: Tensor) -> Image.Image:
    limits = zip(ranges.low[place].tolist(), ranges.high[place].tolist(), strict=True)
    remarks = [f"activations {low:.4g} to {high:.4g}" for low, high in limits]
    return sheet([Strip(*row) for row in zip(titles, remarks, shown, strict=True)], shown.shape[1], LETTERS)
