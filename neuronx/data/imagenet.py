"""The validation images of ImageNet (ILSVRC 2012): in folders named by WordNet id, or flat with a ground truth file."""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Annotated, Any

from neuronx.data.class_folders import Listing, class_folders
from neuronx.data.files import lines
from neuronx.data.folder import FolderProbe
from neuronx.errors import UserError
from neuronx.options import OptionsOf

HINT = (
    "ImageNet is to be had from https://image-net.org after registration: give the folder of the 50,000 validation "
    "images, in one subfolder for each class or flat beside their ground truth file, as data.root=DIR."
)
PLACES = ("val", "ILSVRC/Data/CLS-LOC/val", "ILSVRC2012_img_val", ".")
TRUTHS = ("ILSVRC2012_validation_ground_truth.txt", "LOC_val_solution.csv", "val.txt", "caffe_ilsvrc12/val.txt")


def imagenet_val(
    root: str | None = None,
    *,
    name: str = "imagenet_val",
    class_names: str | Sequence[str] = "torchvision",
    hierarchy: str | Mapping[str, Sequence[int | str]] | None = "published",
    ground_truth: str | None = None,
    **options: Annotated[Any, OptionsOf(FolderProbe)],
) -> FolderProbe:
    """ImageNet's validation images with the 1000 class indices in their usual order, that of the WordNet ids.

    Args:
        root: Folder of the images, or one that holds them as `val`; `$NEURONX_DATA/imagenet_val` by default.
        name: Used in tables.
        class_names: "torchvision" takes the names that torchvision carries; or "published", a file, or the names.
        hierarchy: "published" fetches the 400 superclasses of Linear Explanations when they are needed; or a JSON file,
            or None.
        ground_truth: For a flat folder: the devkit's file (numbers, with meta.mat beside it), or lines of a file name
            and a class index or WordNet id, separated by space or comma (Caffe's val.txt, Kaggle's
            LOC_val_solution.csv).
        options: Of `FolderProbe`.
    """
    names = torchvision_names() if class_names == "torchvision" else class_names
    listing = partial(list_images, ground_truth=Path(ground_truth).expanduser() if ground_truth else None)
    return FolderProbe(
        root, name=name, class_names=names, hierarchy=hierarchy, list_images=listing, hint=HINT, **options
    )


def torchvision_names() -> tuple[str, ...]:
    """The 1000 class names in class order, as torchvision carries them; two are the names of two classes each."""
    from torchvision.models import ResNet50_Weights

    return tuple(ResNet50_Weights.IMAGENET1K_V1.meta["categories"])


@lru_cache(maxsize=1)
def wordnet_ids() -> tuple[str, ...]:
    """The 1000 WordNet ids in class order."""
    from timm.data import ImageNetInfo

    return tuple(ImageNetInfo("imagenet-1k").label_names())


def list_images(root: Path, ground_truth: Path | None = None) -> Listing:
    """The images under a root in any of the usual layouts; some classes may be missing.

    Raises:
        UserError: If a subfolder is not named by a WordNet id of the 1000 classes, or the ground truth does not fit.
    """
    folder = next(root / place for place in PLACES if (root / place).is_dir())
    found = class_folders(folder)
    if found.labels is not None:
        index = [_class(name, f"A subfolder of {folder}") for name in found.classes]
        return Listing(folder, found.paths, [index[label] for label in found.labels], wordnet_ids())
    truths = [ground_truth] if ground_truth else [at / name for at in (root, folder, folder.parent) for name in TRUTHS]
    truth = next((path for path in truths if path.is_file()), None)
    if truth is None:
        if ground_truth:
            raise UserError(f"There is no ground truth file {ground_truth}.")
        return found
    return Listing(folder, found.paths, read_truth(truth, found.paths), wordnet_ids())


def read_truth(path: Path, images: Sequence[str]) -> list[int]:
    """The class index of each image, from a ground truth file in any of the three usual forms."""
    rows = [re.split(r"[,\s]+", line.strip()) for line in lines(path) if line.strip()]
    rows = [row for row in rows if row[0] != "ImageId"]
    if all(len(row) == 1 for row in rows):
        return _devkit(path, [row[0] for row in rows], images)
    of = {Path(row[0]).stem: _class(row[1], str(path)) for row in rows}
    missing = [image for image in images if Path(image).stem not in of]
    if missing:
        raise UserError(f"{path} says nothing of {len(missing)} images, such as {missing[0]}.")
    return [of[Path(image).stem] for image in images]


def _class(name: str, where: str) -> int:
    """The index of a class, given as WordNet id or as number."""
    index = _indices().get(name, int(name) if name.isdecimal() else -1)
    if not 0 <= index < 1000:
        raise UserError(
            f"{where} names class `{name}`, no WordNet id or number of ImageNet's 1000 classes (data=folder?)."
        )
    return index


@lru_cache(maxsize=1)
def _indices() -> dict[str, int]:
    return {wnid: index for index, wnid in enumerate(wordnet_ids())}


def _devkit(path: Path, numbers: Sequence[str], images: Sequence[str]) -> list[int]:
    from scipy.io import loadmat

    meta = next((at / "meta.mat" for at in (path.parent, path.parent / "data") if (at / "meta.mat").is_file()), None)
    if meta is None:
        raise UserError(f"{path} holds the devkit's own numbers, which need its meta.mat beside it to be understood.")
    if len(numbers) != len(images):
        raise UserError(f"{path} has {len(numbers)} lines for {len(images)} images.")
    synsets = loadmat(meta, squeeze_me=True)["synsets"]
    wnid = {int(one["ILSVRC2012_ID"]): str(one["WNID"]) for one in synsets}
    return [_class(wnid[int(number)], str(meta)) for number in numbers]
