"""Folders of models in the published layout, made of noise: small, and written as their authors wrote them."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

K, SIDE = 3, 8


def make_layer(
    folder: Path,
    count: int = 4,
    *,
    k: int = K,
    side: int = SIDE,
    units: Sequence[int] | None = None,
    images: bool = True,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Writes a layer; returns its images and masks."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([seed, *folder.name.encode()])
    pixels = rng.integers(0, 256, (count, k, 3, side, side), dtype=np.uint8)
    masks = rng.integers(0, 2, (count, k, 1, side, side), dtype=np.uint8)
    if images:
        np.save(folder / "images.npy", pixels)
    np.save(folder / "masks.npy", masks)
    np.savetxt(folder / "ids.csv", rng.integers(0, 12, (count, k)), "%i", ",")
    if units is not None:
        np.save(folder / "units.npy", np.array(units))
    return pixels, masks


def make_holes(folder: Path, count: int) -> None:
    """Writes a layer of published size, 3 MB a unit, in files of holes that take no space."""
    folder.mkdir(parents=True)
    for name, channels in (("images", 3), ("masks", 1)):
        shape = (count, 15, channels, 224, 224)
        with (folder / f"{name}.npy").open("wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
            file.truncate(file.tell() + int(np.prod(shape)))


def make_table(folder: Path, rows: Iterable[Sequence[object]], columns: Sequence[str] = ("layer", "unit", "summary")):
    """Writes annotations.csv with Python's default dialect: CRLF and minimal quotes."""
    with (folder / "annotations.csv").open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return folder / "annotations.csv"


def make_model(folder: Path, layers: Mapping[str, int], said: int = 3, **options) -> Path:
    """Writes layers of some numbers of units, each described `said` times."""
    for name, count in layers.items():
        make_layer(folder / name, count, **options)
    make_table(folder, [(n, u, f"{n} {u}, word {i}") for n, c in layers.items() for u in range(c) for i in range(said)])
    return folder
