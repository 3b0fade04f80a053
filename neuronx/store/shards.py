"""Recorded batches on disk: shards written as they come, merged in the end, resumed after any interruption.

A shard holds some whole batches of one layer. Batch b is always the same rows, so it does not matter which process
wrote it, when, or in what company: the merged file is the same, byte for byte.
"""

import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from neuronx.errors import UserError
from neuronx.store.cache import Entry

VALUES = "values.npy"
ABANDONED_SECONDS = 3600


class NotFinite(Exception):
    """A recorded value is NaN or infinite; `unit` and `row` say where."""

    def __init__(self, unit: int, row: int) -> None:
        super().__init__(unit, row)
        self.unit, self.row = unit, row


def write_shard(entry: Entry, batch_size: int, batches: dict[int, Tensor]) -> None:
    """Writes batches of one layer, number -> (B, K) float32, as one file."""
    numbers = sorted(batches)
    tensors = {"batches": torch.tensor(numbers), "values": torch.cat([batches[b] for b in numbers])}
    with on_disk(entry.path):
        entry.write(f"shard-{batch_size}-{numbers[0]:06d}-{len(numbers):04d}.safetensors", save(tensors))


def find_batches(entry: Entry, batch_size: int) -> dict[int, tuple[Path, int]]:
    """The batches on disk: number -> (shard, where in the shard), of runs with this batch size only.

    Shards of other batch sizes are left alone: their batches are other rows. Damaged ones are deleted.
    """
    found: dict[int, tuple[Path, int]] = {}
    for path in sorted(entry.path.glob(f"shard-{batch_size}-*.safetensors")):
        try:
            with safe_open(path, "pt") as shard:
                numbers = shard.get_tensor("batches").tolist()
        except (SafetensorError, OSError):
            path.unlink(missing_ok=True)
            continue
        found |= {b: (path, place) for place, b in enumerate(numbers)}
    return found


def merge(entry: Entry, batch_size: int, rows: int, **facts: str) -> None:
    """Joins all shards of an entry into `values.npy`, (rows, K) float32, publishes it and removes the shards.

    One batch at a time is in memory.

    Raises:
        NotFinite: A value is NaN or infinite; the entry is removed.
        UserError: The disk is full, or somebody removed shards.
    """
    found = find_batches(entry, batch_size)
    if is_whole(entry):  # another run of the same work was faster
        return _sweep(entry)
    if len(found) < -(-rows // batch_size):
        raise UserError(f"Recordings in {entry.path} vanished while they were made; run again.")
    with safe_open(found[0][0], "pt") as shard:
        units = shard.get_slice("values").get_shape()[1]
    header = io.BytesIO()
    layout = {"descr": "<f4", "fortran_order": False, "shape": (rows, units)}
    np.lib.format.write_array_header_1_0(header, layout)
    try:
        with on_disk(entry.path):
            entry.write(VALUES, _stream(header.getvalue(), found, batch_size))
            entry.publish(shape=[rows, units], **facts)
    except NotFinite:
        entry.remove()
        raise
    return _sweep(entry)


def is_whole(entry: Entry) -> bool:
    """Whether the entry was published and its file is still there."""
    return entry.complete and (entry.path / VALUES).is_file()


def read_values(entry: Entry) -> Tensor:
    """The merged values (N, K) float32, memory-mapped: read when touched, and never written back."""
    path = entry.path / VALUES
    mapped = np.load(path, mmap_mode="r")
    # from_file maps privately, so that unlike a read-only array it can be shared with torch without a warning.
    start = mapped.offset // 4
    whole = torch.from_file(str(path), shared=False, size=start + mapped.size, dtype=torch.float32)
    return whole[start:].view(mapped.shape)


@contextmanager
def on_disk(folder: Path) -> Iterator[None]:
    """Turns a failing write into a mistake that the user can mend."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(
            f"Recordings cannot be written to {folder} ({reason}); free some space, or set NEURONX_CACHE to a folder "
            "that has it. What was recorded so far is kept."
        ) from error


def _sweep(entry: Entry) -> None:
    """Removes the shards, and what processes that were killed in the middle of a write have left."""
    for path in entry.path.glob("shard-*.safetensors"):
        path.unlink(missing_ok=True)
    for path in entry.path.glob(".*"):
        if time.time() - path.stat().st_mtime > ABANDONED_SECONDS:
            path.unlink(missing_ok=True)


def _stream(header: bytes, found: dict[int, tuple[Path, int]], batch_size: int) -> Iterator[bytes]:
    """The bytes of the merged file, batch by batch in order."""
    yield header
    for b in range(len(found)):
        path, place = found[b]
        with safe_open(path, "pt") as shard:
            values = shard.get_slice("values")[place * batch_size : (place + 1) * batch_size]
        if not bool(values.isfinite().all()):
            row, unit = (~values.isfinite()).nonzero()[0].tolist()
            raise NotFinite(unit, b * batch_size + row)
        yield values.numpy().tobytes()
