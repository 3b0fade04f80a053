"""The published `tally.csv` of Network Dissection: written, read back, and counted.

A row a unit, numbered from 1: its best category, label and score; then for each category the best label in it, how many
cells it covers (truth), how many the unit does in the images compared (activation), both, and their IoU.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from neuronx.errors import UserError
from neuronx.methods.net_dissect.tally import Tally
from neuronx.tables.csv import Row, read_csv
from neuronx.types import Cell

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
    """Columns and cells of the published layout, as `io.write_csv` takes them; scores have nine decimals."""
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
    columns, rows = read_csv(path)
    kinds = [column.removesuffix("-label") for column in columns if column.endswith("-label")]
    kinds = [kind for kind in kinds if all(f"{kind}-{field}" in columns for field in FIELDS)]
    for column in ("unit", "category", "label", "score"):
        if column not in columns:
            raise UserError(f"{path} is no tally of Network Dissection: it has no column `{column}`.")
    return [_row(row, kinds) for row in rows]


def _row(row: Row, kinds: Sequence[str]) -> Dissected:
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
