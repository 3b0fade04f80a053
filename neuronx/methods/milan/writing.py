"""Captions are written once and kept: a few units at a time, by all processes, on with it where a run broke off."""

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader

from neuronx.recording.forward_pass import predict
from neuronx.store.cache import Entry, collection
from neuronx.store.processes import on_first, start
from neuronx.types import Plain, TrainerFactory

VERSION = "1"
"""Raised whenever the same captioner writes something else."""
UNITS = 64
"""Described at a time."""

Notes = tuple[tuple[str, float], ...]
Told = tuple[str, Notes]
"""A caption, and the named numbers that belong to it."""


@dataclass(frozen=True)
class Subject:
    """The units of one layer that are to be described.

    Attributes:
        key: All that decides their captions, the captioner apart.
        units: (n,) int64, which of the features are theirs.
    """

    key: Plain
    units: Tensor


def written(
    subjects: Sequence[Subject],
    captioner: nn.Module,
    how: Plain,
    write: Callable[[Any, Tensor], list[Told]],
    trainer: TrainerFactory,
) -> list[list[Told]]:
    """The captions of some layers' units; those that are not in the store are written.

    Args:
        subjects: The layers.
        captioner: Is on the trainer's device, in its precision, when it is to write.
        how: All else that decides the captions.
        write: From the captioner and units (n,) to their captions.
        trainer: Makes the trainer whose `predict` runs the work; every process of it writes its share.

    Returns:
        For each subject what was said of each of its units.
    """
    runner = trainer()
    known: dict[str, Plain] = {"version": VERSION, "precision": str(runner.precision), "how": how, "units": UNITS}
    start(runner)
    entries = on_first(lambda: [collection("milan-captions", {"of": subject.key, **known}) for subject in subjects])
    blocks = [
        (place, number, units)
        for place, subject in zip(entries, subjects, strict=True)
        for number, units in enumerate(subject.units.split(UNITS) if len(subject.units) else ())
    ]

    def there() -> list[Path | None]:
        return [place.sound([_name(number)]).get(_name(number)) for place, number, _ in blocks]

    paths = on_first(there)
    if missing := [at for at, path in enumerate(paths) if path is None]:
        own = captioner if str(runner.precision).endswith(("32-true", "mixed")) else copy.deepcopy(captioner)
        predict(_Pass(own, write, [blocks[at] for at in missing]), runner)
        paths = on_first(there)
    told: dict[Path, list[Told]] = {place.path: [] for place in entries}
    for (place, _, _), path in zip(blocks, paths, strict=True):
        assert path is not None, "it was just written"
        told[place.path] += [
            (text, tuple((name, value) for name, value in notes)) for text, notes in json.loads(path.read_bytes())
        ]
    return [told[place.path] for place in entries]


class _Pass(LightningModule):
    """Goes through blocks of units and writes down what is said of each."""

    def __init__(
        self,
        captioner: nn.Module,
        write: Callable[[Any, Tensor], list[Told]],
        blocks: Sequence[tuple[Entry, int, Tensor]],
    ) -> None:
        super().__init__()
        self.allow_zero_length_dataloader_with_multiple_devices = True
        self.network = captioner
        self.write_captions, self.blocks = write, blocks

    def predict_dataloader(self) -> DataLoader:
        """The numbers of the blocks of this process."""
        mine: Any = range(len(self.blocks))[self.trainer.global_rank :: self.trainer.world_size]
        return DataLoader(mine, batch_size=None)

    def predict_step(self, at: int, _: int) -> int:
        """Describes a block of units; returns its number."""
        place, number, units = self.blocks[at]
        with torch.random.fork_rng():
            torch.manual_seed(number)  # of sampled captions
            told = self.write_captions(self.network, units)
        place.write(_name(number), json.dumps(told, allow_nan=False).encode())
        if self.trainer.received_sigterm:
            raise SystemExit(143)
        return at


def _name(number: int) -> str:
    return f"captions-{number:06d}.json"
