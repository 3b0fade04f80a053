"""Writes down what a training run was, when it starts and when it ends."""

from pathlib import Path
from typing import Protocol, runtime_checkable

from lightning import Callback, LightningModule, Trainer

from neuronx.report.evaluation import now, write_record
from neuronx.types import Plain


@runtime_checkable
class Identified(Protocol):
    """Images that can be told from others, such as a `Probe`."""

    @property
    def fingerprint(self) -> str:
        """Digest of all of them."""
        ...


class RunRecord(Callback):
    """Writes `run.json` and `config.yaml` into the run's folder.

    Versions, the command, seeds and fingerprints are there as soon as the run starts; a run that was killed is the one
    whose `finished` is null.

    Args:
        folder: The run's folder.
        config: The composed configuration as YAML.
        facts: What else to record, such as `seed=0` or `fingerprints={"target": ...}`. The fingerprint of the images
            is added where the trainer's data module has one.
    """

    def __init__(self, folder: str | Path, config: str | None = None, **facts: Plain) -> None:
        self.folder = Path(folder)
        self.config = config
        self.facts = facts
        self.started: str | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Writes the record of a run that has begun."""
        self.started = self.started or now()
        self._write(trainer, finished=None, error=None)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Adds when it ended."""
        self._write(trainer, finished=now(), error=None)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Adds what ended it."""
        self._write(trainer, finished=now(), error=type(exception).__name__)

    def _write(self, trainer: Trainer, **ending: str | None) -> None:
        if not trainer.is_global_zero:
            return
        data = getattr(trainer, "datamodule", None)  # Lightning sets it when there is one
        images = {"images": data.fingerprint} if isinstance(data, Identified) else {}
        given = self.facts.get("fingerprints") or {}
        facts: dict[str, Plain] = {
            **self.facts,
            "fingerprints": {**images, **(given if isinstance(given, dict) else {})},
            "devices": trainer.num_devices * trainer.num_nodes,
            "accelerator": type(trainer.accelerator).__name__,
            "precision": str(trainer.precision),
            "started": self.started,
            **ending,
        }
        write_record(self.folder, self.config, **facts)
