"""CIFAR-10 and CIFAR-100, from the official binary or Python files; no pickled code is ever run."""

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from neuronx.data.files import lines
from neuronx.data.folder import found_root
from neuronx.data.in_memory import InMemoryProbe
from neuronx.errors import UserError
from neuronx.options import Count, Natural, Seed

FOLDERS = {10: ("cifar-10-batches-bin", "cifar-10-batches-py"), 100: ("cifar-100-binary", "cifar-100-python")}
TRAIN = {10: [f"data_batch_{i}" for i in range(1, 6)], 100: ["train"]}
TEST = {10: ["test_batch"], 100: ["test"]}


def cifar(
    root: str | None = None,
    *,
    classes: int = 10,
    train: bool = False,
    name: str | None = None,
    splits: Seed | str = 0,
    superclasses: bool = True,
    batch_size: Count = 64,
    num_workers: Natural = 0,
) -> InMemoryProbe:
    """CIFAR's 10,000 test or 50,000 training images, 32 x 32.

    Args:
        root: Folder of the official files, or the one that holds it; `$NEURONX_DATA/cifar10` or `cifar100` by default.
        classes: 10 or 100.
        train: The training images rather than the test images (which the field calls val).
        name: Used in tables; cifar10_val and the like by default.
        splits: A seed, a folder of id files, or "published" (for cifar100_val).
        superclasses: For 100 classes, CIFAR's own 20 superclasses as hierarchy; those that differ by a number only
            ("vehicles 1", "vehicles 2") are one, as in Linear Explanations.
        batch_size: Of the loader.
        num_workers: Processes that load.

    Raises:
        UserError: If the files are missing, cut short, or are pickles of anything but arrays.
    """
    name = name or f"cifar{classes}_{'train' if train else 'val'}"
    hint = (
        f"Get it with torchvision.datasets.CIFAR{classes}(DIR, download=True), or from "
        "https://www.cs.toronto.edu/~kriz/cifar.html, and give data.root=DIR. (Images in class folders: data=folder.)"
    )
    top = found_root(root, f"cifar{classes}", hint)
    stems = (TRAIN if train else TEST)[classes]
    for folder in [top, *(top / at for at in FOLDERS[classes])]:
        if (folder / f"{stems[0]}.bin").is_file():
            images, fine, coarse, names = _binary(folder, stems, classes)
            break
        if (folder / stems[0]).is_file():
            images, fine, coarse, names = _python(folder, stems, classes)
            break
    else:
        raise UserError(f"There are no files of CIFAR-{classes} in {top}. {hint}")
    return InMemoryProbe(
        torch.from_numpy(images.reshape(-1, 3, 32, 32)),
        labels=torch.from_numpy(fine.astype(np.int64)),
        class_names=[one.replace("_", " ") for one in names[0]],
        hierarchy=_hierarchy(fine, coarse, names[1]) if superclasses else None,
        name=name,
        splits=splits,
        as_pictures=True,
        batch_size=batch_size,
        num_workers=num_workers,
    )


Raw = tuple[np.ndarray, np.ndarray, np.ndarray | None, tuple[Sequence[str], Sequence[str]]]
"""Pixels (N, 3072) uint8, fine labels (N,), coarse labels (N,) or None, names of fine and coarse classes."""


def _binary(folder: Path, stems: Sequence[str], classes: int) -> Raw:
    """Records of one label byte (two for 100 classes: coarse, fine) and 3072 pixels, channel by channel."""
    head = 1 if classes == 10 else 2
    parts = []
    for stem in stems:
        data = np.fromfile(folder / f"{stem}.bin", np.uint8)
        if len(data) == 0 or len(data) % (3072 + head):
            raise UserError(f"{folder / stem}.bin is cut short: {len(data)} bytes are no whole number of images.")
        parts.append(data.reshape(-1, 3072 + head))
    data = np.concatenate(parts)
    fine = [f for f in lines(folder / ("batches.meta.txt" if classes == 10 else "fine_label_names.txt")) if f.strip()]
    coarse = [] if classes == 10 else [c for c in lines(folder / "coarse_label_names.txt") if c.strip()]
    return data[:, head:].copy(), data[:, head - 1], data[:, 0] if head == 2 else None, (fine, coarse)


def _python(folder: Path, stems: Sequence[str], classes: int) -> Raw:
    batches = [_unpickle(folder / stem) for stem in stems]
    meta = _unpickle(folder / ("batches.meta" if classes == 10 else "meta"))

    def column(key: str) -> np.ndarray:
        return np.concatenate([np.asarray(batch[key]) for batch in batches])

    try:
        if classes == 10:
            return column("data"), column("labels"), None, (meta["label_names"], [])
        names = (meta["fine_label_names"], meta["coarse_label_names"])
        return column("data"), column("fine_labels"), column("coarse_labels"), names
    except KeyError as error:
        raise UserError(f"{folder} holds no CIFAR-{classes} files: {error} is missing in them.") from None


class _ArraysOnly(pickle.Unpickler):
    """Reads pickles of plain values and numpy arrays; anything else is refused before it could run."""

    ALLOWED = frozenset({("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}) | frozenset(
        (f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")
    )

    def find_class(self, module: str, name: str) -> Any:
        """Gives the few names that arrays are made of."""
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return super().find_class(module.replace("numpy.core", "numpy._core") if NUMPY_2 else module, name)


NUMPY_2 = int(np.__version__.split(".")[0]) >= 2


def _unpickle(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return _ArraysOnly(file, encoding="latin1").load()
    except FileNotFoundError:
        raise UserError(f"There is no file {path}, which belongs to CIFAR.") from None
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise UserError(f"{path} is no CIFAR file: {error}.") from None


def _hierarchy(fine: np.ndarray, coarse: np.ndarray | None, names: Sequence[str]) -> dict[str, list[int]]:
    """Superclass to its classes, read off the images that have both labels."""
    found: dict[str, set[int]] = {}
    if coarse is not None:
        for number, name in enumerate(names):
            spoken = name.replace("_", " ").rstrip("0123456789 ")
            found.setdefault(spoken, set()).update(np.unique(fine[coarse == number]).tolist())
    return {name: sorted(classes) for name, classes in found.items()}
