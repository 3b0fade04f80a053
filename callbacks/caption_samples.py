"""Shows captions of a few held-out units, as a captioner gets better, in whatever its trainer logs to."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from PIL import Image

from neuronx.tables.csv import write_csv
from neuronx.types import Cell

COLUMNS = ("epoch", "unit", "caption", "described as")


class CaptionSamples(Callback):
    """Logs a table after every epoch: units with their captions, beside what was said of them.

    A logger that knows tables (W&B) gets one under the key `captions`; one that has a folder (CSV) the file
    `captions.csv` with those of all epochs. Pictures of the units' exemplars go with the captions to a logger that
    knows images, only if asked for.

    Args:
        images: Whether to send pictures: what `logger.wandb.images` says.
        units: At most so many.
    """

    def __init__(self, images: bool = False, units: int = 8) -> None:
        self.images, self.units = images, units
        self.rows: list[tuple[Cell, ...]] = []

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs what the module wrote in this epoch, if it writes captions."""
        captions = list(getattr(pl_module, "captions", []))[: self.units]
        if not captions or trainer.sanity_checking or not trainer.is_global_zero:
            return
        rows: list[tuple[Cell, ...]] = [
            (trainer.current_epoch, name(pl_module, unit), caption, " | ".join(_said(pl_module, unit)))
            for unit, caption in captions
        ]
        self.rows += rows
        for logger in trainer.loggers:
            if hasattr(logger, "log_table"):
                logger.log_table("captions", columns=list(COLUMNS), data=[list(row) for row in rows])
            elif logger.log_dir is not None:
                write_csv(Path(logger.log_dir) / "captions.csv", COLUMNS, self.rows)
            if self.images and hasattr(logger, "log_image") and getattr(pl_module, "units", None) is not None:
                logger.log_image("captioned exemplars", [grid(pl_module, captions)])


def name(module: Any, unit: int) -> str:
    """What a unit is called: model, layer and number where they are known."""
    units = getattr(module, "units", None)
    return str(unit) if units is None else f"{units.model(unit)} {units.unit(unit)}"


def grid(module: Any, captions: Sequence[tuple[int, str]]) -> Image.Image:
    """The exemplars of each unit in a row, under its caption."""
    from neuronx.report.tiles import Strip, sheet, tiles

    strips = []
    for unit, caption in captions:
        sample = module.units[unit]
        strips.append(Strip(caption, name(module, unit), tiles(sample.images, sample.masks)))
    return sheet(strips, columns=module.units.k)


def _said(module: Any, unit: int) -> Sequence[str]:
    return module.said[unit]
