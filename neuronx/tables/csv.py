"""Tables as files, scores among them: comma separated, with a header, UTF-8. Mistakes are said with line and column."""

import csv
import io
import math
import numbers
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TypeVar

from neuronx.errors import UserError
from neuronx.store.cache import write_atomic
from neuronx.types import Cell, Score


@dataclass(frozen=True)
class TableRow:
    """One row of a table that was read.

    Attributes:
        path: The file.
        line: Where the row ends in it, counted from 1, so that an editor finds it.
        cells: Text by column.
    """

    path: Path
    line: int
    cells: dict[str, str]

    def wrong(self, column: str, what: str) -> UserError:
        """Builds the error for a cell that cannot be right."""
        return UserError(f"{self.path}, line {self.line}, column `{column}`: {what}.")

    def number(self, column: str) -> float:
        """A finite number. Raises UserError on anything else."""
        value = self.number_or_nan(column)
        if not math.isfinite(value):
            raise self.wrong(column, f"expected a finite number, found `{self.cells[column]}`")
        return value

    def number_or_nan(self, column: str) -> float:
        """A number; NaN for an empty cell or a dash, as published tables write what was not computed."""
        text = self.cells[column].strip()
        if text in ("", "-"):
            return math.nan
        try:
            if "_" in text:  # float() would read 1_000
                raise ValueError
            return float(text)
        except ValueError:
            raise self.wrong(column, f"expected a number, found `{text}`") from None

    def whole(self, column: str) -> int:
        """A whole number; 12.0 counts, because tables that passed through pandas have it. Raises UserError."""
        value = self.number(column)
        if value != int(value):
            raise self.wrong(column, f"expected a whole number, found `{self.cells[column]}`")
        return int(value)


def read_csv(path: str | Path) -> tuple[list[str], list[TableRow]]:
    """Reads a table: its columns and its rows, every cell as the text that stands there.

    Raises:
        UserError: When it is missing, empty, not UTF-8, has a column twice, or a row of another length than the header.
    """
    if not isinstance(path, str | Path):
        raise UserError(f"path={path!r} is no path of a table.")
    path = Path(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8.") from None
    except OSError as error:
        raise UserError(f"Cannot read {path}: {(error.strerror or str(error)).lower()}.") from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows = []
    try:
        columns = [column.strip() for column in next(reader, [])]
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(columns):
                raise UserError(f"{path}, line {reader.line_num}: {_wrong_length(columns, cells)}")
            rows.append(TableRow(path, reader.line_num, dict(zip(columns, cells, strict=True))))
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: not a comma separated table ({error}).") from None
    if not rows:
        raise UserError(f"{path} holds no rows; expected a header and at least one row below it.")
    if twice := sorted({column for column in columns if column and columns.count(column) > 1}):
        raise UserError(f"{path} has the column `{twice[0]}` twice.")
    return columns, rows


def _wrong_length(columns: Sequence[str], cells: Sequence[str]) -> str:
    if len(cells) < len(columns):
        return f"the row ends before column `{columns[len(cells)]}`."
    return (
        f"{len(cells)} cells for {len(columns)} columns, the first too many is `{cells[len(columns)]}`; "
        "text with commas needs quotes."
    )


def write_csv(path: str | Path, columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> Path:
    """Writes a table so that the same content is the same bytes on every machine.

    Numbers have as many digits as float64 needs to be read back exactly.
    """
    lines = [",".join(_cell(value) for value in row) for row in (columns, *rows)]
    return write_atomic(path, ("\n".join(lines) + "\n").encode())


def _cell(value: Cell) -> str:
    if isinstance(value, str):
        # Not csv.writer: whether it quotes a lone carriage return depends on the version of Python.
        return '"' + value.replace('"', '""') + '"' if any(mark in value for mark in ',"\r\n') else value
    if value is None or value != value:
        return ""
    return str(int(value)) if isinstance(value, numbers.Integral) else repr(float(value))


COLUMNS = (
    "target",
    "layer",
    "pool",
    "unit",
    "part",
    "method",
    "score",
    "value",
    "sem",
    "n",
    "status",
    "explanation",
    "judge",
    "images",
)

Record = TypeVar("Record")


def write_scores(path: str | Path, scores: Sequence[Score]) -> Path:
    """Writes `scores.csv`, one row a unit, method and score, in the order given; NaN is an empty cell."""
    return write_csv(path, COLUMNS, map(cells, scores))


def cells(score: Score) -> list[Cell]:
    """A row of `scores.csv`."""
    unit: dict[str, Cell] = {"layer": score.unit.layer, "unit": score.unit.index, "part": score.unit.part}
    return [unit[name] if name in unit else getattr(score, name) for name in COLUMNS]


def write_records(path: str | Path, kind: type[Record], records: Sequence[Record]) -> Path:
    """Writes flat dataclasses, such as `LeaderboardRow` and `Comparison`, a column for each field."""
    columns = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    return write_csv(path, columns, [[getattr(record, name) for name in columns] for record in records])
