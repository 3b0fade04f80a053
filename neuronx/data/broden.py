"""Broden: the picture set of Network Dissection, with labels of pixels and of whole images where it has its index."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from neuronx.data.broden_index import read_index, read_labels
from neuronx.data.broden_segmentation import BrodenSegmentation
from neuronx.data.files import pictures_in
from neuronx.data.folder import FolderProbe, Listing
from neuronx.data.text import lines
from neuronx.errors import UserError

HINT = (
    "Broden was at http://netdissect.csail.mit.edu/data/broden1_224.zip (1 GB): unpack it and give the folder that "
    "holds images/ as data.root=DIR."
)
INDEX = "index.csv"


def broden(
    root: str | None = None,
    *,
    name: str = "broden",
    index: str | None = INDEX,
    categories: str | Sequence[str] | None = None,
    split: str | None = None,
    **options: Any,
) -> FolderProbe:
    """The images of broden1_224 or broden1_227, without class labels.

    With an index: the images that have a label in a selected category, in the order of the index, and what each of
    their pixels shows. Without one: all photographs, in the order of their paths.

    Args:
        root: The folder that holds `images/` and the index files; `$NEURONX_DATA/broden` by default.
        name: Used in tables.
        index: File in the root; None leaves the labels out.
        categories: Kinds of labels to keep, such as object and part; all that category.csv lists by default.
        split: Only the images that the index marks "train" or "val"; all by default.
        options: Of `FolderProbe`.

    Raises:
        UserError: As `read_labels` and `read_index`; or a row whose image or picture of labels is missing.
    """
    kinds = [categories] if isinstance(categories, str) else categories

    def list_images(root: Path) -> Listing:
        path = root / (index or INDEX)
        if not path.is_file() and index not in (None, INDEX):
            raise UserError(f"There is no index {path} (data.index).")
        # A table of nothing but a header lists no image: nobody knows more of the photographs than without it.
        if index is None or not path.is_file() or len(lines(path)) < 2:
            return photographs(root)
        return annotated(root, path, kinds, split)

    return FolderProbe(root, name=name, list_images=list_images, hint=HINT, **options)


def photographs(root: Path) -> Listing:
    """All JPEG files under `images/`; the PNG files beside them are segmentations."""
    folder = _images(root)
    return Listing(folder, pictures_in(folder, frozenset({".jpg", ".jpeg"})))


def annotated(root: Path, index: Path, categories: Sequence[str] | None, split: str | None) -> Listing:
    """The images of an index, in its order, with their segmentation."""
    table, folder = read_labels(root, categories), _images(root)
    images = read_index(index, table, split)
    there = set(pictures_in(folder))
    for one in images:
        for path, what in ((one.image, "image"), *((path, "picture of labels") for path in one.pixels)):
            if str(Path(path)) not in there:
                raise UserError(f"{index}, line {one.row.line}: there is no {what} {folder / path}.")
    return Listing(
        folder,
        [one.image for one in images],
        segmentation=lambda kept: BrodenSegmentation(table, folder, tuple(images[position] for position in kept)),
    )


def _images(root: Path) -> Path:
    return root / "images" if (root / "images").is_dir() else root
