"""Tables as files, scores among them: comma separated, with a header, UTF-8. Mistakes are said with line and column."""

import csv
import io
import math
import numbers
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TypeVar

from neuronx.errors import UserError
from neuronx.store.cache import write_atomic
from neuronx.store.given_file import check_ends, check_pointer
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
            point = "; write decimals with a point" if re.fullmatch(r"[-+]?[\d.]*,\d+", text) else ""
            raise self.wrong(column, f"expected a number, found `{text}`{point}") from None

    def whole(self, column: str) -> int:
        """A whole number; 12.0 counts, because tables that passed through pandas have it. Raises UserError."""
        value = self.number(column)
        if value != int(value):
            raise self.wrong(column, f"expected a whole number, found `{self.cells[column]}`")
        return int(value)


SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
"""What may stand between the cells of a table; only the first is read."""


def any_case(*names: str) -> Callable[[str], str]:
    """A spelling for `read_csv`: a column whose name differs from one of these in capitals only is that one."""
    known = {name.casefold(): name for name in names}
    return lambda column: known.get(column.casefold(), column)


def read_csv(
    path: str | Path, spelling: Callable[[str], str] = str, *, may_be_empty: bool = False, text: str | None = None
) -> tuple[list[str], list[TableRow]]:
    """Reads a table: its columns and its rows, every cell as the text that stands there.

    A byte order mark, a first line `sep=,`, any line ends and rows without any text are no part of the table.

    Args:
        path: The file.
        spelling: From a column's name in the file to the name that it has here, such as `any_case("unit", "layer")`.
        may_be_empty: Whether a header without rows is a table too.
        text: What the file holds, where it was read already.

    Raises:
        UserError: When it is missing, empty, not UTF-8, not separated by commas, has a column twice, or a row of other
            length than the header.
    """
    if not isinstance(path, str | Path):
        raise UserError(f"path={path!r} is no path of a table.")
    path = Path(path)
    text = _text(path) if text is None else text
    first = re.split(r"[\r\n]", text, maxsplit=1)[0]
    declared = re.fullmatch(r'"?sep=(.)"?[,;\t|]*\s*', first, re.IGNORECASE)
    _check_separator(path, declared[1] if declared else _separator(first))
    before = 1 if declared else 0
    text = text[len(first) :].lstrip("\r\n") if declared else text
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows = []
    try:
        columns = [spelling(_read(column).strip()) for column in next(reader, [])]
        for cells in reader:
            if not any(map(str.strip, cells)):
                continue
            line = reader.line_num + before
            if len(cells) != len(columns):
                raise UserError(f"{path}, line {line}: {_wrong_length(columns, cells)}")
            rows.append(TableRow(path, line, dict(zip(columns, map(_read, cells), strict=True))))
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num + before}: not a comma separated table ({error}).") from None
    if not rows and not (may_be_empty and columns):
        raise UserError(f"{path} holds no rows; expected a header and at least one row below it.")
    if twice := sorted({column for column in columns if column and columns.count(column) > 1}):
        raise UserError(f"{path} has the column `{twice[0]}` twice.")
    return columns, rows


def _text(path: Path) -> str:
    """The text of a file. Raises UserError for a file that cannot be read, or is no UTF-8 text."""
    check_ends(path, "table")
    try:
        data = path.read_bytes()
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise UserError(
                f"{path} is UTF-16 text, as spreadsheets call Unicode text; save it as CSV UTF-8, with commas."
            ) from None
        kind = ", as a spreadsheet is" if data[:2] == b"PK" else ""
        raise UserError(f"{path} is not UTF-8 text (byte {error.start}){kind}; save it as CSV UTF-8.") from None
    except OSError as error:
        raise UserError(f"Cannot read {path}: {(error.strerror or str(error)).lower()}.") from None
    check_pointer(path, text, "table")
    if "\0" in text:
        raise UserError(f"{path} is not UTF-8 text (it holds characters NUL, as UTF-16 does); save it as CSV UTF-8.")
    return text


def _separator(header: str) -> str:
    """What parts most cells of a header, outside of quotes."""
    bare = re.sub(r'"[^"]*"', "", header)
    return max(SEPARATORS, key=bare.count)


def _check_separator(path: Path, separator: str) -> None:
    if separator != ",":
        name = SEPARATORS.get(separator, f"`{separator}`")
        raise UserError(
            f"{path} is separated by {name}; save it separated by commas, with a point in decimals (1.5) and quotes "
            "around text that holds commas."
        )


def _wrong_length(columns: Sequence[str], cells: Sequence[str]) -> str:
    if len(cells) < len(columns):
        return f"the row ends before column `{columns[len(cells)]}`."
    return (
        f"{len(cells)} cells for {len(columns)} columns, the first too many is `{cells[len(columns)]}`; "
        "text with commas needs quotes, and decimals a point."
    )


def write_csv(path: str | Path, columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> Path:
    """Writes a table so that the same content is the same bytes on every machine.

    Numbers have as many digits as float64 needs to be read back exactly. A text that a spreadsheet would run, as it
    begins with = + - or @, stands after an apostrophe, which `read_csv` takes away again.
    """
    lines = [",".join(_cell(value) for value in row) for row in (columns, *rows)]
    return write_atomic(path, ("\n".join(lines) + "\n").encode())


_RUNS = re.compile(r"'*[=+@\t\r-]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|-")


def _safe(text: str) -> str:
    """A text as a spreadsheet shows it instead of running it: after an apostrophe where it begins as formulas do."""
    return f"'{text}" if _RUNS.match(text) and not _NUMBER.fullmatch(text) else text


def _read(text: str) -> str:
    """What `_safe` was given."""
    return text[1:] if text.startswith("'") and _RUNS.match(text) else text


def _cell(value: Cell) -> str:
    if isinstance(value, str):
        value = _safe(value)
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
