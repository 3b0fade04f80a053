"""Pictures in a folder, with labels, names of classes and a hierarchy where they are known."""

import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from neuronx.data.class_folders import Listing, class_folders, named
from neuronx.data.files import examined, open_rgb, readable, scale_for
from neuronx.data.probe import Probe, splits_of
from neuronx.data.published import published_for
from neuronx.errors import UserError, brief, first_line, unknown
from neuronx.options import Count, Natural, Seed, Share
from neuronx.store.cache import data_root, digest
from neuronx.store.given_file import given_file

log = logging.getLogger(__name__)


class FolderProbe(Probe):
    """Image files with labels, class names and a hierarchy where they are known."""

    def __init__(
        self,
        root: str | Path | None = None,
        *,
        name: str | None = None,
        domain: str = "natural",
        class_names: str | Path | Sequence[str] | Mapping[str, str] | None = None,
        hierarchy: str | Path | Mapping[str, Sequence[int | str]] | None = None,
        splits: Seed | str | Path = 0,
        max_unreadable: Share = 0.01,
        upright: bool = True,
        list_images: Callable[[Path], Listing] = class_folders,
        hint: str = "",
        batch_size: Count = 64,
        num_workers: Natural | None = None,
    ) -> None:
        """Lists the images, reads each once (remembered while the files do not change) and splits them.

        Args:
            root: The folder; `$NEURONX_DATA/<name>` by default.
            name: Used in tables; the folder's by default.
            domain: The kind of pictures.
            class_names: A name for each class, or a text file with one a line, or {folder: name}, or "published"; the
                folders' names by default. Folders that are called by numbers have the names of their numbers.
            hierarchy: {superclass: [class, ...]} or a JSON file of it, classes by index, name or folder; or
                "published", for data that has one.
            splits: A seed, a folder of id files, or "published"; see `splits_of`.
            max_unreadable: Share of images that may fail to decode; they are named, counted and skipped.
            upright: Turns pictures, and the labels of their pixels, as their EXIF orientation says; False leaves them
                as they are stored.
            list_images: Finds the images under the root.
            hint: How to get the data, for the message when it is not there.
            batch_size: Of the loader.
            num_workers: Processes that decode; by default one for each processor but one, at most 8.

        Raises:
            UserError: If the folder is missing or empty, too many images do not decode, or names do not fit.
        """
        workers = min(8, (os.cpu_count() or 2) - 1) if num_workers is None else num_workers
        super().__init__(batch_size=batch_size, num_workers=workers)
        if not 0 <= max_unreadable <= 1:
            raise UserError(f"data.max_unreadable={max_unreadable}: it is a share, from 0 to 1.")
        self.root = found_root(root, name or "", hint)
        self.name = name or self.root.resolve().name
        self.domain = domain
        listing = list_images(self.root)
        if not listing.paths:
            raise UserError(f"There are no images in {listing.folder}. {hint}".strip())
        found = examined(listing.folder, listing.paths, self.name)
        kept = readable(found, listing.paths, self.name, max_unreadable)
        self.folder, self.paths = listing.folder, [listing.paths[i] for i in kept]
        self.upright, self._files = upright, [found[i] for i in kept]
        self._contents = [file.content for file in self._files]
        if copies := len(kept) - len(set(self._contents)):
            log.warning("%d pictures of %s are copies of others, which may be in train and in test", copies, self.name)
        self._scale = scale_for(self._files, self.name)
        self.folders, self._hierarchy = tuple(listing.classes), hierarchy
        self.segmentation = listing.segmentation(kept, self._files, upright) if listing.segmentation else None
        if listing.labels is not None:
            given = listing.classes if class_names is None else class_names
            if given == "published":
                given = published_for("classes", self.name, "take data.class_names=FILE")
            self.class_names, index = named(given, listing, self.name)
            self.labels = torch.tensor([index[listing.labels[i]] for i in kept])
            folder_of = dict(zip(index, listing.classes, strict=True))
            self.folders = tuple(folder_of.get(label, "") for label in range(len(self.class_names)))
        self.splits = splits_of(splits, len(listing.paths), self.name, torch.tensor(kept))

    def __len__(self) -> int:
        return len(self.paths)

    def load(self, rows: Sequence[int]) -> list[Image.Image]:
        """The pictures in RGB.

        Raises:
            UserError: For a file that can no longer be read as when the folder was listed.
        """
        return [self._open(self.folder / self.paths[row]) for row in rows]

    def _open(self, path: Path) -> Image.Image:
        try:
            return open_rgb(path, self._scale, self.upright)
        except Exception as error:  # what PIL raises on damaged files is of a dozen kinds
            raise UserError(f"{path} cannot be read, but could be before: {first_line(error)}.") from error

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the files' bytes, in order; where they lie and what they are called does not matter.

        And of how they are read, where that is not told by the bytes alone.
        """
        turned = self.upright and any(file.turn > 1 for file in self._files)
        grey = astuple(self._scale) if any(file.extent for file in self._files) else None
        return digest([self._contents, turned, grey] if turned or grey else self._contents)

    @cached_property
    def hierarchy(self) -> Mapping[str, Sequence[int]]:  # type: ignore[override]
        """Superclass to classes; read, or fetched, when first asked for."""
        if self._hierarchy is None:
            return {}
        given = self._hierarchy
        if given == "published":
            given = published_for("hierarchies", self.name, "take data.hierarchy=FILE, or null for none")
        return read_hierarchy(given, self.class_names, self.folders)

    def image_name(self, row: int) -> str:
        """The path in the data's folder."""
        return self.paths[row]


def found_root(root: str | Path | None, name: str, hint: str = "") -> Path:
    """The data's folder: `root`, or `$NEURONX_DATA/<name>`.

    Raises:
        UserError: If it is not there; says how to get the data.
    """
    if (root is None and not name) or root == "":
        raise UserError("Say which folder holds the images: data.root=DIR.")
    if not isinstance(root, str | Path | None):
        raise UserError(f"data.root={brief(root)} is no folder: give its path as data.root=DIR.")
    path = Path(root).expanduser() if root is not None else data_root() / name
    if path.is_dir():
        return path
    where = f"{path} (given as data.root)" if root is not None else f"{path} ($NEURONX_DATA/{name})"
    raise UserError(f"There is no folder {where}. {hint or 'Say where the images are: data.root=DIR.'}")


def read_hierarchy(
    given: str | Path | Mapping[str, Sequence[int | str]], class_names: Sequence[str], folders: Sequence[str] = ()
) -> dict[str, tuple[int, ...]]:
    """Superclass to the sorted class indices that it covers, in the file's order.

    Args:
        given: {superclass: [class, ...]}, or a JSON file of it; a class is an index, a class name or a class folder.
        class_names: Of the data, in class order.
        folders: Of the classes, in class order.

    Raises:
        UserError: If the file is no such JSON, or names a class that does not exist.
    """
    where = str(given) if isinstance(given, str | Path) else "hierarchy"
    covers = _json(Path(given).expanduser()) if isinstance(given, str | Path) else given
    if not isinstance(covers, Mapping) or not all(isinstance(ids, Sequence) for ids in covers.values()):
        raise UserError(f"{where} is not of the form {{superclass: [class, ...]}}.")
    index = {one: i for names in (class_names, folders) for i, one in reversed(list(enumerate(names)))}
    return {
        name: tuple(sorted({_index(c, index, len(class_names), where) for c in ids})) for name, ids in covers.items()
    }


def _index(one: int | str, index: Mapping[str, int], count: int, where: str) -> int:
    if isinstance(one, str):
        if one not in index:
            raise unknown("class", one, index, f"It is named in {where}.")
        return index[one]
    if isinstance(one, bool) or not isinstance(one, int) or not 0 <= one < count:
        raise UserError(f"{where} names class {one}, but the classes are 0 to {count - 1}.")
    return one


def _json(path: Path) -> Any:
    if path.exists():
        given_file(path, "JSON file")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"The hierarchy {path} cannot be read: {error.strerror} (from {Path.cwd()}).") from None
    except ValueError as error:
        raise UserError(f"The hierarchy {path} is not JSON: {error}") from None
