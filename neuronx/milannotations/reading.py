"""Reads the folder of a model: its layers, and what people said of their units."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from neuronx.errors import UserError, unknown
from neuronx.milannotations.dataset import Milannotations, same_k
from neuronx.milannotations.descriptions import Descriptions, read_descriptions
from neuronx.milannotations.layer import Layer, layers_in, open_layer
from neuronx.tables.csv import Row


def read(
    folder: str | Path,
    *,
    model: str | None = None,
    layers: Sequence[str | int] | None = None,
    annotations: bool | str | Path = True,
    annotation_count: int | None = None,
    **columns: str,
) -> Milannotations:
    """Opens the folder of one model, in the published layout; reads no pixels.

    Args:
        folder: Holds a folder for each layer, and `annotations.csv` where people described the units.
        model: What it is called; by default by the names of the folder and the one around it, `alexnet/imagenet`.
        layers: Only these; by default all, sorted as text.
        annotations: Whether to read `annotations.csv` if it is there; or another table of descriptions, which must be.
        annotation_count: None gives every unit that has images, by layer and row, with any number of descriptions. A
            number leaves out the units with fewer descriptions and cuts off those beyond it; units then come in the
            order in which the table first names them. Without a table it does nothing.
        columns: `layer_column`, `unit_column` and `column` of the table; see `read_descriptions`.

    Raises:
        UserError: If the folder, a layer, or anything in it is not as it should be, a unit is described that has no
            images, or no unit has as many descriptions; it names the file.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise UserError(f"The folder {root} was not found; expected one with a folder for each layer.")
    model = model or "/".join(root.resolve().parts[-2:]).lstrip("/")
    here = layers_in(root)
    if not here:
        raise UserError(f"{root} holds no layers, folders with images.npy and masks.npy.")
    chosen = here if layers is None else sorted({str(layer) for layer in layers})
    if missing := sorted(set(chosen) - set(here)):
        raise unknown("layer", missing[0], here, f"Looked in {root}.")
    opened = same_k([open_layer(root / name, model) for name in chosen], str(root))
    table = root / "annotations.csv" if isinstance(annotations, bool) else Path(annotations).expanduser()
    wanted = annotations is not False and (table.is_file() or not isinstance(annotations, bool))
    said = _descriptions(table, opened, here, columns) if wanted else None
    return _ordered(opened, said, annotation_count if wanted else None, table)


def _descriptions(table: Path, opened: Sequence[Layer], here: Sequence[str], columns: dict[str, str]) -> Descriptions:
    """What was said of the units of the opened layers; those of layers that are `here` but not wanted are left out."""
    units = {layer.name: set(layer.units.tolist()) for layer in opened}
    asked = columns.get("layer_column", "layer"), columns.get("unit_column", "unit")

    def check(row: Row, layer: str, unit: int) -> bool:
        if layer not in here:
            raise row.wrong(asked[0], f"layer `{layer}` has no images in {opened[0].folder.parent}")
        if layer in units and unit not in units[layer]:
            raise row.wrong(asked[1], f"unit {unit} of layer `{layer}` has no images")
        return layer in units

    return read_descriptions(table, check=check, **columns)


def _ordered(opened: tuple[Layer, ...], said: Descriptions | None, count: int | None, table: Path) -> Milannotations:
    if said is None or count is None:
        said = said or {}
        places = [(at, row) for at, layer in enumerate(opened) for row in range(len(layer.units))]
        of = [said.get((layer.name, unit), ()) for layer in opened for unit in layer.units.tolist()]
        return Milannotations(opened, np.array(places, dtype=np.int64), tuple(of))
    if count < 1:
        raise UserError(f"annotation_count={count} leaves nothing to read; give at least 1, or None for all units.")
    enough = {key: texts[:count] for key, texts in said.items() if len(texts) >= count}
    if not enough:
        raise UserError(f"{table} has no unit with {count} descriptions (annotation_count={count}).")
    rows = {
        (layer.name, unit): (at, row)
        for at, layer in enumerate(opened)
        for row, unit in enumerate(layer.units.tolist())
    }
    return Milannotations(opened, np.array([rows[key] for key in enough]), tuple(enough.values()))
