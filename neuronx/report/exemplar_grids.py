"""Shows what excites units most: files in the layout of MILANNOTATIONS, grids of pictures, a page for each layer."""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from neuronx.data.probe import Probe
from neuronx.io import write_atomic
from neuronx.milannotations.write import layer_folder, write_all
from neuronx.report.exemplar_page import Card, write_page
from neuronx.report.tiles import TILE, Strip, png, sheet, spread, tiles
from neuronx.trainer import is_first
from neuronx.types import Explanation, TrainerFactory, Unit

if TYPE_CHECKING:
    from neuronx.recording.exemplars import Exemplars
    from neuronx.targets.target import Target

Words = Mapping[Unit, Mapping[str, str]]
"""Unit -> method -> explanation in words."""

COLUMNS = 5
DRAWN_AT_ONCE = 256
"""Pictures; about 60 MB."""


def show_exemplars(
    found: "Mapping[str, Exemplars]",
    target: "Target",
    probe: Probe,
    trainer: TrainerFactory,
    folder: str | Path,
    explanations: Words | None = None,
) -> list[Path]:
    """Writes the exemplars of a target's units, draws them, and makes a page for each layer.

    In `folder` there will be `exemplars/<target>/<layer>/` in the layout of MILANNOTATIONS, a contact sheet
    `pictures/<target>_<layer>.png` with ten units spread over the layer, and `pictures/<target>/<layer>/` with
    `unit_<u>.png` and `index.html`. All processes of a run call it; the first one draws.

    Args:
        found: Layer -> exemplars of the whole layer; drawn are the units asked for in `target.units`.
        target: The network.
        probe: The images.
        trainer: Makes the trainer that runs the network over the exemplars' images.
        folder: Of the run.
        explanations: What is said of the units; see `in_words`.

    Returns:
        The contact sheets and the pages; nothing on other processes than the first.
    """
    folder, name = Path(folder), target.name.replace("/", "-")
    written = write_all(folder / "exemplars" / name, found, target, probe, trainer)
    if not is_first():
        return []
    paths = []
    for (layer, one), source in zip(found.items(), written, strict=True):
        drawn = Drawn.read(source, one)
        where = layer_folder(folder / "pictures" / name, layer)
        paths.append(draw_units(drawn, where, name, explanations or {}))
        contact = contact_sheet(drawn, explanations or {})
        paths.append(write_atomic(folder / "pictures" / f"{name}_{where.name}.png", png(contact)))
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


def draw_units(drawn: Drawn, folder: Path, name: str, explanations: Words) -> Path:
    """Draws each unit on its own and writes the page of the layer; returns its path."""
    exemplars, cards = drawn.exemplars, []
    k = exemplars.rows.shape[1]
    with ThreadPoolExecutor(4) as pool:  # compression releases the interpreter
        for some in _parts(range(len(drawn.units)), max(1, DRAWN_AT_ONCE // k)):
            units = [drawn.units[place] for place in some]
            pages = (
                sheet([drawn.strip(unit, pictures)], min(k, COLUMNS))
                for unit, pictures in zip(units, drawn.tiles(some), strict=True)
            )
            files = [folder / f"unit_{unit}.png" for unit in units]
            list(pool.map(lambda file, page: write_atomic(file, png(page)), files, pages))
    for unit in drawn.units:
        cards.append(
            Card(
                name=str(exemplars.units[unit]),
                peaks=exemplars.peaks[unit].tolist(),
                threshold=float(exemplars.thresholds[unit]),
                explanations=explanations.get(exemplars.units[unit], {}),
                pictures=[f"unit_{unit}.png"],
            )
        )
    where = (
        f"bright where a unit is above its {exemplars.quantile:g} quantile over all positions of all images"
        if exemplars.grid is not None
        else "shown whole, since the layer has no positions"
    )
    remark = f"{len(drawn.units)} units; of each the {k} strongest of {exemplars.images:,} images, {where}."
    return write_page(folder / "index.html", f"{name} · {exemplars.layer or 'output'}", remark, cards)


def _parts(numbers: Sequence[int], size: int) -> Iterable[list[int]]:
    return (list(numbers[start : start + size]) for start in range(0, len(numbers), size))
