"""The features of images at a lower layer, kept in the store: circuits of other units, rules or seeds begin there.

They are kept in the precision in which they were made. In float16 they would take half of the room, but about one in a
thousand ReLUs close to zero would switch, and vectors would differ by more than the 1e-5 that they are held to.
"""

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from neuronx.store.cache import Entry
from neuronx.store.shards import on_disk

ROOM_GB = 8.0
"""Disk for the features of one layer on one set of images; what does not fit is made again when it is needed."""


class Features:
    """Features on disk, one file an image."""

    def __init__(self, place: Entry, room_gb: float = ROOM_GB) -> None:
        self.place = place
        self.room = room_gb * 1e9 - sum(path.stat().st_size for path in place.path.glob("image-*"))

    def read(self, row: int) -> list[Tensor]:
        """The features of one image, without an axis of images; nothing where they are not there, or damaged."""
        path = self.place.path / _name(row)
        try:
            tensors = load_file(path)
        except FileNotFoundError:
            return []
        except (SafetensorError, OSError):
            path.unlink(missing_ok=True)
            return []
        return [tensors[str(number)] for number in range(len(tensors))]

    def write(self, row: int, features: list[Tensor]) -> None:
        """Keeps the features of one image, if there is room."""
        data = save({str(number): feature.contiguous().cpu() for number, feature in enumerate(features)})
        self.room -= len(data)
        if self.room >= 0:
            with on_disk(self.place.path):
                self.place.write(_name(row), data)


def _name(row: int) -> str:
    return f"image-{row:08d}.safetensors"
