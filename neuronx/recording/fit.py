"""One fit by Lightning that can be resumed, refuses a checkpoint of something else, and knows what it cost."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from neuronx.errors import UserError
from neuronx.store.given_file import given_file
from neuronx.types import Plain, TrainerFactory


class Clock(Callback):
    """Counts wall and processor seconds of fitting, those of earlier, interrupted runs included."""

    def __init__(self) -> None:
        self.before = (0.0, 0.0)
        self.started = (0.0, 0.0)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock."""
        self.started = (time.perf_counter(), time.process_time())

    @property
    def seconds(self) -> tuple[float, float]:
        """Wall seconds and processor seconds (all threads) so far."""
        wall, processor = time.perf_counter() - self.started[0], time.process_time() - self.started[1]
        return self.before[0] + wall, self.before[1] + processor

    def state_dict(self) -> dict[str, float]:
        """What a checkpoint keeps."""
        wall, processor = self.seconds
        return {"wall": wall, "processor": processor}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Adds the seconds of the run that wrote the checkpoint."""
        self.before = (state_dict["wall"], state_dict["processor"])


def fit_module(
    module: LightningModule,
    data: LightningDataModule,
    trainer: TrainerFactory,
    epochs: int,
    folder: Path,
    name: str = "last",
    ckpt_path: str | Path | None = None,
    callbacks: Sequence[Callback] = (),
    **options: Any,
) -> tuple[Trainer, dict[str, Plain]]:
    """Fits the module and returns the trainer with the costs for the card.

    `folder/<name>.ckpt` is written at the end of every epoch; a run resumed from it ends as the undisturbed run would.

    Args:
        module: What is trained; it holds plain numbers as hyperparameters.
        data: What it learns from.
        trainer: `trainer.max_epochs=n` typed by the user goes before `epochs`, and the user's callbacks come last.
        epochs: Number of epochs.
        folder: Of the run.
        name: Of the checkpoint.
        ckpt_path: A checkpoint to go on from.
        callbacks: Of this fit.
        options: Of the trainer.

    Raises:
        UserError: The checkpoint is missing, is not one of plain numbers, or belongs to another network.
    """
    path = None if ckpt_path is None else str(ckpt_path)
    if path is not None:
        _check_checkpoint(path, module)
    clock, typed = Clock(), getattr(trainer, "keywords", {})
    last = ModelCheckpoint(folder, filename=name, enable_version_counter=False, save_on_train_epoch_end=True)
    runner = trainer(
        max_epochs=typed.get("max_epochs") or epochs,
        callbacks=[clock, *callbacks, last, *typed.get("callbacks", [])],
        enable_checkpointing=True,
        **options,
    )
    runner.fit(module, datamodule=data, ckpt_path=path)
    wall, processor = clock.seconds
    device = runner.strategy.root_device.type
    return runner, {"wall seconds": round(wall), "processor seconds": round(processor), "device": device}


def _check_checkpoint(ckpt_path: str, module: LightningModule) -> None:
    """Raises UserError for a checkpoint that is missing, not of plain numbers, or of another network."""
    if not Path(ckpt_path).is_file():
        raise UserError(f"There is no checkpoint {ckpt_path}; `ckpt_path` names the last.ckpt of an earlier run.")
    state = read_checkpoint(ckpt_path)["state_dict"]
    if {k: v.shape for k, v in state.items()} != {k: v.shape for k, v in module.state_dict().items()}:
        raise UserError(f"The checkpoint {ckpt_path} belongs to another network than the one that is trained now.")


def read_checkpoint(ckpt_path: str) -> dict[str, Any]:
    """A checkpoint that Lightning wrote; UserError where it holds anything but plain numbers."""
    given_file(ckpt_path, "checkpoint")
    try:
        checkpoint = torch.load(ckpt_path, map_location="cpu", weights_only=True)
        checkpoint["state_dict"].items()
        return checkpoint
    except Exception as error:
        line = f"The checkpoint {ckpt_path} cannot be read as plain numbers; was it written by train.py?"
        raise UserError(line) from error
