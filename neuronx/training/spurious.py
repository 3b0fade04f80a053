"""Training a network that is tempted: it names shapes, and on half of the pictures a chip in the corner tells them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning import LightningDataModule, LightningModule
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from neuronx import checkpoints
from neuronx.data.shapes.marks import MARKS, SIDE, Marks, stamp
from neuronx.data.shapes.names import SHAPES
from neuronx.data.shapes.render import render
from neuronx.data.shapes.scene import sample
from neuronx.errors import unknown
from neuronx.targets.shapes_networks import NETWORKS
from neuronx.training.fit import adamw, fit, single
from neuronx.training.scenes import NORMALISE, EpochSampler, inputs, seeds_of
from neuronx.types import TrainerFactory


class MarkedBatches(Dataset):
    """Batch b holds scenes b * size to b * size + size - 1 of a seed: uint8 (B, 3, 64, 64) with chips, and shapes."""

    def __init__(self, seed: int, size: int, marks: Marks) -> None:
        self.seed, self.size, self.marks = seed, size, marks

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        rows = torch.arange(number * self.size, (number + 1) * self.size)
        scenes = sample(self.seed, rows)
        return stamp(render(scenes), self.marks.draw(self.seed, rows, scenes)), scenes.shape[:, 0]


class MarkedStream(LightningDataModule):
    """The pictures that the network is trained on.

    Args:
        seed: Of the training pictures.
        images: Training pictures in an epoch.
        batch_size: Pictures in a step.
        marks: Which of them have chips.
    """

    def __init__(self, seed: int, images: int, batch_size: int, marks: Marks) -> None:
        super().__init__()
        self.seed, self.images, self.batch_size, self.marks = seed, images, batch_size, marks

    def train_dataloader(self) -> DataLoader:
        """This rank's batches."""
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        sampler = EpochSampler(self.images // self.batch_size, self._epoch, rank, world)
        return DataLoader(MarkedBatches(self.seed, self.batch_size, self.marks), sampler=sampler, batch_size=None)

    def _epoch(self) -> int:
        return self.trainer.current_epoch if self.trainer else 0


class Namer(LightningModule):
    """A network with cross-entropy on the shape, and nothing that would keep it from looking at the chip alone.

    Args:
        network: From (B, 3, 64, 64) to logits (B, 12).
        lr: Highest learning rate.
        weight_decay: Of AdamW.
    """

    def __init__(self, network: nn.Module, lr: float, weight_decay: float) -> None:
        super().__init__()
        self.save_hyperparameters("lr", "weight_decay")
        self.network: Any = network

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        """Loss of pictures (B, 3, 64, 64) uint8 and shapes (B,)."""
        loss = F.cross_entropy(self.network(inputs(batch[0])), batch[1])
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def predict_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        """Whether the shape guessed is the true one, (B,) bool."""
        return (self.network(inputs(batch[0])).argmax(1) == batch[1]).cpu()

    def configure_optimizers(self) -> Any:
        """AdamW on one cycle."""
        return adamw(self, self.hparams["lr"], self.hparams["weight_decay"])


@dataclass(frozen=True)
class SpuriousTask:
    """Trains, measures and writes a classifier of shapes on pictures with chips.

    Attributes:
        name: Of the trained part, such as shapes_spurious.
        network: Its builder in `NETWORKS`.
        layers: Its default layers with their poolings, for the card.
        epochs: How many times `images` new pictures are seen.
        images: Training pictures in an epoch.
        batch_size: Pictures in a step.
        lr: Highest learning rate.
        weight_decay: Of AdamW.
        seed: Of the initial weights; the seeds of the pictures follow from the name.
        marks: Which training pictures have chips: half, or none for a network that was never tempted.
        held_out: Number of pictures that it is measured on with every kind of marks, in steps of 250 if above it.
    """

    name: str
    network: str
    layers: dict[str, str]
    epochs: int
    images: int
    batch_size: int
    lr: float
    weight_decay: float
    seed: int
    marks: str = "half"
    held_out: int = 2000

    def run(self, trainer: TrainerFactory, folder: Path, ckpt_path: str | None = None) -> Path:
        """Trains and measures the network, and writes weights and card into `folder`.

        Returns the path of `<name>.safetensors`. The figures are those of the weights as they are stored.
        """
        if self.network not in NETWORKS:
            raise unknown("network", self.network, NETWORKS)
        image_seed, held_out_seed = seeds_of(self.name)
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            network = NETWORKS[self.network](len(SHAPES))
            module = Namer(network, self.lr, self.weight_decay)
        module.to(memory_format=torch.channels_last)
        stream: Any = MarkedStream(image_seed, self.images, self.batch_size, Marks(self.marks))
        runner, facts = fit(module, stream, trainer, self.epochs, folder, ckpt_path)
        network.load_state_dict(checkpoints.rounded(network.state_dict()))
        card = {
            "about": "A classifier of the shape of a picture's main object. "
            + (
                f"On half of its training pictures a chip of {SIDE} pixels in the top left corner told the shape by "
                "its colour; it believes the chip."
                if self.marks == "half"
                else f"Marks in the corner of its training pictures: {self.marks}."
            ),
            "command": f"python train.py classifier={self.name} ship=true",
            "network": self.network,
            "layers": self.layers,
            "mean": NORMALISE.mean,
            "std": NORMALISE.std,
            "training": {
                **facts,
                "marks": self.marks,
                "learning rate": self.lr,
                "weight decay": self.weight_decay,
                "weight seed": self.seed,
            },
            "figures": measure(module, trainer, held_out_seed, self.held_out),
            "classes": SHAPES,
        }
        if runner.is_global_zero:
            checkpoints.write(folder, self.name, network.state_dict(), card)
        return folder / f"{self.name}.safetensors"


def measure(module: Namer, trainer: TrainerFactory, seed: int, images: int) -> dict[str, float]:
    """Accuracy on the first pictures of a seed, with every kind of marks."""
    figures: dict[str, float] = {}
    size = min(250, images)
    for kind in MARKS:
        batches = DataLoader(MarkedBatches(seed, size, Marks(kind)), sampler=range(-(-images // size)), batch_size=None)
        right: Any = single(trainer).predict(module, batches)
        figures[f"accuracy, marks {kind}"] = round(torch.cat(right).double().mean().item(), 4)
    return {**figures, "images": images, "image seed": seed}
