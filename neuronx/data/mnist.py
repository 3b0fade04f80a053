"""MNIST, from the official idx files."""

import gzip
from pathlib import Path

import numpy as np
import torch

from neuronx.data.folder import found_root
from neuronx.data.in_memory import InMemoryProbe
from neuronx.errors import UserError
from neuronx.options import Count, Natural, Seed

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
HINT = (
    "Get it with torchvision.datasets.MNIST(DIR, download=True) and give data.root=DIR, which holds "
    "t10k-images-idx3-ubyte and its like, or MNIST/raw with them."
)


def mnist(
    root: str | None = None,
    *,
    train: bool = False,
    name: str | None = None,
    splits: Seed | str = 0,
    batch_size: Count = 256,
    num_workers: Natural = 0,
) -> InMemoryProbe:
    """MNIST's 10,000 test or 60,000 training digits, 28 x 28, grey as RGB; classes are called "zero" to "nine".

    Args:
        root: Folder of the files, plain or gzipped; `$NEURONX_DATA/mnist` by default.
        train: The training images rather than the test images.
        name: Used in tables; mnist_val or mnist_train by default.
        splits: A seed, or a folder of id files.
        batch_size: Of the loader.
        num_workers: Processes that load.
    """
    top = found_root(root, "mnist", HINT)
    prefix = "train" if train else "t10k"
    images = read_idx(_find(top, f"{prefix}-images-idx3-ubyte"), 3)
    labels = read_idx(_find(top, f"{prefix}-labels-idx1-ubyte"), 1)
    return InMemoryProbe(
        torch.from_numpy(images)[:, None].expand(-1, 3, -1, -1),
        labels=torch.from_numpy(labels.astype(np.int64)),
        class_names=DIGITS,
        name=name or f"mnist_{'train' if train else 'val'}",
        splits=splits,
        as_pictures=True,
        batch_size=batch_size,
        num_workers=num_workers,
    )


def read_idx(path: Path, ndim: int) -> np.ndarray:
    """The uint8 array of an idx file: two zero bytes, the type (8), the number of sizes, big-endian sizes, then data.

    Raises:
        UserError: If it is none, or cut short.
    """
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    if data[:4] != bytes([0, 0, 8, ndim]):
        raise UserError(f"{path} is no idx file of {ndim}-dimensional bytes.")
    shape = np.frombuffer(data, ">u4", ndim, 4).astype(int)
    if len(data) != 4 + 4 * ndim + int(shape.prod()):
        raise UserError(f"{path} is cut short: it says {tuple(shape.tolist())} but holds {len(data)} bytes.")
    return np.frombuffer(data, np.uint8, offset=4 + 4 * ndim).reshape(shape).copy()


def _find(top: Path, name: str) -> Path:
    for folder in (top, top / "MNIST" / "raw", top / "raw"):
        for path in (folder / name, folder / f"{name}.gz"):
            if path.is_file():
                return path
    raise UserError(f"There is no {name} in {top}. {HINT}")
