"""Shows what excites units most: files in the layout of MILANNOTATIONS, grids of pictures, a page for each layer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from neuronx.data.probe import Probe
from neuronx.milannotations.write import layer_folder, write_all
from neuronx.recording.pictures import gallery, view
from neuronx.recording.ranges import activation_ranges
from neuronx.recording.record import record
from neuronx.report.exemplar_page import Card, write_page
from neuronx.report.range_grids import SIDE, draw_ranges
from neuronx.report.tiles import TILE, Strip, parts, png, sheet, spread, tiles, write_pngs
from neuronx.store.atomic import write_atomic
from neuronx.store.processes import is_first
from neuronx.types import Explanation, TrainerFactory, Unit

if TYPE_CHECKING:
    from neuronx.recording.exemplars import Exemplars
    from neuronx.targets.target import Target

Words = Mapping[Unit, Mapping[str, str]]
"""Unit -> method -> explanation in words."""

COLUMNS = 5


def show_exemplars(
    found: "Mapping[str, Exemplars]",
    target: "Target",
    probe: Probe,
    trainer: TrainerFactory,
    folder: str | Path,
    explanations: Words | None = None,
    rows: Tensor | None = None,
) -> list[Path]:
    """Writes the exemplars of a target's units, draws them, and makes a page for each layer.

    In `folder` there will be `exemplars/<target>/<layer>/` in the layout of MILANNOTATIONS, a contact sheet
    `pictures/<target>_<layer>.png` with ten units spread over the layer, and `pictures/<target>/<layer>/` with
    `index.html`, `unit_<u>.png` and, for layers that the target is asked for, `unit_<u>_ranges.png`: images from ranges
    of the ranking by pooled activation. All processes of a run call it; the first one draws.

    Args:
        found: Layer -> exemplars of the whole layer; drawn are the units asked for in `target.units`.
        target: The network.
        probe: The images.
        trainer: Makes the trainer that runs the network over the exemplars' images, and over all for the ranges, unless
            they are recorded.
        folder: Of the run.
        explanations: What is said of the units; see `in_words`.
        rows: The images that are ranked; train and val by default, as for exemplars.

    Returns:
        The pages and the contact sheets; nothing on other processes than the first.
    """
    folder, name, said = Path(folder), target.name.replace("/", "-"), explanations or {}
    written = write_all(folder / "exemplars" / name, found, target, probe, trainer)
    pooled = record(target, probe, trainer, {layer: target.layers[layer] for layer in found if layer in target.layers})
    if not is_first():
        return []
    rows, paths = probe.split("train", "val") if rows is None else rows.unique(), []
    for (layer, one), source in zip(found.items(), written, strict=True):
        drawn = Drawn.read(source, one)
        where = layer_folder(folder / "pictures" / name, layer)
        draw_units(drawn, where)
        if layer in pooled:
            ranges = activation_ranges(pooled[layer].values[rows][:, drawn.units], rows, n=COLUMNS)
            shown = gallery(ranges.rows.clamp(min=0), probe, view(target.transform, SIDE), where)
            draw_ranges(ranges, len(rows), drawn.units, shown, where)
        paths.append(page(drawn, where, name, said, pooled[layer].pool if layer in pooled else None))
        sheet_of_layer = png(contact_sheet(drawn, said))
        paths.append(write_atomic(folder / "pictures" / f"{name}_{where.name}.png", sheet_of_layer))
    return paths


def in_words(explained: Mapping[str, Sequence[Explanation]]) -> Words:
    """What methods (by name) say of each unit, method by method in their order."""
    words: dict[Unit, dict[str, str]] = {}
    for method, explanations in explained.items():
        for one in explanations:
            words.setdefault(one.unit, {})[method] = str(one)
    return words


@dataclass(frozen=True)
class Drawn:
    """Exemplars of U units of a layer, as they were written.

    Attributes:
        exemplars: Of the whole layer.
        units: Indices of the units.
        images: (U, k, 3, S, S) uint8, mapped.
        masks: (U, k, 1, S, S) uint8, mapped; None where the whole image counts.
    """

    exemplars: "Exemplars"
    units: Sequence[int]
    images: np.ndarray
    masks: np.ndarray | None

    @classmethod
    def read(cls, folder: Path, exemplars: "Exemplars") -> "Drawn":
        """Opens a layer's folder."""
        numbers = folder / "units.npy"
        units = np.load(numbers).tolist() if numbers.exists() else list(range(len(exemplars.units)))
        masks = None if exemplars.grid is None else np.load(folder / "masks.npy", mmap_mode="r")
        return cls(exemplars, units, np.load(folder / "images.npy", mmap_mode="r"), masks)

    def tiles(self, places: Sequence[int], side: int = TILE) -> Tensor:
        """The exemplars of some of the units, as (n, k, 3, side, side) uint8."""
        masks = None if self.masks is None else torch.from_numpy(self.masks[places])
        return tiles(torch.from_numpy(self.images[places]), masks, side)

    def strip(self, unit: int, pictures: Tensor, remark: str = "") -> Strip:
        """The exemplars of a unit with its name and its peaks above them."""
        peaks = self.exemplars.peaks[unit].tolist()
        span = f"peaks {peaks[0]:.4g} to {peaks[-1]:.4g}"
        return Strip(str(self.exemplars.units[unit]), f"{span}   {remark}".rstrip(), pictures)


def contact_sheet(
    drawn: Drawn, explanations: Words, units: int = 10, exemplars: int | None = None, side: int = TILE
) -> Image.Image:
    """Some units spread over the layer, one a row, with what is said of them, the shortest first.

    Args:
        drawn: The layer.
        explanations: Of its units.
        units: How many, at most.
        exemplars: How many of each; all by default.
        side: Of each picture, in pixels.
    """
    places = spread(len(drawn.units), units)
    strips = []
    for place, pictures in zip(places, drawn.tiles(places, side), strict=True):
        unit = drawn.units[place]
        said = explanations.get(drawn.exemplars.units[unit], {})
        remark = "   ".join(sorted((f"{method}: {words}" for method, words in said.items()), key=len))
        strips.append(drawn.strip(unit, pictures[:exemplars], remark))
    return sheet(strips, len(strips[0].tiles), letters=side // 7)


def draw_units(drawn: Drawn, folder: Path) -> list[Path]:
    """Draws each unit on its own, as `unit_<u>.png`."""
    paths, k = [], drawn.images.shape[1]
    for some in parts(len(drawn.units), k):
        units = [drawn.units[place] for place in some]
        grids = (
            sheet([drawn.strip(unit, pictures)], min(k, COLUMNS))
            for unit, pictures in zip(units, drawn.tiles(some), strict=True)
        )
        paths += write_pngs([folder / f"unit_{unit}.png" for unit in units], grids)
    return paths


def page(drawn: Drawn, folder: Path, name: str, explanations: Words, pool: str | None = None) -> Path:
    """Writes the page of a layer of the network called `name`; `pool` ranked the images where ranges are drawn."""
    exemplars = drawn.exemplars
    endings = ("",) if pool is None else ("", "_ranges")
    cards = [
        Card(
            name=str(exemplars.units[unit]),
            peaks=exemplars.peaks[unit].tolist(),
            threshold=float(exemplars.thresholds[unit]),
            explanations=explanations.get(exemplars.units[unit], {}),
            pictures=[f"unit_{unit}{ending}.png" for ending in endings],
        )
        for unit in drawn.units
    ]
    where = (
        f"bright where a unit is above its {exemplars.quantile:g} quantile over all positions of all images"
        if exemplars.grid is not None
        else "shown whole, since the layer has no positions"
    )
    strongest = f"of each the {exemplars.rows.shape[1]} images of {exemplars.images:,} with the strongest peak, {where}"
    beside = "" if pool is None else f" Beside them images from ranges of the ranking by activation (pool={pool})."
    title = f"{name} · {exemplars.layer or 'output'}"
    return write_page(folder / "index.html", title, f"{len(cards)} units; {strongest}.{beside}", cards)
