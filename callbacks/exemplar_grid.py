"""Shows grids of exemplars in whatever its trainer logs to, as pictures."""

from pathlib import Path

from lightning import Callback, LightningModule, Trainer

from neuronx.report.loggers import TakesPictures, found_pictures


class ExemplarGrid(Callback):
    """Logs the pictures of a run's folder when fitting, testing or predicting ends.

    A logger that takes pictures (W&B) gets each under the key `pictures/<place in the folder>`, as an evaluation does;
    others get nothing, since the pictures are files already. Pictures are sent to nobody unless asked for.

    Args:
        folder: Of the run, with the pictures (*.png) in it.
        images: Whether to send them: what `logger.wandb.images` says.
    """

    def __init__(self, folder: str | Path, images: bool = False) -> None:
        self.folder, self.images = Path(folder), images

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs what there is after fitting."""
        self._log(trainer)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs what there is after testing."""
        self._log(trainer)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs what there is after a pass over images."""
        self._log(trainer)

    def _log(self, trainer: Trainer) -> None:
        if not self.images or not trainer.is_global_zero:
            return
        for logger in trainer.loggers:
            if isinstance(logger, TakesPictures):
                for key, path in found_pictures(self.folder).items():
                    logger.log_image(key, [str(path)])
