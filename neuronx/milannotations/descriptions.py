"""What people said of units: `annotations.csv`, a line for each description."""

from collections.abc import Callable, Mapping
from pathlib import Path

from neuronx.errors import UserError
from neuronx.tables.csv import Row, read_csv

Descriptions = Mapping[tuple[str, int], tuple[str, ...]]
"""(layer, unit) -> its descriptions, in the order of the file; units in the order in which they first appear."""


def read_descriptions(
    path: str | Path,
    *,
    layer_column: str = "layer",
    unit_column: str = "unit",
    column: str = "summary",
    check: Callable[[Row, str, int], bool] = lambda *_: True,
) -> Descriptions:
    """Reads a table of descriptions, without their images. Layers stay text (`0`), and texts are as they stand there.

    Args:
        path: A CSV with a header; further columns are left alone, and the order of columns does not matter.
        layer_column: Of the layer.
        unit_column: Of the unit's number.
        column: Of the description.
        check: From a row, its layer and unit: whether it is wanted. May raise UserError.

    Raises:
        UserError: If a column is missing, a unit is no whole number from 0, or a description is empty; it names the
            file and line.
    """
    columns, rows = read_csv(path)
    for wanted in (layer_column, unit_column, column):
        if wanted not in columns:
            raise UserError(f"{path} has no column `{wanted}`, only {', '.join(columns)}.")
    found: dict[tuple[str, int], list[str]] = {}
    for row in rows:
        layer, unit, text = row.cells[layer_column], row.whole(unit_column), row.cells[column]
        if unit < 0:
            raise row.wrong(unit_column, f"units count from 0, found {unit}")
        if not text.strip():
            raise row.wrong(column, f"the description of unit {unit} of layer {layer} is empty")
        if check(row, layer, unit):
            found.setdefault((layer, unit), []).append(text)
    return {key: tuple(texts) for key, texts in found.items()}
