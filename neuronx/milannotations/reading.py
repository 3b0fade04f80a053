"""MILANNOTATIONS by name or folder: the layers of models, and what people said of their units (`annotations.csv`)."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from neuronx.errors import UserError, unknown
from neuronx.milannotations.dataset import Milannotations, join, same_k
from neuronx.milannotations.layer import Layer, layers_in, open_layer
from neuronx.milannotations.published import ANNOTATED, ANNOTATIONS, GROUPS, HOST, UNANNOTATED, from_imagenet
from neuronx.milannotations.published import download as fetch_model
from neuronx.milannotations.reattach import attach, imagenet_pictures
from neuronx.store.cache import data_root
from neuronx.tables.csv import TableRow, any_case, read_csv

Descriptions = Mapping[tuple[str, int], tuple[str, ...]]
"""(layer, unit) -> its descriptions, in the order of the file; units in the order in which they first appear."""


def load(
    name: str = "base",
    root: str | Path | None = None,
    *,
    layers: Sequence[str | int] | None = None,
    annotations: bool | str | Path = True,
    annotation_count: int | Literal["published"] | None = "published",
    download: bool = False,
    host: str = HOST,
    imagenet: str | Path | None = None,
    squash: bool = False,
) -> Milannotations:
    """Units with exemplars and descriptions, by the names that MILAN gave them.

    Args:
        name: A group (`base`, `cls`, `gen`, `imagenet`, `places365`, `alexnet`, `resnet152`, `biggan`,
            `not-alexnet-imagenet`, ...), a model (`alexnet/imagenet`, or any `<network>/<data>` that lies in the root),
            or the folder of a model.
        root: Holds `<network>/<data>` folders; by default `$MILAN_DATA_DIR`, else `$NEURONX_DATA/milannotations`.
        layers: Only these.
        annotations: False leaves the descriptions out; a path gives another table of them, of one model.
        annotation_count: See `read`. "published" is 3 for the published models, in the order of their tables, and all
            units of any other.
        download: Fetch published models that are not there: gigabytes each.
        host: A mirror of the published zips.
        imagenet: The folder of ImageNet's validation images, for models whose images may not be handed out; looked for
            as `imagenet/val` in the root and as `$NEURONX_DATA/imagenet_val` by default.
        squash: Show ImageNet's images squashed to the square, as MILAN did, not cropped as the masks were made.

    Returns:
        The models of the group one after another.

    Raises:
        UserError: If the data are not there, which says where they were looked for and how to get them, or are wrong.
    """
    place = default_root() if root is None else Path(root).expanduser()
    keys = GROUPS.get(name, (name,))
    if len(keys) > 1 and not isinstance(annotations, bool):
        raise UserError(f"`{name}` is {len(keys)} models, and {annotations} one table; load the models one by one.")
    if download:
        for key in keys:
            if key in ANNOTATED:
                fetch_model(key, place, host)
    folders = [_folder(key, place) for key in keys]
    parts = []
    for key, folder in zip(keys, folders, strict=True):
        _complete(key, folder, place, layers, imagenet, squash)
        usual = ANNOTATIONS if key in ANNOTATED else None
        count = usual if annotation_count == "published" else annotation_count
        model = key if folder == place / key and not Path(key).is_absolute() else None
        parts.append(read(folder, model=model, layers=layers, annotations=annotations, annotation_count=count))
    return join(parts)


def default_root() -> Path:
    """Where models are kept: `$MILAN_DATA_DIR`, else `$NEURONX_DATA/milannotations`."""
    given = os.environ.get("MILAN_DATA_DIR")
    return Path(given).expanduser() if given else data_root() / "milannotations"


def _folder(key: str, root: Path) -> Path:
    """Where a model is. A folder without layers does not count, as a failed download of MILAN's own code leaves one."""
    for folder in (root / key, Path(key).expanduser()):
        if folder.is_dir() and layers_in(folder):
            return folder
    if key in ANNOTATED:
        raise UserError(
            f"MILANNOTATIONS of {key} are not in {root / key}: give the folder that holds {key} as root=DIR "
            f"(MILAN_DATA_DIR=DIR), put {HOST}/{key.replace('/', '-')}.zip there unzipped, or load with download=True."
        )
    if key in UNANNOTATED:
        raise UserError(
            f"Exemplars of {key} are not in {root / key}, and were never published: make them with "
            "`evaluate.py 'explain=[]' 'sim=[]' exemplars=15` and give their folder."
        )
    if Path(key).expanduser().is_dir():
        inside = sorted(path.name for path in Path(key).expanduser().iterdir() if path.is_dir())
        models = [name for name in inside if layers_in(Path(key).expanduser() / name)]
        hint = f" Its folder {models[0]} does." if models else ""
        raise UserError(f"{key} holds no layers, folders with images.npy and masks.npy.{hint}")
    raise unknown("set of MILANNOTATIONS", key, [*GROUPS, *ANNOTATED, *UNANNOTATED], f"No folder {root / key} either.")


def _complete(
    key: str, folder: Path, root: Path, layers: Sequence[str | int] | None, imagenet: str | Path | None, squash: bool
) -> None:
    """Brings ImageNet's images to layers that have none."""
    wanted = layers_in(folder) if layers is None else [str(layer) for layer in layers]
    bare = [name for name in wanted if (folder / name).is_dir() and not (folder / name / "images.npy").is_file()]
    if not bare or not (from_imagenet(key) or imagenet is not None):
        return
    places = [Path(imagenet).expanduser()] if imagenet else [root / "imagenet" / "val", data_root() / "imagenet_val"]
    source = next((place for place in places if place.is_dir()), None)
    if source is None:
        raise UserError(
            f"Layer {bare[0]} of {key} ({folder}) is missing images.npy, which its authors may not hand out: give the "
            "folder of ImageNet's 50,000 validation images as imagenet=DIR; there is no "
            f"{' and no '.join(map(str, places))}."
        )
    attach(folder, imagenet_pictures(source), layers=bare, squash=squash)


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

    def check(row: TableRow, layer: str, unit: int) -> bool:
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


def read_descriptions(
    path: str | Path,
    *,
    layer_column: str = "layer",
    unit_column: str = "unit",
    column: str = "summary",
    check: Callable[[TableRow, str, int], bool] = lambda *_: True,
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
    columns, rows = read_csv(path, any_case(layer_column, unit_column, column))
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
