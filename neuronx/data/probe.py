"""The probe: the images on which a network is studied, split once and for all into train, val and test."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import torch
from lightning import LightningDataModule
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from neuronx.data.published import published
from neuronx.data.segmentation import Segmentation, presence
from neuronx.errors import UserError
from neuronx.store.torch_file import read_torch_file

Transform = Callable[..., Tensor]
"""From a picture (or a uint8 batch) to a float tensor; its `repr` identifies it. See `Preprocess`."""


class Probe(LightningDataModule):
    """Images with fixed splits. A data source is a subclass that fills the fields and defines `load`.

    Images are known by their row, 0 to N-1, everywhere. Methods see the rows of train and val, scores those of test.

    Attributes:
        name: Of the data set, used in tables and file names.
        domain: The kind of pictures, "shapes" or "natural"; a CLIP judges only pictures of its own domain.
        splits: `train`, `val` and `test`: sorted int64 rows, disjoint.
        labels: (N,) int64 class indices, or None.
        label_sets: (N, classes) bool, where images have several labels each, or none; `labels` is None then.
        class_names: Names of the classes, by index.
        hierarchy: Superclass name to the class indices that it covers.
        segmentation: What each pixel of the pictures shows; None where nobody knows.
    """

    name: str
    domain: str
    splits: dict[str, Tensor]
    labels: Tensor | None = None
    label_sets: Tensor | None = None
    class_names: tuple[str, ...] = ()
    hierarchy: Mapping[str, Sequence[int]] = {}
    segmentation: Segmentation | None = None

    def __init__(self, *, batch_size: int = 64, num_workers: int = 0) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.num_workers = num_workers

    def __len__(self) -> int:
        """The number of images N."""
        raise NotImplementedError

    def load(self, rows: Sequence[int]) -> Tensor | list[Image.Image]:
        """The pictures of some rows: a uint8 batch (B, 3, H, W), or a list of PIL images."""
        raise NotImplementedError

    @cached_property
    def fingerprint(self) -> str:
        """Hex digest of everything that decides the pictures and their order (not the labels or the splits)."""
        raise NotImplementedError

    def image_name(self, row: int) -> str:
        """What a person calls the image: a file name, or its number."""
        return str(row)

    @property
    def truth(self) -> "tuple[tuple[str, ...], Tensor] | None":
        """Names of the C concepts whose presence is known, and (N, C) bool; None where nothing is known.

        Those of the segmentation, looked through once when first asked for, where a probe does not know better.
        """
        return self._seen

    @cached_property
    def _seen(self) -> "tuple[tuple[str, ...], Tensor] | None":
        known = self.segmentation
        return None if known is None else (known.names, presence(known, len(self), self.name))

    def split(self, *names: str) -> Tensor:
        """The sorted rows of one or several splits together."""
        return torch.cat([self.splits[name] for name in names]).sort().values

    def check(self, fewest: int = 10) -> None:
        """Raises UserError when a split is too small to mean anything."""
        for name, rows in self.splits.items():
            if len(rows) < fewest:
                raise UserError(
                    f"The {name} split of `{self.name}` has {len(rows)} images; at least {fewest} are needed "
                    f"(the data has {len(self)} images in all)."
                )

    def loader(
        self,
        transform: Transform,
        rows: Tensor | None = None,
        *,
        batch_size: int | None = None,
        rank: int = 0,
        world: int = 1,
        skip: frozenset[int] = frozenset(),
    ) -> DataLoader:
        """Batches of (images (B, 3, H, W) float32, rows (B,) int64), in order.

        Batch b always holds the same rows whatever the number of ranks; rank r gets batches r, r + world, ..., so that
        every image is seen exactly once and results do not depend on the number of processes.

        Args:
            transform: Makes a network's input of a picture; must take a PIL image, and a uint8 batch for rendered data.
            rows: The rows to go through; all by default.
            batch_size: Overrides the probe's own.
            rank: Of this process.
            world: Number of processes.
            skip: Numbers of batches to leave out because they are done already.
        """
        everything = torch.arange(len(self)) if rows is None else rows
        batches = Batches(everything, batch_size or self.batch_size, rank, world, skip)
        return DataLoader(
            self._inputs(transform),
            sampler=batches,
            batch_size=None,
            num_workers=self.num_workers,
            persistent_workers=False,
        )

    def _inputs(self, transform: Transform) -> Dataset:
        """What the loader reads: indexed by the rows (B,) of a batch, it gives (a network's inputs, rows)."""
        return _Pictures(self, transform)


class Batches(Sampler[list[int]]):
    """Consecutive batches of rows, dealt to the ranks in turn, without padding."""

    def __init__(
        self, rows: Tensor, batch_size: int, rank: int = 0, world: int = 1, skip: frozenset[int] = frozenset()
    ):
        self.rows, self.batch_size = rows, batch_size
        count = -(-len(rows) // batch_size)
        self.numbers = [b for b in range(count) if b % world == rank and b not in skip]

    def __iter__(self) -> Iterator[list[int]]:
        for b in self.numbers:
            yield self.rows[b * self.batch_size : (b + 1) * self.batch_size].tolist()

    def __len__(self) -> int:
        return len(self.numbers)


class _Pictures(Dataset):
    """A probe as a map-style data set whose index is a whole batch of rows."""

    def __init__(self, probe: Probe, transform: Transform) -> None:
        self.probe, self.transform = probe, transform

    def __getitem__(self, rows: list[int]) -> tuple[Tensor, Tensor]:
        pictures = self.probe.load(rows)
        if isinstance(pictures, Tensor):
            images = self.transform(pictures)
        else:
            made = [self.transform(picture) for picture in pictures]
            if other := next((place for place, image in enumerate(made) if image.shape != made[0].shape), 0):
                first, second = (
                    f"{self.probe.image_name(rows[place])} {tuple(made[place].shape)}" for place in (0, other)
                )
                raise UserError(
                    f"Pictures of `{self.probe.name}` are of unequal sizes, {first} and {second}, and the network's "
                    "transform leaves them so: give one that makes them equal, such as {resize: [224, 224]}."
                )
            images = torch.stack(made)
        return images, torch.tensor(rows)

    def __len__(self) -> int:
        return len(self.probe)


def seeded_splits(n: int, seed: int = 0, shares: tuple[float, float] = (0.7, 0.8)) -> dict[str, Tensor]:
    """Splits n rows at random into train, val and test at the cumulative shares: 70/10/20 by default."""
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    a, b = int(shares[0] * n), int(shares[1] * n)
    parts = {"train": order[:a], "val": order[a:b], "test": order[b:]}
    return {name: rows.sort().values for name, rows in parts.items()}


log = logging.getLogger(__name__)

PARTS = ("train", "val", "test")


def splits_of(how: int | str | Path | None, n: int, name: str, kept: Tensor | None = None) -> dict[str, Tensor]:
    """The rows of train, val and test.

    Args:
        how: A seed (None is 0), for 70/10/20 at random; a folder with train_ids.pt, val_ids.pt and test_ids.pt (1-D
            int64 tensors of positions in the full list of images); or "published", for those of Linear Explanations.
        n: Number of images listed.
        name: Of the data, which decides what "published" means.
        kept: (M,) positions of the images that could be read, where some could not; rows count these.

    Raises:
        UserError: If files are missing, or ids overlap or are out of range.
    """
    kept = torch.arange(n) if kept is None else kept
    if isinstance(how, bool) or (isinstance(how, int) and not -(2**63) <= how < 2**64):
        raise UserError(f"data.splits={how} is no seed: a seed is a whole number below 2^64.")
    if how is None or isinstance(how, int):
        return seeded_splits(len(kept), how or 0)
    if not isinstance(how, str | Path):
        raise UserError(f"splits={how!r} is neither a seed nor a folder of three id files.")
    folder = _published(name) if how == "published" else Path(how).expanduser()
    ids = {part: _ids(folder / f"{part}_ids.pt", n, name) for part in PARTS}
    together = torch.cat(list(ids.values()))
    if len(together.unique()) < len(together):
        raise UserError(f"The splits in {folder} overlap: an image may be in one of train, val and test only.")
    if len(together) < n:
        log.warning("splits of %s: %d of %d images are in no split", name, n - len(together), n)
    row = torch.full((n,), -1).scatter(0, kept, torch.arange(len(kept)))
    return {part: rows[rows >= 0].sort().values for part, rows in ((part, row[ids[part]]) for part in PARTS)}


def _published(name: str) -> Path:
    instead = "take a seeded split with data.splits=0, or a folder of id files with data.splits=DIR"
    for part in PARTS:
        path = published(f"splits/{name}/{part}_ids.pt", instead)
    return path.parent


def _ids(path: Path, n: int, name: str) -> Tensor:
    if not path.exists():
        raise UserError(f"There is no split file {path}; data.splits= is a seed or a folder of three id files.")
    ids = read_torch_file(path, "tensor of ids")
    if not isinstance(ids, Tensor) or ids.ndim != 1 or ids.dtype != torch.int64:
        raise UserError(f"{path} is not a 1-D int64 tensor of ids.")
    if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < n:
        raise UserError(
            f"{path} names images {int(ids.min())} to {int(ids.max())}, but `{name}` has {n} (0 to {n - 1})."
        )
    return ids
