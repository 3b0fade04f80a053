"""Training data of a captioner: features and descriptions of units, shared among processes so that any number of them
learns the same.

A batch is decided on all processes together; each gets its share of it, and with it how much of the words and of the
captions its share holds. Losses weighted by these shares average over processes to that of the whole batch.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from neuronx.errors import UserError
from neuronx.methods.milan.features import Features
from neuronx.methods.milan.networks import Vocabulary


class Batch(NamedTuple):
    """B captions of some units.

    Attributes:
        features: (U, k, D) of the units; (U, 0, 0) where nobody asks for them.
        unit: (B,) int64, which of them each caption is about.
        targets: (B, T) int64, words, stop and pads up to the longest of the whole batch.
        words: Which part of the words (no pads) of the whole batch these captions have.
        captions: Which part of its captions they are.
        units: (U,) int64, who the units are.
    """

    features: Tensor
    unit: Tensor
    targets: Tensor
    words: float
    captions: float
    units: Tensor


@dataclass(frozen=True)
class Described:
    """Units with what was said of them.

    Attributes:
        features: Of the units, or None for a language model.
        said: The descriptions of each unit; none or several.
        train: (n,) int64, the units that are learned from.
        val: (m,) int64, the units that say when to stop; none are among those of `train`.
        vocabulary: Of the captioner.
    """

    features: Features | None
    said: Sequence[Sequence[str]]
    train: Tensor
    val: Tensor
    vocabulary: Vocabulary


def held_out(units: int, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Splits 0 to units - 1 at random: those to learn from and a share of them held out, at least one; both sorted.

    Raises:
        UserError: The share is not in (0, 1), or nothing is left.
    """
    if not 0 < share < 1:
        raise UserError(f"A share of {share} of the units cannot be held out; write a number between 0 and 1.")
    count = max(1, round(share * units))
    if count >= units:
        raise UserError(f"Of {units} units {count} would be held out, and none left to learn from.")
    order = torch.randperm(units, generator=torch.Generator().manual_seed(seed))
    return order[count:].sort().values, order[:count].sort().values


class Descriptions(LightningDataModule):
    """Batches of captions to learn from, shuffled anew in every epoch, and of held-out units.

    Args:
        described: The units.
        batch_size: Captions in a step, of all processes together.
        seed: Of the order.
    """

    def __init__(self, described: Described, batch_size: int, seed: int) -> None:
        super().__init__()
        self.described, self.batch_size, self.seed = described, batch_size, seed
        self.train = _captions(described, described.train)
        self.val = _captions(described, described.val)
        if not len(self.train.unit) or not len(self.val.unit):
            raise UserError("There are no descriptions to learn from, or none of held-out units.")

    def train_dataloader(self) -> DataLoader:
        """This process's share of each batch."""
        if len(self.train.unit) < self._place[1]:
            raise UserError(f"{len(self.train.unit)} descriptions cannot be shared by {self._place[1]} processes.")
        sampler = _Shares(len(self.train.unit), self.batch_size, *self._place, self._order)
        return DataLoader(_Table(self.described, self.train), sampler=sampler, batch_size=None)

    def val_dataloader(self) -> DataLoader:
        """The held-out captions in order, all captions of a unit together; a share may be empty."""
        sampler = _Shares(len(self.described.val), self.batch_size, *self._place)
        return DataLoader(_Units(self.described, self.val), sampler=sampler, batch_size=None)

    @property
    def _place(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _order(self) -> Tensor:
        """Asked when the first batch of an epoch is wanted: in a resumed run Lightning knows no sooner which it is."""
        epoch = self.trainer.current_epoch if self.trainer else 0
        chance = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        return torch.randperm(len(self.train.unit), generator=chance)


class _Captions(NamedTuple):
    """P captions: (P,) who each is about, (P, T) its words."""

    unit: Tensor
    ids: Tensor


def _captions(described: Described, units: Tensor) -> _Captions:
    pairs = [(unit, text) for unit in units.tolist() for text in described.said[unit]]
    ids = described.vocabulary.index([text for _, text in pairs])
    return _Captions(torch.tensor([unit for unit, _ in pairs], dtype=torch.int64), ids)


class _Shares(Sampler[tuple[list[int], list[int]]]):
    """For each batch of a number of rows: this process's rows, and all of them."""

    def __init__(
        self, rows: int, batch_size: int, rank: int, world: int, order: Callable[[], Tensor] | None = None
    ) -> None:
        self.rows, self.batch_size, self.rank, self.world, self.order = rows, batch_size, rank, world, order

    def __iter__(self) -> Iterator[tuple[list[int], list[int]]]:
        rows = torch.arange(self.rows) if self.order is None else self.order()
        for number, batch in enumerate(rows.split(self.batch_size)):
            if number == len(self):  # the rest is too small to be shared and was taken with the batch before
                return
            if number == len(self) - 1:
                batch = rows[number * self.batch_size :]
            yield batch.tensor_split(self.world)[self.rank].tolist(), batch.tolist()

    def __len__(self) -> int:
        batches, rest = divmod(self.rows, self.batch_size)
        # To learn, each process needs a caption of every batch.
        enough = rest >= self.world or not batches or self.order is None
        return batches + (rest > 0 and enough)


class _Table(Dataset):
    """Captions; the index is (own, whole batch)."""

    def __init__(self, described: Described, captions: _Captions) -> None:
        self.described, self.captions = described, captions

    def __getitem__(self, rows: tuple[list[int], list[int]]) -> Batch:
        return self._batch(torch.tensor(rows[0], dtype=torch.int64), torch.tensor(rows[1]))

    def _batch(self, own: Tensor, whole: Tensor) -> Batch:
        pad, (about, ids) = self.described.vocabulary.specials.pad, self.captions
        words = ids != pad
        longest = int(words[whole].any(0).sum())
        units, unit = about[own].unique(return_inverse=True)
        features = self.described.features
        return Batch(
            torch.zeros(len(units), 0, 0) if features is None or not len(units) else features[units],
            unit,
            ids[own, :longest],
            float(words[own].sum() / words[whole].sum()),
            len(own) / len(whole),
            units,
        )


class _Units(_Table):
    """Units with all of their captions; the index is (own, whole batch) of the held-out units."""

    def __getitem__(self, rows: tuple[list[int], list[int]]) -> Batch:
        own, whole = (torch.isin(self.captions.unit, self.described.val[one]).nonzero().squeeze(1) for one in rows)
        return self._batch(own, whole)
