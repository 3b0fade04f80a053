"""What every pass of a simulation goes through: batches of row numbers. Pictures are not needed any more."""

from collections.abc import Iterator

import torch
from lightning import LightningModule
from torch import Tensor

from neuronx.data.probe import Batches


class RowBatches:
    """Rows (B,) int64, batch by batch, dealt to the processes of a module's trainer in turn and without padding.

    A process that gets none gets one empty batch, because Lightning would leave it out of the pass, and the others
    would wait for it.
    """

    def __init__(self, rows: Tensor, batch_size: int, module: LightningModule) -> None:
        trainer = module.trainer
        self.batches = list(Batches(rows, batch_size, trainer.global_rank, trainer.world_size)) or [[]]

    def __iter__(self) -> Iterator[Tensor]:
        return (torch.tensor(batch, dtype=torch.int64) for batch in self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def arithmetic_device(module: LightningModule) -> torch.device:
    """Where float64 sums are made: the module's device, or the CPU where the device has no float64."""
    return torch.device("cpu") if module.device.type == "mps" else module.device
