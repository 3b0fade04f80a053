"""Shows the explanations that a module found in whatever its trainer logs to."""

from pathlib import Path

from lightning import Callback, LightningModule, Trainer

from neuronx.tables.explanations import write_explanations
from neuronx.types import Explanation


class ExplanationTable(Callback):
    """Logs a table of explanations when fitting or testing ends.

    A logger that knows tables (W&B) gets one under the key `explanations`; one that has a folder (CSV) gets the file
    `explanations.csv`.

    Args:
        attribute: Where the module keeps its `list[Explanation]`, or the method that makes it.
    """

    def __init__(self, attribute: str = "explanations") -> None:
        self.attribute = attribute

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs what was found by fitting."""
        self._log(trainer, pl_module)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs what was tested."""
        self._log(trainer, pl_module)

    def _log(self, trainer: Trainer, pl_module: LightningModule) -> None:
        found = getattr(pl_module, self.attribute, None)
        explanations = found() if callable(found) else found
        if not explanations or not trainer.is_global_zero:
            return
        for logger in trainer.loggers:
            if hasattr(logger, "log_table"):
                columns, rows = table(explanations)
                logger.log_table("explanations", columns=columns, data=rows)
            elif logger.log_dir is not None:
                write_explanations(Path(logger.log_dir) / "explanations.csv", explanations)


def table(explanations: list[Explanation]) -> tuple[list[str], list[list[str | int | float | None]]]:
    """Columns and rows for people: layer, unit, explanation in words, and every number noted."""
    notes = list(dict.fromkeys(name for one in explanations for name, _ in one.notes))
    rows: list[list[str | int | float | None]] = [
        [one.unit.layer, one.unit.index, one.unit.part, str(one), *(dict(one.notes).get(name) for name in notes)]
        for one in explanations
    ]
    return ["layer", "unit", "part", "explanation", *notes], rows
