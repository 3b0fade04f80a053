"""Writes exemplars as MILANNOTATIONS are published: a folder for each layer, with images, masks and their numbers.

`images.npy` (U, k, 3, H, W) and `masks.npy` (U, k, 1, H, W) are uint8, masks 0 or 1; `ids.csv` and `activations.csv`
have U lines of k rows of the probe and of what ranks them, strongest first: peak activations, as published, unless
others were asked for; `units.npy` is there when some units are left out.
"""

import io
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from neuronx.data.probe import Probe
from neuronx.errors import UserError
from neuronx.recording.exemplars import gather
from neuronx.recording.maps import FieldCentres, masks
from neuronx.recording.pictures import Gallery, gallery, view
from neuronx.store.cache import write_atomic
from neuronx.store.processes import is_first
from neuronx.targets.target import Target
from neuronx.types import TrainerFactory

if TYPE_CHECKING:
    from neuronx.recording.exemplars import Exemplars

log = logging.getLogger("neuronx")

SIZE = 224
"""Side of the published images, and of ours where the network does not say what it takes."""
CHUNK_BYTES = 16 * 2**20


def write_all(
    folder: str | Path,
    found: "Mapping[str, Exemplars]",
    target: Target,
    probe: Probe,
    trainer: TrainerFactory,
    size: int | None = None,
) -> list[Path]:
    """Writes the exemplars of several layers, after one pass of the network over the exemplars' images.

    A mask is where the unit's upsampled map is strictly above its threshold; in a layer without positions it is the
    whole image. Images are what the network sees, without normalisation. Only the units asked for in `target.units` are
    written; the first process writes, a few units at a time, and all return when it is done.

    Args:
        folder: Gets a folder for each layer.
        found: Layer -> exemplars of the whole layer.
        target: The network.
        probe: The images.
        trainer: Makes the trainer that runs the pass.
        size: Side of images and masks; by default that of the network's input or, where unknown, of pictures that are
            all of one size, as a generator's are; else 224.

    Returns:
        The layers' folders, in the order of `found`.

    Raises:
        UserError: A size below 1, or a full disk.
    """
    folder, size = Path(folder), size or target.input_size or _side(probe)
    if size < 1:
        raise UserError(f"Exemplars of {target.name} cannot have images of {size} pixels; give a size of at least 1.")
    units = {layer: torch.tensor(target.units_of(layer, len(one.units))).long() for layer, one in found.items()}
    maps, runner = gather(found, units, target, probe, trainer)
    if is_first():
        try:
            rows = torch.cat([one.rows[units[layer]].reshape(-1) for layer, one in found.items()])
            pictures = gallery(rows, probe, view(target.transform, size), folder)
            for layer, one in found.items():
                if layer not in maps:
                    why = "is read at its class token" if one.pool == "first" else "has no positions"
                    log.info("%s of %s %s: the masks are the whole images", layer or "output", target.name, why)
                _write(layer_folder(folder, layer), one, units[layer], maps.get(layer), pictures, size)
        except OSError as error:
            raise UserError(
                f"Exemplars cannot be written to {folder} ({error.strerror or error}); free some space, or choose "
                "another folder with hydra.run.dir=DIR."
            ) from error
    if runner is not None:
        runner.strategy.barrier()
    return [layer_folder(folder, layer) for layer in found]


def layer_folder(folder: str | Path, layer: str) -> Path:
    """Where a layer's files are: the name is kept, dots and all; the network's output is `outputs`."""
    return Path(folder) / (layer.replace("/", "-") or "outputs")


def _side(probe: Probe) -> int:
    first = probe.load([0])
    return first.shape[-1] if isinstance(first, Tensor) and first.shape[-1] == first.shape[-2] else SIZE


def _write(
    folder: Path, exemplars: "Exemplars", units: Tensor, maps: Tensor | None, pictures: Gallery, size: int
) -> None:
    rows = exemplars.rows[units]
    if len(units) < len(exemplars.units):
        numbers = io.BytesIO()
        np.lib.format.write_array(numbers, units.numpy(), version=(1, 0))
        write_atomic(folder / "units.npy", numbers.getvalue())
    else:  # of an earlier run into the same folder
        (folder / "units.npy").unlink(missing_ok=True)
    write_atomic(folder / "ids.csv", _table(rows, "%i"))
    write_atomic(folder / "activations.csv", _table(exemplars.values[units], "%.5e"))
    cut = _masks(maps, exemplars.thresholds[units], len(units), rows.shape[1], size, exemplars.centres)
    write_atomic(folder / "masks.npy", npy((*rows.shape, 1, size, size), cut))
    seen = (pictures.of(some) for some in rows.split(_step(3 * rows.shape[1] * size**2)))
    write_atomic(folder / "images.npy", npy((*rows.shape, 3, size, size), seen))


def _table(values: Tensor, how: str) -> bytes:
    return "".join(",".join(how % value for value in row) + "\n" for row in values.tolist()).encode()


def npy(shape: tuple[int, ...], chunks: Iterator[Tensor]) -> Iterator[bytes]:
    """The bytes of an array of bytes, chunk by chunk along the first axis."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    yield header.getvalue()
    for chunk in chunks:
        yield chunk.contiguous().numpy().tobytes()


def _masks(
    maps: Tensor | None, thresholds: Tensor, units: int, k: int, size: int, centres: FieldCentres | None
) -> Iterator[Tensor]:
    """Masks (u, k, 1, size, size) uint8 of a few units after another."""
    # Upsampled floats take four bytes a pixel.
    step = _step(4 * k * size**2)
    for start in range(0, units, step):
        some = slice(start, start + step)
        if maps is None:
            yield torch.ones(min(step, units - start), k, 1, size, size, dtype=torch.uint8)
        else:
            # A threshold for each unit, which `masks` looks for on the second axis.
            cut = masks(maps[some].transpose(0, 1), thresholds[some], (size, size), centres)
            yield cut.transpose(0, 1)[:, :, None].byte()


def _step(bytes_each: int) -> int:
    return max(1, CHUNK_BYTES // bytes_each)
