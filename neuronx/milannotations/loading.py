"""`load`: the MILANNOTATIONS by name, from where they are kept."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from neuronx.errors import UserError, unknown
from neuronx.milannotations.dataset import Milannotations, join
from neuronx.milannotations.keys import ANNOTATED, ANNOTATIONS, GROUPS, UNANNOTATED, from_imagenet
from neuronx.milannotations.layer import layers_in
from neuronx.milannotations.reading import read
from neuronx.milannotations.reattach import attach, imagenet_pictures
from neuronx.milannotations.zips import HOST
from neuronx.milannotations.zips import download as fetch_model
from neuronx.store.cache import data_root


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
