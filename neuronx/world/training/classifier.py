"""Training a network under study: it names the colour and shape of a scene's main object, or the place it shows."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from neuronx.errors import unknown
from neuronx.options import Count, NotNegative, Positive, Seed
from neuronx.store import checkpoints
from neuronx.types import TrainerFactory
from neuronx.world.networks import NETWORKS
from neuronx.world.pictures.marks import MARKS, SIDE, Marks, stamp
from neuronx.world.pictures.probe import WORLDS, World, seeds_of, world_of
from neuronx.world.pictures.render import render
from neuronx.world.pictures.scene import SHAPES, Scenes, sample
from neuronx.world.pictures.words import presence
from neuronx.world.training.fit import adamw, fit, single
from neuronx.world.training.scenes import NORMALISE, SINGLE_WORDS, SceneStream, fixed_batches, inputs


class Classifier(LightningModule):
    """A timm network with cross-entropy on the class, and beside it a head on which words are true of the scene.

    The second head is thrown away afterwards: it asks the features for the objects, textures and backgrounds that the
    class leaves out, and so makes them richer and the training shorter.

    Args:
        network: From (B, 3, 64, 64) to logits (B, classes).
        words: Number of words F of the second head.
        lr: Highest learning rate.
        weight_decay: Of AdamW.
    """

    def __init__(self, network: nn.Module, words: int, lr: Positive, weight_decay: float) -> None:
        super().__init__()
        self.save_hyperparameters("words", "lr", "weight_decay")
        self.network: Any = network
        features: Any = network.num_features
        self.word_head = nn.Linear(features, words)

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], _: int) -> Tensor:
        """Loss of pictures (B, 3, 64, 64) uint8, classes (B,) and truth of words (B, F)."""
        images, classes, truth = batch
        features = self.network.forward_head(self.network.forward_features(inputs(images)), pre_logits=True)
        named = F.cross_entropy(self.network.get_classifier()(features), classes)
        words = F.binary_cross_entropy_with_logits(self.word_head(features), truth.to(features.dtype))
        self.log_dict({"train/classes": named, "train/words": words}, prog_bar=True)
        return named + 4 * words

    def predict_step(self, batch: tuple[Tensor, Tensor, Tensor], _: int) -> tuple[Tensor, Tensor]:
        """The class guessed and the true one, (B,) each."""
        return self.network(inputs(batch[0])).argmax(1).cpu(), batch[1].cpu()

    def configure_optimizers(self) -> Any:
        """AdamW on one cycle."""
        return adamw(self, self.hparams["lr"], self.hparams["weight_decay"])


def describe(scenes: Scenes, _: int, world: World = WORLDS["shapes"]) -> tuple[Tensor, Tensor]:
    """Class (B,) of each scene, and truth (B, F) of every single word."""
    return world.classes(scenes), presence(scenes, SINGLE_WORDS)


@dataclass(frozen=True)
class ClassifierTask:
    """Trains, measures and writes one classifier of the embedded world.

    Attributes:
        name: Of the trained part, such as shapes_resnet.
        network: Its builder in `NETWORKS`, such as small_resnet.
        layers: Its default layers with their poolings, for the card.
        epochs: How many times `images` new pictures are seen.
        images: Training pictures in an epoch.
        batch_size: Pictures in a step.
        lr: Highest learning rate.
        weight_decay: Of AdamW.
        seed: Of the initial weights; the seeds of the pictures follow from the name.
        held_out: Number of pictures that it is measured on, in steps of 250.
        world: The version of the world that it is trained on, shapes or places.
    """

    name: str
    network: str
    layers: dict[str, str]
    epochs: Count
    images: Count
    batch_size: Count
    lr: Positive
    weight_decay: NotNegative
    seed: Seed
    held_out: Count = 5000
    world: str = "shapes"

    def run(self, trainer: TrainerFactory, folder: Path, ckpt_path: str | None = None) -> Path:
        """Trains and measures the network, and writes weights and card into `folder`.

        Returns the path of `<name>.safetensors`. The figures are those of the weights as they are stored.
        """
        if self.network not in NETWORKS:
            raise unknown("network", self.network, NETWORKS)
        image_seed, held_out_seed = seeds_of(self.name)
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            network = NETWORKS[self.network](len(self.classes))
            module = self.learner(network)
        module.to(memory_format=torch.channels_last)
        runner, facts = fit(module, self.pictures(image_seed), trainer, self.epochs, folder, ckpt_path)
        network.load_state_dict(checkpoints.rounded(network.state_dict()))
        card = {
            "about": self.about,
            "command": f"python train.py classifier={self.name} ship=true",
            "load": "neuronx.world.networks.load",
            "network": self.network,
            "layers": self.layers,
            "mean": NORMALISE.mean,
            "std": NORMALISE.std,
            "training": {
                **facts,
                "learning rate": self.lr,
                "weight decay": self.weight_decay,
                "weight seed": self.seed,
            },
            "figures": self.measure(module, trainer, held_out_seed),
            "classes": self.classes,
        }
        if runner.is_global_zero:
            checkpoints.write(folder, self.name, network.state_dict(), card)
        return folder / f"{self.name}.safetensors"

    @property
    def classes(self) -> tuple[str, ...]:
        """What the network names."""
        return world_of(self.world).class_names

    @property
    def about(self) -> str:
        """What the card says of it."""
        return f"A classifier of the {len(self.classes)} classes of the embedded world: {world_of(self.world).about}."

    def learner(self, network: nn.Module) -> LightningModule:
        """The network as it is trained."""
        return Classifier(network, len(SINGLE_WORDS), self.lr, self.weight_decay)

    def pictures(self, seed: int) -> SceneStream:
        """What it is trained on."""
        world = world_of(self.world)
        return SceneStream(partial(describe, world=world), seed, self.images, self.batch_size, world)

    def measure(self, module: LightningModule, trainer: TrainerFactory, seed: int) -> dict[str, float]:
        """Accuracy on the first pictures of a seed: on the class, and on each of the two factors that make it."""
        world = world_of(self.world)
        batches = fixed_batches(seed, self.held_out, partial(describe, world=world), world=world)
        outputs: Any = single(trainer).predict(module, batches)
        guess, true = (torch.cat(parts) for parts in zip(*outputs, strict=True))
        (first, second), (_, count) = world.factors, world.values
        hits = {
            "accuracy": guess == true,
            f"accuracy of the {first}": guess // count == true // count,
            f"accuracy of the {second}": guess % count == true % count,
        }
        figures = {name: round(hit.double().mean().item(), 4) for name, hit in hits.items()}
        chance = round((true.bincount().max() / len(true)).item(), 4)
        return {**figures, "share of the most frequent class": chance, "images": len(true), "image seed": seed}


class MarkedBatches(Dataset):
    """Batch b holds scenes b * size to b * size + size - 1 of a seed: uint8 (B, 3, 64, 64) with chips, and shapes."""

    def __init__(self, seed: Seed, size: int, marks: Marks) -> None:
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

    def __init__(self, seed: Seed, images: Count, batch_size: Count, marks: Marks) -> None:
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

    def __init__(self, network: nn.Module, lr: Positive, weight_decay: float) -> None:
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

    held_out: Count = 2000
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
