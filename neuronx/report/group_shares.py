"""A picture of what layers use: for each network a row of columns by depth, each cut by groups of concepts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from neuronx.report.tiles import FAINT, INK, PAPER

PALETTE = (
    "#c8452f", "#e58a3c", "#f2c14e", "#8a6d3b", "#1f4e79", "#3f88c5", "#8ec3e6", "#5d3a8e", "#b28bd0", "#2f7d4f",
    "#8fc08a", "#c2c6cc", "#6b7280",
)  # fmt: skip
"""Of groups, in their order: like groups have like colours."""

COLUMN, BETWEEN, TALL, MARGIN, LETTERS = 92, 16, 420, 28, 15
"""Widths, the height of a column and the size of letters, in pixels, before the picture is drawn twice as large."""

SMALLEST = 0.035
"""Shares below this have no number written on them."""

FINE = 2
"""Pixels of the picture for each of those above, so that letters are sharp on any screen."""


@dataclass(frozen=True)
class LayerShares:
    """What one layer of a network uses.

    Attributes:
        layer: Its name.
        shares: Group -> share, adding up to 1 (or empty for a layer without active units).
        remark: Written above the column, such as the mean correlation.
    """

    layer: str
    shares: Mapping[str, float]
    remark: str = ""


def group_shares_picture(networks: Mapping[str, Sequence[LayerShares]], groups: Sequence[str]) -> Image.Image:
    """Draws networks side by side, their layers from left to right, and a legend.

    Args:
        networks: Name -> its layers, by depth.
        groups: All groups, the first at the bottom of each column; at most 13.
    """
    colours = dict(zip(groups, PALETTE, strict=False))
    pen = _Pen()
    legend = 40 + max(pen.width(group) for group in groups)
    panels = [max(len(layers) * (COLUMN + BETWEEN), pen.width(name, large=True)) for name, layers in networks.items()]
    wide = 2 * MARGIN + sum(panels) + 2 * MARGIN * len(panels) + legend
    page = pen.begin(wide, MARGIN + 56 + TALL + 34 + MARGIN)
    left, top = float(MARGIN), MARGIN + 56
    for (name, layers), panel in zip(networks.items(), panels, strict=True):
        pen.write(left, MARGIN, name, INK, large=True)
        for place, one in enumerate(layers):
            x, y = left + place * (COLUMN + BETWEEN), float(top + TALL)
            pen.write(x + COLUMN / 2, top - 9, one.remark, FAINT, anchor="ms")
            for group in groups:
                share = one.shares.get(group, 0.0)
                tall = share * TALL
                pen.box(x, y - tall, x + COLUMN, y, colours[group])
                if share >= SMALLEST:
                    pen.write(x + COLUMN / 2, y - tall / 2, f"{100 * share:.0f}", _on(colours[group]), anchor="mm")
                y -= tall
            pen.write(x + COLUMN / 2, top + TALL + 9, one.layer, INK, anchor="mt")
        left += panel + 2 * MARGIN
    for place, group in enumerate(reversed(groups)):
        y = top + place * 27
        pen.box(left, y, left + 20, y + 20, colours[group])
        pen.write(left + 28, y + 10, group, INK, anchor="lm")
    pen.write(left, top - 9, "% of the terms' weight", FAINT, anchor="ls")
    return page


def _on(colour: str) -> tuple[int, int, int]:
    """Letters that can be read on a colour."""
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return INK if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else PAPER


class _Pen:
    """Draws in the pixels of the constants above."""

    def __init__(self) -> None:
        self.small, self.large = ImageFont.load_default(FINE * LETTERS), ImageFont.load_default(FINE * (LETTERS + 5))

    def begin(self, wide: float, tall: float) -> Image.Image:
        page = Image.new("RGB", (round(FINE * wide), round(FINE * tall)), PAPER)
        self.draw = ImageDraw.Draw(page)
        return page

    def width(self, text: str, large: bool = False) -> float:
        return (self.large if large else self.small).getlength(text) / FINE

    def write(
        self, x: float, y: float, text: str, colour: tuple[int, int, int], anchor: str = "lt", large: bool = False
    ) -> None:
        font = self.large if large else self.small
        self.draw.text((FINE * x, FINE * y), text, colour, font, anchor=anchor)

    def box(self, x: float, y: float, right: float, bottom: float, colour: str) -> None:
        if round(FINE * bottom) > round(FINE * y):
            self.draw.rectangle(
                (round(FINE * x), round(FINE * y), round(FINE * right), round(FINE * bottom) - 1), colour
            )
