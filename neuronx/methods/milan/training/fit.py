"""Fitting a part of the embedded world: one call that trains, can be resumed and knows what it cost."""

import time
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from neuronx.errors import UserError
from neuronx.types import TrainerFactory
from neuronx.world.training.scenes import SceneStream


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


def fit(
    module: LightningModule,
    stream: SceneStream,
    trainer: TrainerFactory,
    epochs: int,
    folder: Path,
    ckpt_path: str | None = None,
) -> tuple[Trainer, dict[str, Any]]:
    """Trains the module and returns the trainer with the facts for its card.

    `folder/last.ckpt` is written at the end of every epoch; a run resumed from it ends as the undisturbed run would.

    Args:
        module: What is trained; it holds plain numbers as hyperparameters.
        stream: The pictures.
        trainer: `trainer.max_epochs=n` typed by the user goes before `epochs`.
        epochs: Number of epochs.
        folder: Of the run.
        ckpt_path: A checkpoint to go on from.

    Raises:
        UserError: The checkpoint is missing, is not one of plain numbers, or belongs to another network.
    """
    if ckpt_path is not None:
        check_checkpoint(ckpt_path, module)
    clock = Clock()
    last = ModelCheckpoint(folder, filename="last", enable_version_counter=False)
    typed = getattr(trainer, "keywords", {})
    callbacks = [clock, last, *typed.get("callbacks", [])]
    runner = trainer(max_epochs=typed.get("max_epochs") or epochs, callbacks=callbacks, enable_checkpointing=True)
    runner.fit(module, stream, ckpt_path=ckpt_path)
    wall, processor = clock.seconds
    facts = {
        "images seen": runner.global_step * stream.batch_size * runner.world_size,
        "epochs": runner.current_epoch,
        "steps": runner.global_step,
        "batch size": stream.batch_size,
        "image seed": stream.seed,
        "wall seconds": round(wall),
        "processor seconds": round(processor),
        "device": runner.strategy.root_device.type,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    return runner, facts


def adamw(module: LightningModule, lr: float, weight_decay: float) -> dict[str, Any]:
    """AdamW on `one_cycle`."""
    return one_cycle(module, torch.optim.AdamW(module.parameters(), lr=lr, weight_decay=weight_decay))


def one_cycle(module: LightningModule, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Learning rates rise to those of the optimizer over the first tenth of the steps and fall to nearly 0 by the last.

    Momentum falls and rises with them, where there is any.

    Raises:
        UserError: The run goes on from a checkpoint whose run was planned with another number of steps.
    """
    steps = int(module.trainer.estimated_stepping_batches)
    if module.trainer.ckpt_path is not None:
        planned = _read(str(module.trainer.ckpt_path))["lr_schedulers"][0]["total_steps"]
        if planned != steps:
            raise UserError(
                f"The checkpoint {module.trainer.ckpt_path} is of a run of {planned} steps, this one has {steps}; "
                "go on with the same epochs, images, batch size and devices."
            )
    # The rise takes two steps where there are as many: the schedule divides by its length less one.
    rise = max(0.1, min(2 / steps, 0.75))
    highest = [group["lr"] for group in optimizer.param_groups]
    momentum = optimizer.defaults["betas"][0] > 0
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, highest, total_steps=steps, pct_start=rise, cycle_momentum=momentum
    )
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def single(trainer: TrainerFactory) -> Trainer:
    """A trainer for measuring: one device, so that every image counts once; under DDP every rank measures the same."""
    return trainer(devices=1, num_nodes=1, strategy="auto", max_epochs=1, logger=False, callbacks=[])


def check_checkpoint(ckpt_path: str, module: LightningModule) -> None:
    """Raises UserError for a checkpoint that is missing, not of plain numbers, or of another network."""
    if not Path(ckpt_path).is_file():
        raise UserError(f"There is no checkpoint {ckpt_path}; `ckpt_path` names the last.ckpt of an earlier run.")
    state = _read(ckpt_path)["state_dict"]
    if {k: v.shape for k, v in state.items()} != {k: v.shape for k, v in module.state_dict().items()}:
        raise UserError(f"The checkpoint {ckpt_path} belongs to another network than the one that is trained now.")


def _read(ckpt_path: str) -> dict[str, Any]:
    try:
        checkpoint = torch.load(ckpt_path, map_location="cpu", weights_only=True)
        checkpoint["state_dict"].items()
        return checkpoint
    except Exception as error:
        line = f"The checkpoint {ckpt_path} cannot be read as plain numbers; was it written by train.py?"
        raise UserError(line) from error
