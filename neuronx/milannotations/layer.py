"""One layer of a model on disk: images and masks of its units, mapped and never read as a whole."""

from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from neuronx.errors import UserError

FILES = ("masks.npy", "images.npy", "ids.csv")
"""A folder that holds any of them is a layer's; all others (`viz`, say) are something else."""


@dataclass(frozen=True)
class Layer:
    """The folder of a layer. Nothing of it is open until asked for, so that it may be sent to other processes.

    Attributes:
        model: Whose layer it is, such as `alexnet/imagenet`.
        name: Of the layer; text even where it is a number.
        folder: Where its files are.
        units: (U,) int64, the unit that each row of the arrays is of.
        k: Exemplars of each unit.
    """

    model: str
    name: str
    folder: Path
    units: np.ndarray
    k: int

    @cached_property
    def images(self) -> np.ndarray:
        """(U, k, 3, H, W) uint8, mapped: read where touched."""
        return mapped(self.folder / "images.npy", 3)

    @cached_property
    def masks(self) -> np.ndarray:
        """(U, k, 1, H, W) uint8, mapped; 1 where the unit is above its threshold, else 0."""
        return mapped(self.folder / "masks.npy", 1)

    @cached_property
    def ids(self) -> np.ndarray:
        """(U, k) int64, which images of their data set the exemplars are."""
        return read_ids(self.folder / "ids.csv", len(self.units), self.k)

    def __getstate__(self) -> dict[str, Any]:
        # A mapped array would be pickled byte by byte, all of it.
        return {field.name: getattr(self, field.name) for field in fields(self)}


def open_layer(folder: Path, model: str) -> Layer:
    """Looks at the headers of a layer's arrays.

    Raises:
        UserError: If images or masks are missing, are no arrays of bytes of five axes, or do not fit each other or
            `units.npy`; it names the file.
    """
    images, masks = mapped(folder / "images.npy", 3), mapped(folder / "masks.npy", 1)
    if images.shape[:2] != masks.shape[:2]:
        raise UserError(
            f"{folder} has different numbers of units and images: {_first_two(images)} in images.npy, "
            f"{_first_two(masks)} in masks.npy."
        )
    if images.shape[3:] != masks.shape[3:]:
        raise UserError(
            f"{folder} has images and masks of different height or width: {images.shape[3:]} in images.npy, "
            f"{masks.shape[3:]} in masks.npy."
        )
    return Layer(model, folder.name, folder, _units(folder / "units.npy", len(masks)), masks.shape[1])


def layers_in(root: Path) -> list[str]:
    """Names of the layers in a model's folder, sorted as text."""
    folders = (path for path in root.iterdir() if not path.name.startswith("."))
    return sorted(path.name for path in folders if any((path / name).is_file() for name in FILES))


def mapped(path: Path, channels: int) -> np.ndarray:
    """Maps an array (U, k, channels, H, W) of bytes.

    Raises:
        UserError: If it is missing, not that, empty, or not as long as its header says.
    """
    array = _load(path, mmap_mode="r")
    if array.ndim != 5:
        raise UserError(
            f"{path}: expected 5D {path.stem} (units, images, {channels}, height, width), not {array.shape}."
        )
    if array.dtype != np.uint8:
        raise UserError(f"{path}: expected bytes (uint8), not {array.dtype}.")
    if array.shape[2] != channels:
        raise UserError(
            f"{path}: expected {channels} channel{'s' * (channels > 1)} on the third axis, not {array.shape}."
        )
    if not array.size:
        raise UserError(f"{path} is empty: an array of {array.shape}.")
    if isinstance(array, np.memmap) and array.offset + array.nbytes != path.stat().st_size:
        raise UserError(f"{path} is longer than its header says: an array of {array.shape} bytes.")
    return array


def read_ids(path: Path, units: int, k: int) -> np.ndarray:
    """The images that a layer's exemplars are: (U, k) int64, from lines of k whole numbers without a header.

    Raises:
        UserError: If it is missing, or a line or the number of lines is wrong; it names the line.
    """
    try:
        lines = path.read_text("ascii", "replace").splitlines()
    except OSError as error:
        raise UserError(f"{path.parent} is missing ids.csv ({error.strerror}): {path}.") from None
    if len(lines) != units:
        raise UserError(f"{path} has {len(lines)} lines, and masks.npy beside it {units} units.")
    for number, line in enumerate(lines, 1):
        cells = line.split(",")
        if len(cells) != k:
            raise UserError(f"{path}, line {number}: {len(cells)} images, and {k} in masks.npy beside it.")
        wrong = [cell for cell in cells if not (cell.isascii() and cell.isdigit() and len(cell) < 19)]
        if wrong:
            raise UserError(f"{path}, line {number}: `{wrong[0]}` is not the number of an image.")
    return np.array([line.split(",") for line in lines], dtype=np.int64).reshape(units, k)


def _units(path: Path, count: int) -> np.ndarray:
    if not path.exists():
        return np.arange(count)
    units = _load(path)
    if units.ndim != 1 or units.dtype.kind not in "iu":
        raise UserError(f"{path}: expected 1D units, whole numbers, not {units.dtype} of shape {units.shape}.")
    if len(units) != count:
        raise UserError(f"{path} has {len(units)} units, and masks.npy beside it {count}.")
    if len(np.unique(units)) < count or (units < 0).any():
        raise UserError(f"{path}: each unit must be there once, counted from 0.")
    return units.astype(np.int64)


def _load(path: Path, mmap_mode: Any = None) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode=mmap_mode, allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise ValueError("an archive of arrays")
        return array
    except FileNotFoundError:
        raise UserError(f"{path.parent} is missing {path.name}.") from None
    except (OSError, ValueError, EOFError, OverflowError) as error:
        raise UserError(f"{path} is no array of NumPy's, or cut short ({error}).") from None


def _first_two(array: np.ndarray) -> str:
    return f"{array.shape[0]} units of {array.shape[1]}"
