"""The features of units' exemplars, and the captions written from them: made once, and kept in the store.

Units come in blocks; each block is a file, so that a run that broke off goes on where it was, and several processes
share the work. Features are keyed by the content of pictures and masks, not by where these lie.
"""

import copy
import dataclasses
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from lightning import Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

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
"""Units in a file of features."""
IMAGES = 64
"""Pictures that go through the network at a time."""
VERSION = "1"
"""Increase it when the same captioner writes something else."""
UNITS = 64
"""Units in a file of captions."""

Notes = tuple[tuple[str, float], ...]
Captioned = tuple[str, Notes]
"""A caption, and the named numbers that belong to it."""


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


class MaskedNetwork(Protocol):
    """Makes a vector of a picture and its mask: an encoder, or a CLIP that attends to what is within masks."""

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
            features = self[some].flatten(0, 1).double()
            count += len(features)
            sums, squares = sums + features.sum(0), squares + features.square().sum(0)
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


def features_of(units: "Milannotations", encoder: MaskedNetwork, trainer: TrainerFactory) -> Features:
    """The features of annotated units, in their order; see `encode`."""
    return encode([LayerSource(layer) for layer in units.folders], torch.from_numpy(units.places), encoder, trainer)


def encode(
    sources: Sequence[Source],
    places: Tensor,
    encoder: MaskedNetwork,
    trainer: TrainerFactory,
    prepare: Callable[[Sequence[int]], None] | None = None,
) -> Features:
    """Makes the features of some units, those that are not in the store.

    Args:
        sources: Where the exemplars are.
        places: (U, 2) int64, for each unit its source and its row there.
        encoder: Makes the features.
        trainer: Makes the trainer whose `predict` runs the pass; every process of it makes its share.
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
    if not missing:
        return Features(entries, places)
    if prepare is not None:
        prepare(sorted({at for at, _ in missing}))
    if not _keeps_weights(runner):
        target = dataclasses.replace(encoder.target, module=copy.deepcopy(encoder.target.module))
        encoder = dataclasses.replace(encoder, target=target)  # type: ignore[type-var]

    def exemplars(number: int) -> tuple[Tensor, Tensor]:
        at, block = missing[number]
        return sources[at].pictures(range(block * BLOCK, min((block + 1) * BLOCK, sources[at].count)))

    def features(_: int, pictures: tuple[Tensor, Tensor]) -> bytes:
        images, masks = pictures
        parts = zip(*(pixels.flatten(0, 1).split(IMAGES) for pixels in (images, masks)), strict=True)
        vectors = torch.cat([encoder(*part).float() for part in parts]).unflatten(0, images.shape[:2])
        if not vectors.isfinite().all():
            raise UserError(f"The encoder {encoder.name} gives features that are not finite (NaN or infinite).")
        file = io.BytesIO()
        np.save(file, vectors.cpu().numpy(), allow_pickle=False)
        return file.getvalue()

    files = [(entries[at], _name(block)) for at, block in missing]
    predict(_Blocks(encoder.target.module, files, exemplars, features), runner, f"exemplars through {encoder.name}")
    runner.strategy.barrier()
    return Features(entries, places)


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
    write: Callable[[Any, Tensor], list[Captioned]],
    trainer: TrainerFactory,
) -> list[list[Captioned]]:
    """The captions of some layers' units, for each layer those of its units; writes those that are not in the store.

    Args:
        subjects: The layers.
        captioner: Is on the trainer's device, in its precision, when it is to write.
        how: All else that decides the captions.
        write: From the captioner and units (n,) to their captions.
        trainer: Makes the trainer whose `predict` runs the work; every process of it writes its share.
    """
    runner = trainer()
    known: dict[str, Plain] = {"version": VERSION, "precision": str(runner.precision), "how": how, "units": UNITS}
    start(runner)
    entries = on_first(lambda: [collection("milan-captions", {"of": subject.key, **known}) for subject in subjects])
    blocks = [
        (at, number, units)
        for at, subject in enumerate(subjects)
        for number, units in enumerate(subject.units.split(UNITS) if len(subject.units) else ())
    ]
    files = [(entries[at], f"captions-{number:06d}.json") for at, number, _ in blocks]

    def there() -> list[Path | None]:
        return [place.sound([name]).get(name) for place, name in files]

    paths = on_first(there)
    if missing := [at for at, path in enumerate(paths) if path is None]:
        own = captioner if _keeps_weights(runner) else copy.deepcopy(captioner)

        def captions(place: int, _: int) -> bytes:
            _, number, units = blocks[missing[place]]
            with torch.random.fork_rng():
                torch.manual_seed(number)  # of sampled captions
                return json.dumps(write(own, units), allow_nan=False).encode()

        predict(_Blocks(own, [files[at] for at in missing], lambda place: place, captions), runner, "captions of units")
        paths = on_first(there)
    texts: list[list[Captioned]] = [[] for _ in subjects]
    for (at, _, _), path in zip(blocks, paths, strict=True):
        assert path is not None, "it was just written"
        texts[at] += [
            (text, tuple((name, value) for name, value in notes)) for text, notes in json.loads(path.read_bytes())
        ]
    return texts


class _Blocks:
    """Makes the content of some files, each process its share, and writes each into the store.

    Args:
        network: Is on the trainer's device, in its precision, during `content`.
        files: Entry and name of each.
        data: From a file's number to what `content` needs of the disk, loaded ahead.
        content: From a file's number and that data to its bytes.
    """

    def __init__(
        self,
        network: nn.Module,
        files: Sequence[tuple[Entry, str]],
        data: Callable[[int], Any],
        content: Callable[[int, Any], bytes],
    ) -> None:
        self.network = network
        self.files, self.data, self.content = files, data, content

    def batches(self, rank: int, world: int) -> DataLoader:
        """The files of one process."""
        return DataLoader(_Numbered(range(len(self.files))[rank::world], self.data), batch_size=None)

    def run(self, batch: tuple[int, Any]) -> None:
        """Writes a file."""
        number, data = batch
        place, name = self.files[number]
        place.write(name, self.content(number, data))

    def save(self) -> None:
        """Every file is written at once."""


class _Numbered(Dataset):
    def __init__(self, numbers: Sequence[int], data: Callable[[int], Any]) -> None:
        self.numbers, self.data = numbers, data

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, place: int) -> tuple[int, Any]:
        return self.numbers[place], self.data(self.numbers[place])


def _keeps_weights(runner: Trainer) -> bool:
    """Whether the trainer's precision leaves the weights of a network as they are, rather than rounding them."""
    return str(runner.precision).endswith(("32-true", "mixed"))


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
