"""Scores, leaderboards and comparisons to and from disk: no time, path or device in them, so same work, same bytes."""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TypeVar, get_type_hints

from neuronx.errors import UserError
from neuronx.tables.csv import Row, read_csv, write_csv
from neuronx.types import Cell, Score, Unit

TEXTS = ("target", "pool", "method", "score", "status", "explanation", "judge", "images")
COLUMNS = ("target", "layer", "pool", "unit", "part", "method", "score", "value", "sem", "n", *TEXTS[4:])
STATUSES = ("ok", "inactive", "unjudged", "no_effect")

Record = TypeVar("Record")


def write_scores(path: str | Path, scores: Sequence[Score]) -> Path:
    """Writes `scores.csv`, one row a unit, method and score, in the order given; NaN is an empty cell."""
    return write_csv(path, COLUMNS, map(cells, scores))


def cells(score: Score) -> list[Cell]:
    """A row of `scores.csv`."""
    unit: dict[str, Cell] = {"layer": score.unit.layer, "unit": score.unit.index, "part": score.unit.part}
    return [unit[name] if name in unit else getattr(score, name) for name in COLUMNS]


def read_scores(path: str | Path) -> list[Score]:
    """Reads `scores.csv`. Raises UserError with file, line and column where it is not as `write_scores` writes it."""
    found = []
    for row in _rows(path, COLUMNS):
        if row.cells["status"] not in STATUSES:
            raise row.wrong("status", f"found `{row.cells['status']}`, expected one of {', '.join(STATUSES)}")
        part = row.whole("part") if row.cells["part"] else None
        found.append(
            Score(
                unit=Unit(row.cells["layer"], row.whole("unit"), part),
                value=row.number_or_nan("value"),
                sem=row.number_or_nan("sem"),
                n=row.whole("n"),
                **{name: row.cells[name] for name in TEXTS},
            )
        )
    return found


def write_records(path: str | Path, kind: type[Record], records: Sequence[Record]) -> Path:
    """Writes flat dataclasses, such as `LeaderboardRow` and `Comparison`, a column for each field."""
    columns = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    return write_csv(path, columns, [[getattr(record, name) for name in columns] for record in records])


def read_records(path: str | Path, kind: type[Record]) -> list[Record]:
    """Reads back what `write_records` wrote. Raises UserError with file, line and column where it is not that."""
    kinds = get_type_hints(kind)
    return [kind(**{name: _value(row, name, of) for name, of in kinds.items()}) for row in _rows(path, tuple(kinds))]


def _value(row: Row, column: str, kind: type) -> str | float:
    if kind is str:
        return row.cells[column]
    return row.whole(column) if kind is int else row.number_or_nan(column)


def _rows(path: str | Path, columns: Sequence[str]) -> list[Row]:
    there, rows = read_csv(path)
    if missing := [name for name in columns if name not in there]:
        raise UserError(f"{path} has no column `{missing[0]}`; it has {', '.join(there[:8])}.")
    return rows
