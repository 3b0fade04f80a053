"""The Lightning trainer that everything runs on, with neuronx's defaults."""

import logging
import sys
import warnings
from typing import Any

from lightning import Trainer

from neuronx.store.processes import start


def make(**options: Any) -> Trainer:
    """A `lightning.Trainer` for one automatically chosen device, without logs, checkpoints or summaries.

    Progress bars show on a terminal only. Samplers are neuronx's own, since Lightning's pad under DDP. The other
    processes of a trainer with several devices start at once, so that all of them see the store as the first one does.

    Args:
        options: Any arguments of `lightning.Trainer`; they win over the defaults.
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
        "enable_progress_bar": sys.stderr.isatty(),
        "use_distributed_sampler": False,
    }
    runner = Trainer(**(defaults | options))
    start(runner)
    return runner
