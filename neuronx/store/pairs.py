"""One vector for each pair of image and unit, kept in the store: found again by any later call, for whatever pairs.

A file holds some pairs and is written whole, by any process; which pairs come in one file does not matter.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from neuronx.errors import UserError
from neuronx.store.cache import Entry, is_sound


@dataclass(frozen=True)
class Pairs:
    """The pairs on disk, sorted.

    Attributes:
        codes: (n,) int64, distinct; see `code`.
        files: (n,) int64, in which of `paths` the pair is.
        places: (n,) int64, where in it.
        paths: The files.
    """

    codes: Tensor
    files: Tensor
    places: Tensor
    paths: tuple[Path, ...]

    def have(self, rows: Tensor, units: Tensor) -> Tensor:
        """Which of the pairs (P,) are there: (P,) bool."""
        return torch.isin(code(rows, units), self.codes)

    def vectors(self, rows: Tensor, units: Tensor) -> Tensor:
        """The vectors (P, width) float32 of at least one pair.

        Raises:
            UserError: Some of them are not there.
        """
        if not bool(self.have(rows, units).all()):
            raise UserError("Circuit vectors vanished from the store while they were made; run again.")
        at = torch.searchsorted(self.codes, code(rows, units))
        order = self.files[at].argsort(stable=True)
        parts = []
        for number, wanted in zip(*_groups(self.files[at][order], order), strict=True):
            with safe_open(self.paths[number], "pt") as file:
                parts.append(file.get_tensor("vectors")[self.places[at[wanted]]])
        return torch.cat(parts)[order.argsort()]


def code(rows: Tensor, units: Tensor) -> Tensor:
    """One number (P,) int64 for each pair of row and unit, both below 2**31."""
    return rows << 31 | units


def write_pairs(place: Entry, rows: Tensor, units: Tensor, vectors: Tensor) -> None:
    """Writes the vectors (P, width) of pairs (P,) as one file."""
    place.write("pairs-.safetensors", save({"rows": rows, "units": units, "vectors": vectors.contiguous()}))


def find_pairs(place: Entry, rows: Tensor, units: Tensor) -> Pairs:
    """What is on disk in files that hold some of the pairs asked for; these files are checked."""
    paths, codes, wanted = [], [], code(rows, units)
    for path in sorted(place.path.glob("pairs-*")):
        try:
            with safe_open(path, "pt") as file:
                own = code(file.get_tensor("rows"), file.get_tensor("units"))
            needed = bool(torch.isin(own, wanted).any())
        except (SafetensorError, OSError):
            needed = True
        if needed and is_sound(path):
            codes.append(own)
            paths.append(path)
    lengths = torch.tensor([len(some) for some in codes], dtype=torch.int64)
    everything = torch.cat([*codes, torch.empty(0, dtype=torch.int64)])
    files = torch.repeat_interleave(torch.arange(len(paths)), lengths)
    places = torch.cat([torch.arange(len(some)) for some in codes] or [torch.empty(0, dtype=torch.int64)])
    order = everything.argsort(stable=True)
    order = order[torch.cat([torch.ones(1, dtype=torch.bool), everything[order].diff() > 0])[: len(order)]]
    return Pairs(everything[order], files[order], places[order], tuple(paths))


def _groups(numbers: Tensor, order: Tensor) -> tuple[list[int], tuple[Tensor, ...]]:
    """Equal numbers in a sorted list, and the parts of `order` that belong to each."""
    values, counts = torch.unique_consecutive(numbers, return_counts=True)
    return values.tolist(), order.split(counts.tolist())
