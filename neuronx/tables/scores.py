"""Scores, leaderboards and comparisons on disk: no time, path or device in them, so the same work is the same bytes."""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TypeVar

from neuronx.tables.csv import write_csv
from neuronx.types import Cell, Score

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
