"""Shows the explanations that a module found in whatever its trainer logs to."""

from pathlib import Path
from typing import Protocol, runtime_checkable

from lightning import Callback, LightningModule, Trainer

from neuronx.report.loggers import TakesTables
from neuronx.report.shown import explanations_table
from neuronx.tables.explanations import write_explanations
from neuronx.types import Explanation


@runtime_checkable
class Explains(Protocol):
    """A module that finds explanations, such as `LinearHeads`."""

    def explanations(self) -> list[Explanation]:
        """Those found so far."""
        ...


class ExplanationTable(Callback):
    """Logs a table of explanations when fitting or testing ends.

    A logger that takes tables (W&B) gets one under the key `explanations`; one that has a folder (CSV) gets the file
    `explanations.csv`.
    """

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs what was found by fitting."""
        self._log(trainer, pl_module)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs what was tested."""
        self._log(trainer, pl_module)

    def _log(self, trainer: Trainer, pl_module: LightningModule) -> None:
        explanations = pl_module.explanations() if isinstance(pl_module, Explains) else []
        if not explanations or not trainer.is_global_zero:
            return
        for logger in trainer.loggers:
            if isinstance(logger, TakesTables):
                columns, rows = explanations_table(explanations)
                logger.log_table("explanations", columns=columns, data=rows)
            elif logger.log_dir is not None:
                write_explanations(Path(logger.log_dir) / "explanations.csv", explanations)
