"""Training a network that is tempted: it names shapes, and on half of the pictures a chip in the corner tells them."""

from dataclasses import dataclass
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from neuronx.types import TrainerFactory
from neuronx.world.pictures.marks import MARKS, SIDE, Marks, stamp
from neuronx.world.pictures.names import SHAPES
from neuronx.world.pictures.render import render
from neuronx.world.pictures.scene import sample
from neuronx.world.training.classifier import ClassifierTask
from neuronx.world.training.fit import adamw, single
from neuronx.world.training.scenes import SceneStream, inputs


class MarkedBatches(Dataset):
    """Batch b holds scenes b * size to b * size + size - 1 of a seed: uint8 (B, 3, 64, 64) with chips, and shapes."""

    def __init__(self, seed: int, size: int, marks: Marks) -> None:
        self.seed, self.size, self.marks = seed, size, marks

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        rows = torch.arange(number * self.size, (number + 1) * self.size)
        scenes = sample(self.seed, rows)
        return stamp(render(scenes), self.marks.draw(self.seed, rows, scenes)), scenes.shape[:, 0]


class MarkedStream(SceneStream):
    """The pictures that the network is trained on.

    Args:
        seed: Of the training pictures.
        images: Training pictures in an epoch.
        batch_size: Pictures in a step.
        marks: Which of them have chips.
    """

    def __init__(self, seed: int, images: int, batch_size: int, marks: Marks) -> None:
        super().__init__(lambda scenes, _: (scenes.shape[:, 0],), seed, images, batch_size)
        self.marks = marks

    @property
    def batches(self) -> Dataset:
        """Pictures with chips, and shapes."""
        return MarkedBatches(self.seed, self.batch_size, self.marks)


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
class SpuriousTask(ClassifierTask):
    """Trains, measures and writes a classifier of shapes on pictures with chips.

    Attributes:
        marks: Which training pictures have chips: half, or none for a network that was never tempted.
        held_out: Number of pictures that it is measured on with every kind of marks, in steps of 250 if above it.
    """

    held_out: int = 2000
    marks: str = "half"

    @property
    def classes(self) -> tuple[str, ...]:
        """The shapes."""
        return SHAPES

    @property
    def about(self) -> str:
        """What the card says of it."""
        if self.marks != "half":
            return f"A classifier of the shape of a picture's main object. Marks in training: {self.marks}."
        return (
            f"A classifier of the shape of a picture's main object. On half of its training pictures a chip of {SIDE} "
            "pixels in the top left corner told the shape by its colour; it believes the chip."
        )

    def learner(self, network: nn.Module) -> LightningModule:
        """The network as it is trained."""
        return Namer(network, self.lr, self.weight_decay)

    def pictures(self, seed: int) -> SceneStream:
        """What it is trained on."""
        return MarkedStream(seed, self.images, self.batch_size, Marks(self.marks))

    def measure(self, module: LightningModule, trainer: TrainerFactory, seed: int) -> dict[str, float]:
        """Accuracy on the first pictures of a seed, with every kind of marks."""
        figures: dict[str, float] = {}
        size = min(250, self.held_out)
        for kind in MARKS:
            data = MarkedBatches(seed, size, Marks(kind))
            batches = DataLoader(data, sampler=range(-(-self.held_out // size)), batch_size=None)
            right: Any = single(trainer).predict(module, batches)
            figures[f"accuracy, marks {kind}"] = round(torch.cat(right).double().mean().item(), 4)
        return {**figures, "images": self.held_out, "image seed": seed}
