"""The validation images of Places365, small (256 pixels)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from neuronx.data.class_folders import Listing
from neuronx.data.files import lines
from neuronx.data.folder import FolderProbe
from neuronx.errors import UserError
from neuronx.options import OptionsOf

HINT = (
    "Get it with torchvision.datasets.Places365(DIR, split='val', small=True, download=True), or from "
    "http://places2.csail.mit.edu, and give data.root=DIR, which holds val_256/, places365_val.txt and "
    "categories_places365.txt."
)


def places365_val(
    root: str | None = None,
    *,
    name: str = "places365_val",
    class_names: str | Sequence[str] | None = None,
    hierarchy: str | Mapping[str, Sequence[int | str]] | None = None,
    **options: Annotated[Any, OptionsOf(FolderProbe)],
) -> FolderProbe:
    """Places365's 36,500 validation images, in the order of its own list.

    Args:
        root: Folder of the official files; `$NEURONX_DATA/places365_val` by default.
        name: Used in tables.
        class_names: From categories_places365.txt by default; or "published", a file, or the names.
        hierarchy: A JSON file of superclasses; none is published.
        options: Of `FolderProbe`.
    """
    return FolderProbe(
        root, name=name, class_names=class_names, hierarchy=hierarchy, list_images=list_images, hint=HINT, **options
    )


def list_images(root: Path) -> Listing:
    """The images that places365_val.txt lists.

    Raises:
        UserError: If a file of the data set is missing.
    """
    folder = next((root / at for at in ("val_256", "val_large") if (root / at).is_dir()), None)
    if folder is None:
        raise UserError(f"There is no folder val_256 in {root}. {HINT}")
    rows = [line.split() for line in lines(root / "places365_val.txt") if line.strip()]
    absent = [row[0] for row in rows if not (folder / row[0]).is_file()]
    if absent:
        raise UserError(f"{len(absent)} of {len(rows)} images are not in {folder}, such as {absent[0]}. {HINT}")
    classes = categories(root / "categories_places365.txt")
    return Listing(folder, [row[0] for row in rows], [int(row[1]) for row in rows], classes)


def categories(path: Path) -> list[str]:
    """Readable class names by index: the line `/a/apartment_building/outdoor 8` names "apartment building, outdoor"."""
    rows = [line.split() for line in lines(path) if line.strip()]
    named = {int(index): raw[3:].replace("_", " ").replace("/", ", ") for raw, index in rows}
    return [named[index] for index in range(len(named))]
