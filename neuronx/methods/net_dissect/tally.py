"""The tally of Network Dissection: how far each unit's mask and each concept's overlap, over all images.

Bau et al., Network Dissection (CVPR 2017), section 2.4: IoU of the cells where a unit is above its threshold with the
cells of a concept. What the unit's own area is, published implementations disagree on; see `DENOMINATORS`.

All of it is sums of counts: on how many cells of each region of a picture each unit fires. Two things make them cheap.
Bilinear upsampling never goes beyond a map's maximum, so that most pairs of a picture and a unit need none; and one
`bincount` over the cells that are left counts them for all units and regions at once.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from neuronx.data.segmentation import Regions, Segmentation
from neuronx.errors import UserError, unknown
from neuronx.recording.maps import FieldCentres, upsampled
from neuronx.tables.csv import TableRow, any_case, read_csv
from neuronx.types import Cell

DENOMINATORS = ("annotated", "hit", "all")
"""The images over which a unit's own area is taken when it is compared with a concept.

`annotated`, as in the paper: those in which something of the concept's category is labelled. `hit`, as NetDissect-Lite:
those in which the unit's mask meets a label of that category, so that a unit is forgiven wherever it misses all of
them. `all`: all images, as in the implementation of 2020 and in compositional explanations.
"""

EPSILON = 1e-10

SHARED_AT_ONCE = 2**23
"""Counts of a region that shows a concept, added up at a time: 64 MiB."""


@dataclass(frozen=True)
class Tally:
    """Cells counted over N images for K units, C concepts and G categories.

    Attributes:
        names: The C concepts as people say them.
        labels: The same as the data set spells them.
        categories: Names of the G kinds of concepts.
        category: (C,) int64, the primary category of each.
        both: (K, C) int64, cells where the unit fires and the concept is.
        truth: (C,) int64, cells where the concept is.
        annotated: (K, G) int64, cells where the unit fires, in images with a label of the category.
        hit: (K, G) int64, the same in images where the unit's mask meets a label of the category.
        fires: (K,) int64, cells where the unit fires, in all images.
        cells: Number of cells of all images together.
    """

    names: tuple[str, ...]
    labels: tuple[str, ...]
    categories: tuple[str, ...]
    category: Tensor
    both: Tensor
    truth: Tensor
    annotated: Tensor
    hit: Tensor
    fires: Tensor
    cells: int

    def area(self, denominator: str = "annotated") -> Tensor:
        """(K, G) int64: the unit's own area for concepts of each category. Raises UserError; see `DENOMINATORS`."""
        if denominator not in DENOMINATORS:
            raise unknown("denominator of Network Dissection", denominator, DENOMINATORS)
        if denominator == "all":
            return self.fires[:, None].expand(-1, len(self.categories))
        return self.annotated if denominator == "annotated" else self.hit

    def iou(self, denominator: str = "annotated") -> Tensor:
        """(K, C) float64 in [0, 1]: cells of both over cells of either."""
        either = self.area(denominator)[:, self.category] + self.truth - self.both
        return self.both.double() / (either.double() + EPSILON)

    def best(self, denominator: str = "annotated") -> "Best":
        """Each unit's best concept."""
        return _best(self.iou(denominator))

    def best_of_category(self, category: int, denominator: str = "annotated") -> "Best":
        """Each unit's best concept among those of one category, by its number."""
        iou = self.iou(denominator)
        return _best(iou.where(self.category == category, -1.0))


@dataclass(frozen=True)
class Best:
    """The best concept of each of K units.

    Attributes:
        concept: (K,) int64, the first of the best; -1 where the unit meets none.
        iou: (K,) float64; 0 where it meets none.
    """

    concept: Tensor
    iou: Tensor

    def detectors(self, threshold: float = 0.04) -> tuple[int, int]:
        """How many units have an IoU above the threshold, and how many concepts they detect."""
        found = self.concept[(self.iou > threshold) & (self.concept >= 0)]
        return len(found), len(found.unique())


def _best(iou: Tensor) -> Best:
    if not iou.shape[1]:
        return Best(torch.full((len(iou),), -1), iou.new_zeros(len(iou)))
    value, concept = iou.max(1).values, iou.argmax(1)
    return Best(concept.where(value > 0, -1), value.clamp(min=0))


class Tallying:
    """A tally in the making: counts go in batch by batch, every image once."""

    def __init__(self, segmentation: Segmentation, units: int) -> None:
        """Starts at zero, for K units."""
        self.segmentation = segmentation
        concepts, kinds = len(segmentation.names), len(segmentation.categories)
        shapes = {"both": (concepts, units), "truth": (concepts,), "fires": (units,), "cells": ()}
        shapes |= {"annotated": (kinds, units), "hit": (kinds, units)}
        # Whole numbers, exact up to 2^53; float64 is added up several times faster than int64.
        self.sums = {name: torch.zeros(shape, dtype=torch.float64) for name, shape in shapes.items()}

    def add(self, counts: Tensor, regions: Regions) -> None:
        """Adds the counts (R, K) of B pictures and their regions, all on the CPU."""
        counts, sizes, (region, concept) = counts.double(), regions.sizes, regions.shows.nonzero(as_tuple=True)
        self.sums["truth"].index_add_(0, concept, sizes[region].double())
        self.sums["fires"] += counts.sum(0)
        self.sums["cells"] += regions.maps.numel()

        # A slot is a picture and a category: is anything of it there, and does the unit meet any of it?
        pictures, kinds, units = len(regions.maps), len(self.segmentation.categories), counts.shape[1]
        slot = regions.picture[region] * kinds + self.segmentation.category[concept]
        there = torch.bincount(slot[sizes[region] > 0], minlength=pictures * kinds) > 0
        met = counts.new_zeros(pictures * kinds, units)
        at_once = max(1, SHARED_AT_ONCE // units)
        for some in torch.arange(len(region)).split(at_once):
            shared = counts.index_select(0, region[some])
            self.sums["both"].index_add_(0, concept[some], shared)
            met.index_add_(0, slot[some], shared)
        fires = counts.new_zeros(pictures, units).index_add_(0, regions.picture, counts)
        self.sums["annotated"] += (fires[:, None] * there.view(pictures, kinds, 1)).sum(0)
        self.sums["hit"] += (fires[:, None] * (met > 0).view(pictures, kinds, units)).sum(0)

    def result(self, together: Callable[[Tensor], Tensor] = lambda total: total) -> Tally:
        """The tally; `together` brings in the sums of the other processes."""
        sums = {name: together(total).cpu().long() for name, total in self.sums.items()}
        of = self.segmentation
        return Tally(
            names=of.names,
            labels=of.labels,
            categories=of.categories,
            category=of.category.cpu(),
            both=sums["both"].T.contiguous(),
            truth=sums["truth"],
            annotated=sums["annotated"].T.contiguous(),
            hit=sums["hit"].T.contiguous(),
            fires=sums["fires"],
            cells=int(sums["cells"]),
        )


def tally(batches: Iterable[tuple[Tensor, Regions]], thresholds: Tensor, segmentation: Segmentation) -> Tally:
    """The tally of maps (B, K, h, w) against regions, batch by batch; thresholds are (K,)."""
    made = Tallying(segmentation, len(thresholds))
    for maps, regions in batches:
        made.add(count(maps, thresholds, regions), regions)
    return made.result()


CELLS_AT_ONCE = {"cpu": 2**19}
"""Cells that are upsampled and cut at a time: as many as a processor's cache holds, and elsewhere 2^25."""
FIRING_AT_ONCE = 2**22
"""Cells where units fire that are counted at a time: 16 MiB."""


def count(maps: Tensor, thresholds: Tensor, regions: Regions, centres: FieldCentres | None = None) -> Tensor:
    """Counts the cells where upsampled maps are strictly above their unit's threshold.

    Args:
        maps: (B, K, h, w) float, of B pictures.
        thresholds: (K,).
        regions: Of the same pictures, on the concept grid; on the same device.
        centres: Where the maps' positions look; in the middle of equal cells by default.

    Returns:
        (R, K) int64.
    """
    size = regions.maps.shape[-2], regions.maps.shape[-1]
    thresholds = thresholds.to(maps)
    picture, unit = (maps.amax((2, 3)) > thresholds).nonzero(as_tuple=True)

    def fires(some: slice) -> Tensor:
        return upsampled(maps[picture[some], unit[some]], size, centres) > thresholds[unit[some], None, None]

    return _counted(fires, picture, unit, regions, maps.shape[1])


def count_masks(masks: Tensor, regions: Regions) -> Tensor:
    """Counts the set cells of masks (B, K, H, W) bool on the concept grid: (R, K) int64."""
    units = masks.shape[1]
    # torch reads and copies bytes several times faster than truth values.
    flat = masks.flatten(0, 1).contiguous().view(torch.uint8)
    pair = flat.flatten(1).amax(1).nonzero().flatten()
    picture = pair.div(units, rounding_mode="floor")

    def fires(some: slice) -> Tensor:
        return flat.index_select(0, pair[some]).view(torch.bool)

    return _counted(fires, picture, pair - picture * units, regions, units)


def _counted(fires: Callable[[slice], Tensor], picture: Tensor, unit: Tensor, regions: Regions, units: int) -> Tensor:
    """Counts (R, K) of the set cells of P masks, each of one picture and one unit (P,); `fires` makes some of them."""
    cells, shape = regions.maps[0].numel(), (len(regions.picture), units)
    counts = regions.picture.new_zeros(shape[0] * shape[1])
    # Half the memory that has to go through the processor; there are never 2^31 pairs of a region and a unit.
    numbers, unit = (regions.maps.flatten() * units).int(), unit.int()
    step = max(1, CELLS_AT_ONCE.get(numbers.device.type, 2**25) // cells)
    # Where a mask's cells start in the region maps, less where they start among those made at once.
    shift = (picture - torch.arange(len(picture), device=picture.device) % step) * cells
    bins: list[Tensor] = []
    for first in range(0, len(picture), step):
        some = slice(first, first + step)
        bins.append(_bins(fires(some), shift[some], unit[some], numbers, cells))
        if first + step >= len(picture) or sum(map(len, bins)) > FIRING_AT_ONCE:
            counts += torch.bincount(torch.cat(bins), minlength=len(counts))
            bins.clear()
    return counts.view(shape)


def _bins(fires: Tensor, shift: Tensor, unit: Tensor, numbers: Tensor, cells: int) -> Tensor:
    """The number (n,) int32 of the region and unit of each set cell; on the CPU by numpy, 3 times as fast as torch."""
    if fires.device.type != "cpu":
        where = fires.flatten().nonzero().flatten()
        which = where.div(cells, rounding_mode="floor")
        return numbers[where + shift[which]] + unit[which]
    place = np.flatnonzero(fires.numpy())
    # In order of the masks, so that a few bisections say how many belong to each.
    many = np.diff(np.searchsorted(place, np.arange(len(unit) + 1) * cells))
    place += np.repeat(shift.numpy(), many)
    found = numbers.numpy()[place]
    found += np.repeat(unit.numpy(), many)
    return torch.from_numpy(found)


DIGITS = 9
FIELDS = ("label", "truth", "activation", "intersect", "iou")


@dataclass(frozen=True)
class InCategory:
    """A unit's best label in one category.

    Attributes:
        category: Its name.
        label: As the data set spells it; None where the unit meets no label. Published files also leave it blank where
            they took label 0, "nothing labelled", for a label.
        truth: Cells of the label.
        activation: Cells of the unit in the images compared.
        intersect: Cells of both.
        iou: In [0, 1].
    """

    category: str
    label: str | None
    truth: int
    activation: int
    intersect: int
    iou: float


@dataclass(frozen=True)
class Dissected:
    """One row of a tally.

    Attributes:
        unit: Counted from 0, as everywhere but in the file.
        category: Of the best label; None without one.
        label: The best label of all; None where the unit meets none.
        score: Its IoU.
        best: The best in each category, in the order of the file.
    """

    unit: int
    category: str | None
    label: str | None
    score: float
    best: tuple[InCategory, ...]


def dissected(tally: Tally, denominator: str = "annotated") -> list[Dissected]:
    """The rows of a tally, best first, ties by unit."""
    best, area = tally.best(denominator), tally.area(denominator)
    kinds = [tally.best_of_category(number, denominator) for number in range(len(tally.categories))]

    def in_category(unit: int, number: int) -> InCategory:
        c = int(kinds[number].concept[unit])
        return InCategory(
            category=tally.categories[number],
            label=tally.labels[c] if c >= 0 else None,
            truth=int(tally.truth[c]) if c >= 0 else 0,
            activation=int(area[unit, number]),
            intersect=int(tally.both[unit, c]) if c >= 0 else 0,
            iou=float(kinds[number].iou[unit]),
        )

    rows = []
    for unit, (c, score) in enumerate(zip(best.concept.tolist(), best.iou.tolist(), strict=True)):
        category = tally.categories[int(tally.category[c])] if c >= 0 else None
        label = tally.labels[c] if c >= 0 else None
        found = tuple(in_category(unit, number) for number in range(len(kinds)))
        rows.append(Dissected(unit, category, label, score, found))
    return sorted(rows, key=lambda row: (-row.score, row.unit))


def detectors(rows: Sequence[Dissected], threshold: float = 0.04) -> tuple[int, int]:
    """How many units score above the threshold, and how many labels they detect."""
    found = [row.label for row in rows if row.score > threshold]
    return len(found), len(set(found))


def cells(rows: Sequence[Dissected]) -> tuple[list[str], list[list[Cell]]]:
    """Columns and cells of the published layout: units count from 1 there, and scores have nine decimals."""
    kinds = [one.category for one in rows[0].best] if rows else []
    columns = ["unit", "category", "label", "score", *(f"{kind}-{field}" for kind in kinds for field in FIELDS)]
    body: list[list[Cell]] = []
    for row in rows:
        line: list[Cell] = [row.unit + 1, row.category, row.label, round(row.score, DIGITS)]
        for one in row.best:
            line += [one.label, one.truth, one.activation, one.intersect, round(one.iou, DIGITS)]
        body.append(line)
    return columns, body


def read_tally(path: str | Path) -> list[Dissected]:
    """Reads a tally, ours or published; further columns are left alone.

    Raises:
        UserError: For a table of another layout, or a cell that is not what it should be, with file, line and column.
    """
    columns, rows = read_csv(path, any_case("unit", "category", "label", "score"))
    kinds = [column.removesuffix("-label") for column in columns if column.endswith("-label")]
    kinds = [kind for kind in kinds if all(f"{kind}-{field}" in columns for field in FIELDS)]
    for column in ("unit", "category", "label", "score"):
        if column not in columns:
            raise UserError(f"{path} is no tally of Network Dissection: it has no column `{column}`.")
    return [_row(row, kinds) for row in rows]


def _row(row: TableRow, kinds: Sequence[str]) -> Dissected:
    unit = row.whole("unit")
    if unit < 1:
        raise row.wrong("unit", f"found {unit}, but tallies count units from 1")
    best = tuple(
        InCategory(
            category=kind,
            label=row.cells[f"{kind}-label"] or None,
            truth=row.whole(f"{kind}-truth"),
            activation=row.whole(f"{kind}-activation"),
            intersect=row.whole(f"{kind}-intersect"),
            iou=row.number(f"{kind}-iou"),
        )
        for kind in kinds
    )
    return Dissected(unit - 1, row.cells["category"] or None, row.cells["label"] or None, row.number("score"), best)
