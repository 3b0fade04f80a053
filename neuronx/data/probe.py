"""The probe: the images on which a network is studied, split once and for all into train, val and test."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property

import torch
from lightning import LightningDataModule
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from neuronx.data.presence import presence
from neuronx.data.segmentation import Segmentation
from neuronx.errors import UserError

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
        class_names: Names of the classes, by index.
        hierarchy: Superclass name to the class indices that it covers.
        segmentation: What each pixel of the pictures shows; None where nobody knows.
    """

    name: str
    domain: str
    splits: dict[str, Tensor]
    labels: Tensor | None = None
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
            images = torch.stack([self.transform(picture) for picture in pictures])
        return images, torch.tensor(rows)

    def __len__(self) -> int:
        return len(self.probe)


def seeded_splits(n: int, seed: int = 0, shares: tuple[float, float] = (0.7, 0.8)) -> dict[str, Tensor]:
    """Splits n rows at random into train, val and test at the cumulative shares: 70/10/20 by default."""
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    a, b = int(shares[0] * n), int(shares[1] * n)
    parts = {"train": order[:a], "val": order[a:b], "test": order[b:]}
    return {name: rows.sort().values for name, rows in parts.items()}
