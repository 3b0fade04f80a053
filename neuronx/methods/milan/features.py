"""The features of units' exemplars: made once, a few units at a time, kept on disk and read from there.

Units come in blocks; each block is a file that is written whole, so that a run that broke off goes on where it was, and
several processes share the work. What is kept is known by the content of pictures and masks, not by their place.
"""

import copy
import dataclasses
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from lightning import LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from neuronx.errors import UserError
from neuronx.recording.forward_pass import predict
from neuronx.store.cache import Entry, collection, entry, sha256_of
from neuronx.store.processes import on_first, start
from neuronx.types import Plain, TrainerFactory

if TYPE_CHECKING:
    from neuronx.milannotations.dataset import Milannotations
    from neuronx.milannotations.layer import Layer
    from neuronx.targets.target import Target

BLOCK = 32
"""Units in a file."""
IMAGES = 64
"""Pictures that go through the network at a time."""


class Source(Protocol):
    """Where the exemplars of some units are."""

    @property
    def key(self) -> Plain:
        """All that decides them."""
        ...

    @property
    def count(self) -> int:
        """Number of units."""
        ...

    def pictures(self, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Images (B, k, 3, H, W) uint8 and masks (B, k, 1, H, W) of some of the units."""
        ...


class Seeing(Protocol):
    """What makes a vector of a picture and its mask: an encoder, or a CLIP that looks within masks."""

    @property
    def name(self) -> str:
        """Of the network."""
        ...

    @property
    def target(self) -> "Target":
        """The network."""
        ...

    @property
    def identity(self) -> Mapping[str, Plain]:
        """All that decides the vectors, but for the pictures and the masks."""
        ...

    def __call__(self, images: Tensor, masks: Tensor) -> Tensor:
        """Vectors (N, D) of images (N, 3, H, W) and masks (N, 1, H, W)."""
        ...


@dataclass(frozen=True)
class Features:
    """The features of U units, on disk.

    Attributes:
        entries: One for each source.
        places: (U, 2) int64, for each unit its source and its row there.
    """

    entries: tuple[Entry, ...]
    places: Tensor

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, units: Tensor) -> Tensor:
        """Those of some units (B,): (B, k, D) float32."""
        rows = [_block(self._blocks[at][_name(row // BLOCK)])[row % BLOCK] for at, row in self.places[units].tolist()]
        return torch.from_numpy(np.stack(rows))

    @cached_property
    def _blocks(self) -> list[dict[str, Path]]:
        return [place.blocks("block-") for place in self.entries]

    def scale(self, units: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (D,) of features over all exemplars of some units, read a block at a time.

        A feature that hardly varies gets a hundredth of the mean deviation, so that it is not blown up.
        """
        count, sums, squares = 0, torch.zeros(()), torch.zeros(())
        for some in units.split(BLOCK):
            found = self[some].flatten(0, 1).double()
            count += len(found)
            sums, squares = sums + found.sum(0), squares + found.square().sum(0)
        mean = sums / count
        deviation = (squares / count - mean.square()).clamp(min=0).sqrt()
        return mean.float(), deviation.clamp(min=0.01 * deviation.mean()).where(deviation.mean() > 0, 1).float()

    @property
    def shape(self) -> tuple[int, int, int]:
        """(U, k, D)."""
        return len(self), *self[torch.tensor([0])].shape[1:]


@dataclass(frozen=True)
class LayerSource:
    """A layer in the layout of MILANNOTATIONS."""

    layer: "Layer"

    @property
    def key(self) -> Plain:
        """Digests of its pictures and its masks."""
        return {name: _content(self.layer.folder / f"{name}.npy") for name in ("images", "masks")}

    @property
    def count(self) -> int:
        """Units of the layer."""
        return len(self.layer.units)

    def pictures(self, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Read where touched."""
        images, masks = (torch.from_numpy(array[list(rows)]) for array in (self.layer.images, self.layer.masks))
        if int(masks.max()) > 1:
            raise UserError(f"{self.layer.folder / 'masks.npy'}: masks are 0 or 1, found {int(masks.max())}.")
        return images, masks


def features_of(units: "Milannotations", encoder: Seeing, trainer: TrainerFactory) -> Features:
    """The features of annotated units, in their order; see `encode`."""
    return encode([LayerSource(layer) for layer in units.folders], torch.from_numpy(units.places), encoder, trainer)


def encode(
    sources: Sequence[Source],
    places: Tensor,
    encoder: Seeing,
    trainer: TrainerFactory,
    batch_size: int = IMAGES,
    prepare: Callable[[Sequence[int]], None] | None = None,
) -> Features:
    """Makes the features of some units, those that are not in the store.

    Args:
        sources: Where the exemplars are.
        places: (U, 2) int64, for each unit its source and its row there.
        encoder: Makes the features.
        trainer: Makes the trainer whose `predict` runs the pass; every process of it makes its share.
        batch_size: Pictures that go through the network at a time.
        prepare: Called first, in every process, with the sources that pictures will be asked of, if there are any.

    Raises:
        UserError: Pictures or masks that the encoder does not take.
    """
    runner = trainer()
    how: dict[str, Plain] = {"encoder": encoder.identity, "precision": str(runner.precision), "block": BLOCK}
    wanted = torch.stack([places[:, 0], places[:, 1] // BLOCK], 1).unique(dim=0).tolist()
    start(runner)

    def look_up() -> tuple[tuple[Entry, ...], list[tuple[int, int]]]:
        entries = tuple(collection("milan-features", {"exemplars": source.key, **how}) for source in sources)
        there = [place.sound(_name(block) for of, block in wanted if of == at) for at, place in enumerate(entries)]
        return entries, [(at, block) for at, block in wanted if _name(block) not in there[at]]

    entries, missing = on_first(look_up)
    if missing:
        if prepare is not None:
            prepare(sorted({at for at, _ in missing}))
        predict(_Pass(_safe(encoder, runner), sources, entries, missing, batch_size), runner)
        runner.strategy.barrier()
    return Features(entries, places)


def _safe(encoder: Seeing, runner: Trainer) -> Seeing:
    """The encoder, its network copied where the trainer's precision would change the weights for good."""
    if str(runner.precision) == "32-true" or str(runner.precision).endswith("mixed"):
        return encoder
    target = dataclasses.replace(encoder.target, module=copy.deepcopy(encoder.target.module))
    return dataclasses.replace(encoder, target=target)  # type: ignore[type-var]


class _Pass(LightningModule):
    """Goes through blocks of units and writes the features of each."""

    def __init__(
        self,
        encoder: Seeing,
        sources: Sequence[Source],
        entries: Sequence[Entry],
        blocks: Sequence[tuple[int, int]],
        batch_size: int,
    ) -> None:
        super().__init__()
        self.allow_zero_length_dataloader_with_multiple_devices = True
        self.network = encoder.target.module
        self.encoder, self.sources, self.entries, self.blocks = encoder, sources, entries, blocks
        self.batch_size = batch_size

    def predict_dataloader(self) -> DataLoader:
        """The blocks of this process."""
        mine = self.blocks[self.trainer.global_rank :: self.trainer.world_size]
        return DataLoader(_Blocks(self.sources), sampler=_Listed(mine), batch_size=None)

    def predict_step(self, batch: tuple[tuple[int, int], Tensor, Tensor], _: int) -> int:
        """Writes the features (B, k, D) of a block; returns its number."""
        (at, block), images, masks = batch
        pictures, cut = (pixels.flatten(0, 1).split(self.batch_size) for pixels in (images, masks))
        parts = zip(pictures, cut, strict=True)
        found = torch.cat([self.encoder(*part).float() for part in parts]).unflatten(0, images.shape[:2])
        if not found.isfinite().all():
            raise UserError(f"The encoder {self.encoder.name} gives features that are not finite (NaN or infinite).")
        file = io.BytesIO()
        np.save(file, found.cpu().numpy(), allow_pickle=False)
        self.entries[at].write(_name(block), file.getvalue())
        if self.trainer.received_sigterm:
            raise SystemExit(143)
        return block


class _Listed(Sampler):
    def __init__(self, blocks: Sequence[tuple[int, int]]) -> None:
        self.blocks = blocks

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self.blocks)

    def __len__(self) -> int:
        return len(self.blocks)


class _Blocks(Dataset):
    """The exemplars of a block of units; the index is a source and the number of the block there."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources = sources

    def __getitem__(self, place: tuple[int, int]) -> tuple[tuple[int, int], Tensor, Tensor]:
        at, block = place
        source = self.sources[at]
        return place, *source.pictures(range(block * BLOCK, min((block + 1) * BLOCK, source.count)))


def _name(block: int) -> str:
    return f"block-{block:06d}.npy"


@lru_cache(maxsize=4096)
def _block(path: Path) -> np.ndarray:
    """A block's features, mapped: read where touched."""
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _content(path: Path) -> str:
    """The sha256 of a file, looked up where the same file was read before and has not changed since."""
    facts = path.stat()
    place = entry("digests", [str(path.resolve()), facts.st_size, facts.st_mtime_ns, facts.st_ino])
    known = place.open() or place.publish({}, sha256=sha256_of(path))
    return str(known.facts["sha256"])
