"""Fitting a part of the embedded world: one call that trains, can be resumed and knows what it cost."""

from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer

from neuronx.errors import UserError
from neuronx.recording.fit import fit_module, read_checkpoint
from neuronx.types import TrainerFactory
from neuronx.world.training.scenes import SceneStream


def fit(
    module: LightningModule,
    stream: SceneStream,
    trainer: TrainerFactory,
    epochs: int,
    folder: Path,
    ckpt_path: str | None = None,
) -> tuple[Trainer, dict[str, Any]]:
    """Trains the module on rendered scenes, as `fit_module`, and returns the trainer with the facts for its card."""
    runner, costs = fit_module(module, stream, trainer, epochs, folder, ckpt_path=ckpt_path)
    return runner, {
        "images seen": runner.global_step * stream.batch_size * runner.world_size,
        "epochs": runner.current_epoch,
        "steps": runner.global_step,
        "batch size": stream.batch_size,
        "image seed": stream.seed,
        **costs,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


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
        planned = read_checkpoint(str(module.trainer.ckpt_path))["lr_schedulers"][0]["total_steps"]
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
