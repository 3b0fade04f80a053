"""Rendered scenes as training data: every epoch new pictures from one seed, the held-out pictures from another."""

from collections.abc import Callable, Iterator

import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from neuronx.targets.preprocess import Preprocess
from neuronx.world.pictures.probe import WORLDS, World
from neuronx.world.pictures.render import render
from neuronx.world.pictures.scene import Scenes, sample
from neuronx.world.pictures.words import BACKGROUNDS, COLOURS, FAMILIES, PLACES, SHAPES, SIZES, TEXTURES

GROUPS: dict[str, tuple[str, ...]] = {
    "shapes": SHAPES,
    "colours": COLOURS,
    "textures": TEXTURES,
    "backgrounds": BACKGROUNDS,
    "sizes": SIZES,
    "places": PLACES,
    "families": tuple(FAMILIES),
}
"""The single concept words of the world, by kind."""

NORMALISE = Preprocess(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
"""The inputs of all networks of the world."""

SINGLE_WORDS: tuple[str, ...] = tuple(word for words in GROUPS.values() for word in words)

Describe = Callable[[Scenes, int], tuple[Tensor, ...]]
"""From the scenes of a batch and the batch's number to what the network should learn of them."""


def inputs(images: Tensor) -> Tensor:
    """Network inputs of uint8 pictures (B, 3, 64, 64), channels last: on a CPU up to twice as fast for convolutions."""
    return NORMALISE(images).contiguous(memory_format=torch.channels_last)


class SceneBatches(Dataset):
    """Batch b holds scenes b * size to b * size + size - 1 of a seed: uint8 (B, 3, 64, 64), and their description."""

    def __init__(self, seed: int, size: int, describe: Describe, world: World = WORLDS["shapes"]) -> None:
        self.seed, self.size, self.describe, self.world = seed, size, describe, world

    def __getitem__(self, number: int) -> tuple[Tensor, ...]:
        scenes = sample(self.seed, torch.arange(number * self.size, (number + 1) * self.size), self.world.layouts)
        return render(scenes), *self.describe(scenes, number)


class EpochSampler(Sampler[int]):
    """Numbers of new batches in every epoch, dealt to the ranks in turn; every rank gets equally many.

    Args:
        batches: Number of batches in an epoch.
        epoch: Says which epoch it is, and is asked when the first batch is wanted: in a resumed run Lightning knows no
            sooner, and calls `set_epoch` with 0 (seen in 2.6).
        rank: Of this process.
        world: Number of processes.
    """

    def __init__(self, batches: int, epoch: Callable[[], int], rank: int = 0, world: int = 1) -> None:
        self.batches, self.epoch, self.rank, self.world = batches, epoch, rank, world

    def __iter__(self) -> Iterator[int]:
        first = self.epoch() * self.batches
        yield from range(first + self.rank, first + len(self) * self.world, self.world)

    def __len__(self) -> int:
        return self.batches // self.world


class SceneStream(LightningDataModule):
    """The pictures that a part of the embedded world is trained on, and those that it is measured on.

    Args:
        describe: What the network should learn of the scenes.
        seed: Of the training pictures.
        images: Training pictures in an epoch.
        batch_size: Pictures in a step.
        world: The version of the world.
    """

    def __init__(
        self, describe: Describe, seed: int, images: int, batch_size: int, world: World = WORLDS["shapes"]
    ) -> None:
        super().__init__()
        self.describe, self.seed, self.images, self.batch_size = describe, seed, images, batch_size
        self.world = world

    def train_dataloader(self) -> DataLoader:
        """This rank's batches."""
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        sampler = EpochSampler(self.images // self.batch_size, self._epoch, rank, world)
        return DataLoader(self.batches, sampler=sampler, batch_size=None)

    @property
    def batches(self) -> Dataset:
        """All batches that there could be, by number."""
        return SceneBatches(self.seed, self.batch_size, self.describe, self.world)

    def _epoch(self) -> int:
        return self.trainer.current_epoch if self.trainer else 0


def fixed_batches(
    seed: int, images: int, describe: Describe, size: int = 250, world: World = WORLDS["shapes"]
) -> DataLoader:
    """The first `images` scenes of a seed in order, for measuring and calibrating."""
    batches = SceneBatches(seed, size, describe, world)
    return DataLoader(batches, sampler=range(-(-images // size)), batch_size=None)
