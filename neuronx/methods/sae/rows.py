"""What a sparse autoencoder learns from: a layer's output at the class token, the patches, or all positions.

One pass records the rows of all pictures; they stay on disk, memory-mapped, and batches are read from there.
"""

from collections.abc import Iterator

import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from neuronx.data.probe import Probe
from neuronx.errors import UserError, unknown
from neuronx.recording.record import record
from neuronx.targets.target import Target
from neuronx.types import TrainerFactory

WHERE = ("first", "patches", "positions")
"""The class token, the tokens after those before the patches, or every position."""


def rows_of(target: Target, layer: str, where: str, probe: Probe, trainer: TrainerFactory) -> Tensor:
    """A layer's output at some positions of all N pictures: (N, P, D) float32, memory-mapped.

    Args:
        target: The network.
        layer: Its name.
        where: One of `WHERE`; for an output without positions, (N, D), there is one a picture.
        probe: The pictures.
        trainer: Makes the trainer of the pass.

    Raises:
        UserError: An unknown choice of positions, or one that the layer does not have.
    """
    if where not in WHERE:
        raise unknown("choice of positions", where, WHERE)
    row = target.layer_table(layers=[layer])[0]
    flat = "none" if len(row.shape) == 1 else where
    recorded = record(target, probe, trainer, {layer: flat})[layer]
    if recorded.broken:
        raise UserError(f"Layer `{layer}` of {target.name} puts out values that are NaN or infinite.")
    return recorded.values.view(len(probe), -1, row.units)


class RowBatches(LightningDataModule):
    """Batches of rows drawn at random, with replacement: batch b of an epoch is the same whatever ran before it.

    Args:
        rows: (N, P, D).
        pictures: (n,) those of them that count.
        batch_size: Rows in a batch.
        steps: Batches in an epoch, of all processes together.
        seed: Of the draws.
    """

    def __init__(self, rows: Tensor, pictures: Tensor, batch_size: int, steps: int, seed: int) -> None:
        super().__init__()
        self.rows, self.pictures, self.batch_size, self.steps, self.seed = rows, pictures, batch_size, steps, seed

    def train_dataloader(self) -> DataLoader:
        """This process's batches of the epoch."""
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return DataLoader(_Drawn(self), sampler=_Numbers(self, rank, world), batch_size=None)

    def draw(self, number: int) -> Tensor:
        """Batch `number`, counted over all epochs: (B, D)."""
        generator = torch.Generator().manual_seed((self.seed << 32) + number)
        places = torch.randint(len(self.pictures) * self.rows.shape[1], (self.batch_size,), generator=generator)
        pictures = self.pictures[places // self.rows.shape[1]]
        return self.rows[pictures, places % self.rows.shape[1]]


class _Drawn(Dataset):
    def __init__(self, batches: RowBatches) -> None:
        self.batches = batches

    def __getitem__(self, number: int) -> Tensor:
        return self.batches.draw(number)


class _Numbers(Sampler[int]):
    """Numbers of the batches of an epoch, dealt to the processes in turn; every one gets equally many."""

    def __init__(self, batches: RowBatches, rank: int, world: int) -> None:
        self.batches, self.rank, self.world = batches, rank, world

    def __iter__(self) -> Iterator[int]:
        epoch = self.batches.trainer.current_epoch if self.batches.trainer else 0
        first = epoch * len(self) * self.world
        yield from range(first + self.rank, first + len(self) * self.world, self.world)

    def __len__(self) -> int:
        return max(1, self.batches.steps // self.world)
