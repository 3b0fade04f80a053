"""The Lightning trainer that everything runs on, with neuronx's defaults."""

import logging
import re
import warnings
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Annotated, Any

from lightning import LightningModule, Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ProgressBar

from neuronx.errors import UserError, first_line
from neuronx.options import OptionsOf, typed
from neuronx.progress import Bar, progress_bar
from neuronx.store.processes import start

EVERY = 20
"""Training batches between two looks at the losses."""


class PassProgress(ProgressBar):
    """Shows how far a pass or a training is, by the name of what is done."""

    def __init__(self) -> None:
        super().__init__()
        self.title, self.shown, self.bar = "images", ExitStack(), Bar("")

    def disable(self) -> None:
        """Does nothing: a bar shows in the first process only."""

    def enable(self) -> None:
        """Does nothing."""

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begins a bar of batches."""
        batches = sum(trainer.num_predict_batches)
        self.bar = self.shown.enter_context(progress_bar(self.title, batches))

    def on_predict_batch_end(self, *_: Any) -> None:
        """A batch is done."""
        self.bar.advance()

    def on_predict_end(self, *_: Any) -> None:
        """Takes the bar away."""
        self.shown.close()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begins a bar of all batches of all epochs that are left."""
        epochs = (trainer.max_epochs or -1) - trainer.current_epoch
        total = trainer.num_training_batches * epochs if epochs > 0 else None
        self.bar = self.shown.enter_context(progress_bar("training", total))

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """A batch is done; tells the epoch and what the module shows of its losses."""
        if self.bar.done % EVERY == 0:  # reading a loss waits for the device
            losses = [f"{name} {float(value):.3g}" for name, value in trainer.progress_bar_metrics.items()]
            self.bar.name = ", ".join([f"training, epoch {trainer.current_epoch + 1} of {trainer.max_epochs}", *losses])
        self.bar.advance()

    def on_train_end(self, *_: Any) -> None:
        """Takes the bar away."""
        self.shown.close()

    def on_exception(self, *_: Any) -> None:
        """Takes the bar away."""
        self.shown.close()


def make(**options: Annotated[Any, OptionsOf(Trainer)]) -> Trainer:
    """A `lightning.Trainer` for one automatically chosen device, without logs, checkpoints or summaries.

    A bar shows how far a pass is, unless `enable_progress_bar` is false. Samplers are neuronx's own, since Lightning's
    pad under DDP. The other processes of a trainer with several devices start at once, so that all of them see the
    store as the first one does.

    Args:
        options: Any arguments of `lightning.Trainer`; they win over the defaults.

    Raises:
        UserError: For arguments that Lightning refuses, and devices that the machine does not have.
    """
    # Lightning says at every trainer which devices there are, and what else to install.
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    # Our batches are made as fast in the main process, and a map of rows has no workers by design.
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    warnings.filterwarnings("ignore", ".*LeafSpec.*")
    warnings.filterwarnings("ignore", ".*Checkpoint directory .* is not empty.*")
    defaults: dict[str, Any] = {
        "accelerator": "auto",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_model_summary": False,
        "use_distributed_sampler": False,
    }
    chosen = defaults | options
    callbacks = chosen.get("callbacks") or []
    callbacks = list(callbacks) if isinstance(callbacks, list | tuple) else [callbacks]
    if chosen.get("enable_progress_bar", True) and not any(isinstance(one, ProgressBar) for one in callbacks):
        chosen["callbacks"] = [*callbacks, PassProgress()]
    try:
        runner = Trainer(**chosen)
    except Exception as error:  # Lightning raises many kinds for arguments that it refuses
        raise UserError(_refusal(options, error)) from error
    start(runner)
    return runner


def _refusal(options: Mapping[str, Any], error: Exception) -> str:
    """Which arguments Lightning refuses, and why in its own words."""
    said = first_line(error)
    named = [name for name in options if re.search(rf"\b{name}\b", said)] or list(options)
    given = ", ".join(f"trainer.{name}={typed(options[name])}" for name in named)
    lacks = re.search(r"gpu backend|not available", said)
    if isinstance(error, MisconfigurationException) and lacks:
        return f"{given}: this machine has no such device that PyTorch can use; trainer=auto takes what there is."
    return f"The Trainer cannot be made with {given}: {said}."
