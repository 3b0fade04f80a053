"""What a network sees of its pictures, for people: resized and cropped as its transform does, but not normalised."""

import dataclasses
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import Compose

from neuronx.data.probe import Batches, Probe
from neuronx.targets.preprocess import Grey, Preprocess


@dataclass(frozen=True)
class View:
    """Turns pictures into bytes (..., 3, size, size) uint8 that show what a network sees of them.

    Attributes:
        transform: From a picture, or a uint8 batch, to floats in [0, 1].
        size: Side; what is not of this size is squashed to it.
    """

    transform: Callable[..., Tensor]
    size: int

    def __call__(self, picture: Image.Image | Tensor) -> Tensor:
        """Shows one picture, or a batch. Floats are a network's input already; beyond [0, 1] they are scaled to fit."""
        if isinstance(picture, Tensor) and picture.is_floating_point():
            return as_bytes(_in_three(_fitted(picture)), self.size)
        return as_bytes(_in_three(self.transform(picture)), self.size)


def view(transform: Callable[..., Any], size: int) -> View:
    """How to show what a network sees through `transform`.

    A transform that is no `Preprocess` and no list of steps with a `Normalize` to leave out does not tell which part of
    a picture it keeps: then the whole picture is squashed to the square.
    """
    transform = transform.transform if isinstance(transform, Grey) else transform
    if isinstance(transform, Preprocess):
        return View(dataclasses.replace(transform, mean=None, std=None), size)
    steps = getattr(transform, "transforms", None)
    kept = [step for step in steps or () if type(step).__name__ != "Normalize"]
    if isinstance(steps, list) and len(kept) < len(steps):
        return View(Compose(kept), size)
    return View(Preprocess(resize=(size, size)), size)


def as_bytes(images: Tensor, size: int) -> Tensor:
    """Floats (..., 3, h, w) in [0, 1] as uint8 (..., 3, size, size), rounded."""
    if images.shape[-2:] != (size, size):
        batch = images.reshape(-1, *images.shape[-3:])
        batch = F.interpolate(batch, (size, size), mode="bilinear", align_corners=False, antialias=True)
        images = batch.reshape(*images.shape[:-2], size, size)
    return (images * 255).round().clamp(0, 255).to(torch.uint8)


@dataclass(frozen=True)
class Gallery:
    """Some pictures of a probe as bytes, on disk.

    Attributes:
        rows: (R,) int64, sorted.
        images: (R, 3, S, S) uint8, mapped: read when touched.
    """

    rows: Tensor
    images: np.ndarray

    def of(self, rows: Tensor) -> Tensor:
        """The pictures of rows of any shape (...): (..., 3, S, S) uint8."""
        places = torch.searchsorted(self.rows, rows.reshape(-1))
        found = torch.from_numpy(self.images[places.numpy()])
        return found.reshape(*rows.shape, *found.shape[1:])


def gallery(rows: Tensor, probe: Probe, shown: View, folder: Path) -> Gallery:
    """Opens each of the pictures (any shape of rows, repeated or not) once.

    They are kept in a memory-mapped, unlinked temporary file on the disk of `folder`, freed with its last reader.
    """
    rows = rows.unique()
    folder.mkdir(parents=True, exist_ok=True)
    batches = Batches(rows, probe.batch_size)
    loader: DataLoader = DataLoader(
        _Shown(probe, shown), sampler=batches, batch_size=None, num_workers=probe.num_workers
    )
    with tempfile.TemporaryFile(dir=folder) as file:
        # Written, not mapped, so that a full disk is an error and not the end of the process.
        for images in loader:
            file.write(images.contiguous().numpy().tobytes())
        file.flush()
        shape = (len(rows), 3, shown.size, shown.size)
        return Gallery(rows, np.memmap(file, dtype=np.uint8, mode="r", shape=shape))


class _Shown(Dataset):
    """Pictures as bytes; the index is a batch of rows."""

    def __init__(self, probe: Probe, shown: View) -> None:
        self.probe, self.shown = probe, shown

    def __getitem__(self, rows: list[int]) -> Tensor:
        pictures = self.probe.load(rows)
        if isinstance(pictures, Tensor):
            return self.shown(pictures)
        return torch.stack([self.shown(picture) for picture in pictures])

    def __len__(self) -> int:
        return len(self.probe)


def _in_three(images: Tensor) -> Tensor:
    """Images (..., C, h, w) in three channels: others than RGB are shown in grey, by the mean of their channels."""
    if images.shape[-3] == 3:
        return images
    return images.mean(-3, keepdim=True).expand(*images.shape[:-3], 3, *images.shape[-2:])


def _fitted(images: Tensor) -> Tensor:
    """Each picture (..., C, h, w) scaled so that its smallest and largest values are within [0, 1]."""
    low = images.amin((-3, -2, -1), keepdim=True).clamp(max=0)
    high = images.amax((-3, -2, -1), keepdim=True).clamp(min=1)
    return (images - low) / (high - low)
