"""Training the embedded world's image generator against a critic that looks through a trained classifier."""

import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.nn.utils.parametrizations import spectral_norm
from torch.utils.data import DataLoader

from neuronx.data.latents import LatentProbe
from neuronx.metrics.frechet import frechet
from neuronx.options import Count, NotNegative, Positive, Seed
from neuronx.store import checkpoints
from neuronx.store.cache import write_atomic
from neuronx.targets.latents import Latents
from neuronx.types import TrainerFactory
from neuronx.world import networks as shapes
from neuronx.world.generator import CLASSES, ClassVectors, ShapesGenerator
from neuronx.world.pictures.probe import WORLDS, World, laid_out, png, seeds_of, world_of
from neuronx.world.pictures.scene import Scenes
from neuronx.world.training.fit import fit, one_cycle, single
from neuronx.world.training.scenes import SceneStream, fixed_batches, inputs


class Verdict(nn.Module):
    """Says at every place of a map how real a picture of a class looks.

    The class enters by a projection (Miyato and Koyama, "cGANs with projection discriminator", 2018); weights are
    normalised by their largest singular value (Miyato et al., "Spectral normalization", 2018).

    Args:
        narrow: Channels of the map.
        wide: Channels of the convolutions.
        strides: One 3 x 3 convolution for each.
        classes: How many values the two factors have that make a class.
    """

    def __init__(self, narrow: int, wide: int, strides: Sequence[int], classes: Sequence[int] = CLASSES) -> None:
        super().__init__()
        widths = [narrow, *[wide] * len(strides)]
        self.body = nn.Sequential(
            *(
                layer
                for before, after, stride in zip(widths, widths[1:], strides, strict=False)
                for layer in (spectral_norm(nn.Conv2d(before, after, 3, stride, 1)), nn.LeakyReLU(0.2))
            )
        )
        self.out = spectral_norm(nn.Conv2d(wide, 1, 1))
        self.class_vectors = ClassVectors(wide, classes)
        spectral_norm(self.class_vectors.table)

    def forward(self, maps: Tensor, classes: Tensor) -> Tensor:
        """From maps (B, narrow, H, W) and classes (B,) to scores (B, places)."""
        maps = self.body(maps)
        fitting = (self.class_vectors(classes)[:, :, None, None] * maps).sum(1, keepdim=True)
        return (self.out(maps) + fitting).flatten(1)


class Critic(nn.Module):
    """The frozen trunk of a trained classifier, with verdicts on its four stages and on the pixels.

    Args:
        start: Name of the shipped classifier, a small ResNet, or its file.
        classes: How many values the two factors have that make a class.
    """

    def __init__(self, start: str, classes: Sequence[int] = CLASSES) -> None:
        super().__init__()
        self.trunk: Any = _without_norms(shapes.load(start).module)
        plans = ((16, 48, (2, 2)), (32, 64, (1, 2)), (48, 96, (1, 2)), (64, 128, (1, 1)))
        self.verdicts = nn.ModuleList(Verdict(*plan, classes) for plan in plans)
        self.pixels = Verdict(12, 64, (2, 2, 2), classes)

    def forward(self, pictures: Tensor, classes: Tensor) -> tuple[list[Tensor], Tensor]:
        """From pictures (B, 3, 64, 64) in [-1, 1] and classes (B,) to scores (B, places) and logits of the classes."""
        trunk = self.trunk
        fine = F.pixel_unshuffle(pictures, 2).contiguous(memory_format=torch.channels_last)
        scores = [self.pixels(fine, classes)]
        maps = trunk.act1(trunk.conv1(2 * pictures))
        for stage, verdict in zip((trunk.layer1, trunk.layer2, trunk.layer3, trunk.layer4), self.verdicts, strict=True):
            maps = stage(maps)
            scores.append(verdict(maps, classes))
        return scores, trunk.fc(maps.mean((2, 3)))


def _without_norms(network: Any) -> nn.Module:
    """The same network with its normalisations folded into the convolutions before them, which saves time."""
    pairs = [(network, "conv1", "bn1")]
    for stage in (network.layer1, network.layer2, network.layer3, network.layer4):
        for block in stage:
            pairs += [(block, "conv1", "bn1"), (block, "conv2", "bn2")]
            if block.downsample is not None:
                pairs.append((block.downsample, "0", "1"))
    for parent, convolution, norm in pairs:
        folded = fuse_conv_bn_eval(parent.get_submodule(convolution), parent.get_submodule(norm))
        parent.register_module(convolution, folded)
        # timm's blocks look for no attributes of their norms.
        parent.register_module(norm, nn.Identity())
    return network.requires_grad_(False)


AVERAGED = 0.995
"""Share of the averaged weights that a step leaves as they are."""
SHOWN = 112
"""Pictures on the sheet that lies beside the weights."""


class Adversaries(LightningModule):
    """A generator and its critic, with the hinge loss (Lim and Ye, "Geometric GAN", 2017), and the generator's average.

    Both learn in the same step from one loss: what the generator is told goes through a copy of the critic's weights
    that has no gradients, and what the critic is told through pictures that have none.

    Args:
        generator: From (z, classes) to pictures.
        critic: From (pictures, classes) to scores and logits.
        lr: Highest learning rate of both.
        naming: Weight of the cross-entropy of the classes that the critic reads from generated pictures.
    """

    def __init__(self, generator: ShapesGenerator, critic: Critic, lr: Positive, naming: float) -> None:
        super().__init__()
        self.save_hyperparameters("lr", "naming")
        self.generator, self.critic = generator, critic
        self.average = copy.deepcopy(generator).eval().requires_grad_(False)

    def training_step(self, batch: tuple[Tensor, Tensor, tuple[Tensor, Tensor]], _: int) -> Tensor:
        """Loss of pictures (B, 3, 64, 64) uint8, their classes (B,), and latents for as many pictures with theirs."""
        images, classes, (latents, wanted) = batch
        real = inputs(images) / 2
        fake = self.generator(latents, wanted)
        both = torch.cat([real, fake.detach().to(real)]).contiguous(memory_format=torch.channels_last)
        scores, _ = self.critic(both, torch.cat([classes, wanted]))
        halves = [score.float().chunk(2) for score in scores]
        hinge = torch.stack([F.relu(1 - on_real).mean() + F.relu(1 + on_fake).mean() for on_real, on_fake in halves])
        still = {name: value.detach() for name, value in self.critic.named_parameters()}
        scores, logits = torch.func.functional_call(self.critic, still, (fake, wanted))
        fooled = torch.stack([-score.float().mean() for score in scores])
        asked = F.cross_entropy(logits.float(), wanted)
        losses = {"critic": hinge.sum(), "generator": fooled.sum(), "classes": asked}
        self.log_dict({f"train/{name}": loss.detach() for name, loss in losses.items()}, prog_bar=True)
        return hinge.sum() + fooled.sum() + self.hparams["naming"] * asked

    def on_train_batch_end(self, *_: Any) -> None:
        """Moves the average towards the generator, faster in the beginning."""
        steps = self.trainer.global_step
        kept = min(AVERAGED, (steps + 1) / (steps + 10))
        pairs = zip(self.average.state_dict().values(), self.generator.state_dict().values(), strict=True)
        with torch.no_grad():
            for mean, now in pairs:
                mean.lerp_(now, 1 - kept) if mean.is_floating_point() else mean.copy_(now)

    def configure_optimizers(self) -> Any:
        """Adam without momentum on one cycle."""
        learning = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return one_cycle(self, torch.optim.Adam(learning, lr=self.hparams["lr"], betas=(0.0, 0.99)))


@dataclass(frozen=True)
class GeneratorTask:
    """Trains, measures and writes the image generator of the embedded world.

    Attributes:
        name: Of the trained part, shapes_gan.
        critic: Name of the shipped classifier whose features the critic sees.
        witness: Name of another classifier, which measures the pictures.
        latent_dim: Length of the latent vector.
        channels: Widths of the generator, from 4 x 4 to 32 x 32.
        layers: Its default layers with their poolings, for the card.
        epochs: How many times `images` new pictures are seen.
        images: Training pictures in an epoch.
        batch_size: Pictures in a step.
        lr: Highest learning rate.
        naming: Weight of the cross-entropy of the classes that the critic reads from generated pictures.
        seed: Of the initial weights; the seeds of pictures and latents follow from the name.
        precision: Of the training, unless `trainer.precision` is typed; the generator is used in single precision.
        held_out: Number of pictures that it is measured on, a multiple of 125 if above it.
        world: The version of the world that it learns to paint, shapes or places.
    """

    name: str
    critic: str
    witness: str
    latent_dim: Count
    channels: list[int]
    layers: dict[str, str]
    epochs: Count
    images: Count
    batch_size: Count
    lr: Positive
    naming: NotNegative
    seed: Seed
    precision: str = "bf16-mixed"
    held_out: Count = 5000
    world: str = "shapes"

    def run(self, trainer: TrainerFactory, folder: Path, ckpt_path: str | None = None) -> Path:
        """Trains and measures the generator, and writes weights, card and a sheet of pictures into `folder`.

        Returns the path of `<name>.safetensors`. The figures are those of the weights as they are stored.
        """
        image_seed, held_out_seed = seeds_of(self.name)
        world = world_of(self.world)
        names = world.class_names
        latents = Latents(
            ((self.latent_dim,),), len(names), domain="shapes", class_names=names, hierarchy=world.hierarchy
        )
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            generator = ShapesGenerator(self.latent_dim, self.channels, world.values)
            critic = Critic(self.critic, world.values)
            module = Adversaries(generator, critic, self.lr, self.naming)
        module.to(memory_format=torch.channels_last)

        def describe(scenes: Scenes, number: int) -> tuple[Tensor, Any]:
            rows = torch.arange(number * len(scenes), (number + 1) * len(scenes))
            return world.classes(scenes), latents.draw(rows, image_seed)

        stream = SceneStream(describe, image_seed, self.images, self.batch_size, world)
        precise = "precision" in getattr(trainer, "keywords", {})
        training = trainer if precise else partial(trainer, precision=self.precision)
        with warnings.catch_warnings():
            # The average is never trained, and what the critic starts from has nothing that training would change.
            warnings.filterwarnings("ignore", ".*in eval mode at the start of training.*")
            runner, facts = fit(module, stream, training, self.epochs, folder, ckpt_path)
        made = module.average.cpu().to(memory_format=torch.contiguous_format)
        made.load_state_dict(checkpoints.rounded(made.state_dict()))
        probe = LatentProbe(made, latents, "", self.held_out, held_out_seed)
        card = {
            "about": "An image generator of the embedded world, trained against a critic: from a latent vector "
            f"and a class, {world.about}, to a picture. "
            f"The critic looks through {self.critic}; {self.witness}, which had no part in it, measures.",
            "command": f"python train.py generator={self.name} ship=true",
            "generator": {"latent_dim": self.latent_dim, "channels": self.channels, "classes": world.values},
            "layers": self.layers,
            "training": {
                **facts,
                "precision": str(runner.precision),
                "learning rate": self.lr,
                "weight seed": self.seed,
            },
            "figures": measure(probe, self.witness, trainer, held_out_seed, world),
            "classes": names,
        }
        if runner.is_global_zero:
            write_atomic(
                folder / f"{self.name}.png", png(laid_out(probe.load(range(min(112, len(probe)))), columns=14))
            )
            checkpoints.write(folder, self.name, made.state_dict(), card)
        return folder / f"{self.name}.safetensors"


class Witness(LightningModule):
    """A trained classifier that looks at pictures."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network: Any = network

    def predict_step(self, batch: tuple[Tensor, Tensor], _: int) -> tuple[Tensor, Tensor]:
        """Features (B, D) and probabilities of classes (B, classes) of pictures (B, 3, 64, 64) uint8."""
        network = self.network
        features = network.forward_head(network.forward_features(inputs(batch[0])), pre_logits=True)
        return features.float().cpu(), network.get_classifier()(features).softmax(1).float().cpu()


def measure(
    probe: LatentProbe, witness: str, trainer: TrainerFactory, seed: Seed, world: World = WORLDS["shapes"]
) -> dict[str, float]:
    """How a classifier that had no part in the training sees generated pictures, beside rendered ones of a seed.

    The Fréchet distance of its features from those of rendered pictures, and that of other rendered pictures; how
    often it finds the class, and the two factors of it, that were asked for; how often it gives any class half of its
    belief.
    """
    number, look = len(probe), Witness(shapes.load(witness).module)

    def seen(loader: DataLoader) -> tuple[Tensor, Tensor]:
        outputs: Any = single(trainer).predict(look, loader)
        features, beliefs = (torch.cat(parts) for parts in zip(*outputs, strict=True))
        return features, beliefs

    (made, beliefs), (real, truth) = (
        seen(probe.loader(_as_is)),
        seen(fixed_batches(seed, 2 * number, partial(_classes, world=world), min(250, 2 * number), world)),
    )
    guess, asked = beliefs.argmax(1), probe.labels
    assert asked is not None
    (first, second), (_, count) = world.factors, world.values
    confident = {"generated": beliefs, "rendered": truth}
    shares = {
        "class as asked": guess == asked,
        f"{first} as asked": guess // count == asked // count,
        f"{second} as asked": guess % count == asked % count,
        **{f"class with belief above half, {kind}": seen.amax(1) > 0.5 for kind, seen in confident.items()},
    }
    return {
        "Fréchet distance of generated from rendered pictures": round(frechet(made, real[:number]), 4),
        "Fréchet distance of rendered from rendered pictures": round(frechet(real[number:], real[:number]), 4),
        **{f"share of {name}": round(hit.double().mean().item(), 4) for name, hit in shares.items()},
        "images": number,
        "image seed": seed,
    }


def _as_is(pictures: Tensor) -> Tensor:
    return pictures


def _classes(scenes: Scenes, _: int, world: World) -> tuple[Tensor]:
    return (world.classes(scenes),)
