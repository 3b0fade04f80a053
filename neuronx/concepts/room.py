"""Room for large tables of scores."""

import os
import tempfile

import numpy as np
import torch
from torch import Tensor

from neuronx.errors import UserError
from neuronx.store.cache import cache_root

IN_MEMORY = 2**30
"""Bytes up to which a table is kept in memory."""


def room(rows: int, columns: int) -> Tensor:
    """An uninitialised (rows, columns) float32 table; a large one lies in a nameless file that goes with it.

    Raises:
        UserError: If the disk of the store is full.
    """
    size = 4 * rows * columns
    if size <= IN_MEMORY:
        return torch.empty(rows, columns)
    folder = cache_root()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            # Reserved at once, for a disk that fills up while mapped memory is written kills the process.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.truncate(size)
        except OSError as error:
            raise UserError(f"{size / 2**30:.1f} GB are needed for a while in {folder}: {error.strerror}.") from None
        return torch.from_numpy(np.memmap(file, np.float32, "r+", shape=(rows, columns)))
