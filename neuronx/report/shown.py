"""What Python calls give back: lists that show as tables, in a notebook and in a terminal, and become pandas frames."""

import base64
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from html import escape
from typing import TYPE_CHECKING, Generic, TypeVar

from neuronx.report.evaluation import LeaderboardRow
from neuronx.tables.csv import COLUMNS, cells
from neuronx.types import Cell, Explanation, PartSamples, Score, Table

if TYPE_CHECKING:
    import pandas
    from PIL.Image import Image

Item = TypeVar("Item")
LINES = 60
"""Rows of a table that are printed; a frame has them all."""
SAID_ONCE = (
    "target",
    "layer",
    "pool",
    "part",
    "score",
    "n",
    "n_inactive",
    "n_unjudged",
    "n_no_effect",
    "judge",
    "images",
    "n_broken",
    "n_untested",
    "n_rare",
)
"""Columns that are printed above a table where all rows agree."""


class Shown(list[Item], Generic[Item]):
    """A list that knows its columns; some come with a picture.

    Args:
        items: What is listed.
        table: From the items to columns and rows.
        picture: Draws what a notebook shows above the table.
        printed: The columns and rows that are shown, where they are not those of the table.
    """

    def __init__(
        self,
        items: Iterable[Item],
        table: Callable[[Sequence[Item]], Table],
        picture: "Callable[[], Image | None] | None" = None,
        printed: Callable[[Sequence[Item]], Table] | None = None,
    ) -> None:
        super().__init__(items)
        self._table, self._picture, self._printed = table, picture, printed or table

    @property
    def picture(self) -> "Image | None":
        """The picture that goes with it, if there is one."""
        return self._picture() if self._picture is not None else None

    def frame(self) -> "pandas.DataFrame":
        """The table as a pandas frame."""
        import pandas

        columns, rows = self._table(self)
        return pandas.DataFrame([list(row) for row in rows], columns=list(columns))

    def _shown(self) -> tuple[str, list[str], list[list[Cell]]]:
        """What all rows have in common, then the other columns and the rows of these."""
        columns, rows = self._printed(self)
        if len(rows) < 2:
            return "", list(columns), [list(row) for row in rows]
        same = {
            name: rows[0][at]
            for at, name in enumerate(columns)
            if name in SAID_ONCE and len({r[at] for r in rows}) == 1
        }
        kept = [at for at, name in enumerate(columns) if name not in same]
        above = ", ".join(f"{name} {_text(cell)}" for name, cell in same.items() if cell not in (None, ""))
        return above, [columns[at] for at in kept], [[row[at] for at in kept] for row in rows]

    def __repr__(self) -> str:
        above, columns, rows = self._shown()
        texts = [list(columns), *([_text(cell) for cell in row] for row in rows[:LINES])]
        widths = [max(len(row[at]) for row in texts) for at in range(len(columns))]
        right = [all(not isinstance(row[at], str) for row in rows) for at in range(len(columns))]
        lines = [
            "  ".join(
                text.rjust(width) if number else text.ljust(width)
                for text, width, number in zip(row, widths, right, strict=True)
            ).rstrip()
            for row in texts
        ]
        more = [f"... {len(rows) - LINES} more rows; .frame() has them all"] if len(rows) > LINES else []
        return "\n".join([*([above] if above else []), *lines, *more])

    __str__ = __repr__

    def _repr_html_(self) -> str:
        above, columns, rows = self._shown()
        head = "".join(f"<th>{escape(column)}</th>" for column in columns)
        body = "".join(f"<tr>{''.join(f'<td>{escape(_text(cell))}</td>' for cell in row)}</tr>" for row in rows[:LINES])
        more = f"<p>{len(rows) - LINES} more rows; .frame() has them all</p>" if len(rows) > LINES else ""
        top = f"{self._image()}<p>{escape(above)}</p>" if above else self._image()
        return f"{top}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"

    def _image(self) -> str:
        from neuronx.report.tiles import png

        picture = self.picture
        return f'<img src="data:image/png;base64,{base64.b64encode(png(picture)).decode()}">' if picture else ""


def explanations_table(explanations: Sequence[Explanation]) -> tuple[list[str], list[list[Cell]]]:
    """Layer, unit, explanation in words, every number noted, and how many train and test images show each concept."""
    notes = list(dict.fromkeys(name for explanation in explanations for name, _ in explanation.notes))
    support = any(explanation.support for explanation in explanations)
    rows: list[list[Cell]] = [
        [
            explanation.unit.layer,
            explanation.unit.index,
            explanation.unit.part,
            str(explanation),
            *(dict(explanation.notes).get(name) for name in notes),
            *([explanation.support_text] if support else []),
        ]
        for explanation in explanations
    ]
    return ["layer", "unit", "part", "explanation", *notes, *(["support"] if support else [])], rows


def explanations(items: Iterable[Explanation], samples: Sequence[PartSamples] = ()) -> Shown[Explanation]:
    """Explanations as a table; with samples, the parts of the first unit as its picture."""

    def picture() -> "Image | None":
        from neuronx.report.part_pictures import picture_of_parts

        return picture_of_parts(samples[0]) if samples else None

    return Shown(items, explanations_table, picture)


def scores(items: Iterable[Score]) -> Shown[Score]:
    """Scores as the table `scores.csv`."""
    return Shown(items, lambda rows: (COLUMNS, [cells(score) for score in rows]))


def leaderboard_rows(items: Iterable[LeaderboardRow]) -> Shown[LeaderboardRow]:
    """A leaderboard as the table `leaderboard.csv`; what is printed says over how many of how many units a mean is."""
    names = [field.name for field in fields(LeaderboardRow)]
    printed = ["units" if name == "n_units" else name for name in names]

    def table(columns: Sequence[str]) -> Callable[[Sequence[LeaderboardRow]], Table]:
        return lambda rows: (columns, [[getattr(row, name) for name in columns] for row in rows])

    return Shown(items, table(names), printed=table(printed))


def _text(cell: Cell) -> str:
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)
