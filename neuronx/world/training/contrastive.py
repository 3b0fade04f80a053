"""Training a small CLIP of the embedded world: pictures and phrases meet where the phrase is true of the picture."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F

from neuronx.concepts.clip import fit_sigmoid
from neuronx.errors import UserError
from neuronx.options import Count, Natural, NotNegative, Positive, Seed
from neuronx.store import checkpoints
from neuronx.types import TrainerFactory
from neuronx.world.clip import WordTokenizer, build, vocabulary
from neuronx.world.pictures.probe import seeds_of
from neuronx.world.pictures.scene import Scenes
from neuronx.world.pictures.words import CONCEPTS, captions, presence
from neuronx.world.training.fit import adamw, fit, single
from neuronx.world.training.scenes import GROUPS, NORMALISE, SINGLE_WORDS, SceneStream, fixed_batches, inputs

if TYPE_CHECKING:
    from open_clip.model import CLIP

SENTENCE_WORDS = ("against", "and", "background", "wall")
"""Words of the captions that no concept holds."""


class Contrastive(LightningModule):
    """An open_clip model under the sigmoid loss of SigLIP (Zhai et al., 2023), with as many positives as there are.

    Each picture of the batch meets each phrase of the batch, and the truth says which belong together: binary
    cross-entropy of sigmoid(exp(scale) cosine + bias). Beside it, a head on the image embedding before normalisation
    says which single words are true; it is thrown away afterwards and makes the training several times shorter.

    Args:
        model: The two towers.
        words: Number of words F of the head.
        lr: Highest learning rate.
        weight_decay: Of AdamW.
    """

    def __init__(self, model: "CLIP", words: int, lr: Positive, weight_decay: float) -> None:
        super().__init__()
        self.save_hyperparameters("words", "lr", "weight_decay")
        self.model: Any = model
        self.word_head = nn.Linear(self.model.text_projection.shape[1], words)

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor, Tensor], _: int) -> Tensor:
        """Loss of pictures (B, 3, 64, 64) uint8, tokens (P, L), truth of phrases (B, P) and of words (B, F)."""
        images, tokens, truth, words = batch
        features = self.model.encode_image(inputs(images))
        texts = self.model.encode_text(tokens, normalize=True)
        logits = self.model.logit_scale.exp() * F.normalize(features, dim=-1) @ texts.T + self.model.logit_bias
        match = F.binary_cross_entropy_with_logits(logits, truth.to(logits.dtype))
        head = F.binary_cross_entropy_with_logits(self.word_head(features), words.to(logits.dtype))
        self.log_dict({"train/match": match, "train/words": head}, prog_bar=True)
        return match + head

    def predict_step(self, batch: tuple[Tensor, Tensor], _: int) -> tuple[Tensor, Tensor]:
        """Unit embeddings (B, D) of the pictures, and what the batch says of them."""
        return self.model.encode_image(inputs(batch[0]), normalize=True).float().cpu(), batch[1].cpu()

    def configure_optimizers(self) -> Any:
        """AdamW on one cycle."""
        return adamw(self, self.hparams["lr"], self.hparams["weight_decay"])


class PhraseBatches:
    """What a batch of scenes teaches: phrases of every length as tokens, and which of them are true of which scene.

    Every batch has all single words, some of the other concepts (distractors among them, true nowhere), and the
    captions of some of its own scenes.

    Args:
        tokenizer: Of the text tower.
        phrases: Number of other concepts in a batch.
        sentences: Number of captions in a batch.
    """

    def __init__(self, tokenizer: WordTokenizer, phrases: Count, sentences: int) -> None:
        self.tokenizer, self.phrases, self.sentences = tokenizer, phrases, sentences
        # The last is in no vocabulary: it teaches what an unknown word means.
        self.others = [*(name for name in CONCEPTS if name not in SINGLE_WORDS), "0"]

    def __call__(self, scenes: Scenes, number: int) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens (P, L) int64, truth (B, P) bool, and truth (B, F) of the single words, for batch `number`."""
        order = torch.randperm(len(self.others), generator=torch.Generator().manual_seed(number))[: self.phrases]
        drawn = [self.others[i] for i in order.tolist()] + captions(scenes[: self.sentences])
        words = presence(scenes, SINGLE_WORDS)
        return self.tokenizer([*SINGLE_WORDS, *drawn]), torch.cat([words, presence(scenes, drawn)], 1), words


def describe(scenes: Scenes, _: int) -> tuple[Tensor]:
    """Truth (B, C) of every concept of the world."""
    return (presence(scenes, CONCEPTS),)


@dataclass(frozen=True)
class ContrastiveTask:
    """Trains, calibrates, measures and writes one small CLIP of the embedded world.

    Attributes:
        name: Of the trained part, such as shapes_explainer.
        embed_dim: Length of the embeddings.
        vision: open_clip's `vision_cfg`.
        text: open_clip's `text_cfg`, without vocabulary and context.
        epochs: How many times `images` new pictures are seen.
        images: Training pictures in an epoch.
        batch_size: Pictures in a step.
        phrases: Concepts in a step beside the single words.
        sentences: Captions in a step.
        lr: Highest learning rate.
        weight_decay: Of AdamW.
        seed: Of the initial weights; the seeds of the pictures follow from the name.
        held_out: Number of pictures that it is measured on, in steps of 250; it is calibrated on as many of those that
            it was trained on.
    """

    name: str
    embed_dim: Count
    vision: dict[str, Any]
    text: dict[str, Any]
    epochs: Count
    images: Count
    batch_size: Count
    phrases: Count
    sentences: Natural
    lr: Positive
    weight_decay: NotNegative
    seed: Seed
    held_out: Count = 5000

    def run(self, trainer: TrainerFactory, folder: Path, ckpt_path: str | None = None) -> Path:
        """Trains, calibrates and measures the model, and writes weights and card into `folder`.

        Returns the path of `<name>.safetensors`. The figures are those of the weights as they are stored.
        """
        image_seed, held_out_seed = seeds_of(self.name)
        tokenizer = WordTokenizer(vocabulary(CONCEPTS + SENTENCE_WORDS))
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            model = build(self.embed_dim, self.vision, self.text, tokenizer)
            module = Contrastive(model, len(SINGLE_WORDS), self.lr, self.weight_decay)
        module.to(memory_format=torch.channels_last)
        describe_batch = PhraseBatches(tokenizer, self.phrases, self.sentences)
        stream = SceneStream(describe_batch, image_seed, self.images, self.batch_size)
        runner, facts = fit(module, stream, trainer, self.epochs, folder, ckpt_path)
        model.load_state_dict(checkpoints.rounded(model.state_dict()))
        a, b = calibrate(module, *cosines(module, tokenizer, trainer, image_seed, self.held_out))
        card = {
            "about": "A CLIP of the embedded world: a picture and a phrase are close where the phrase is true.",
            "command": f"python train.py contrastive={self.name} ship=true",
            "load": "neuronx.world.clip.load",
            "embed_dim": self.embed_dim,
            "vision": self.vision,
            "text": self.text,
            "context": tokenizer.context,
            "mean": NORMALISE.mean,
            "std": NORMALISE.std,
            "a": round(a, 6),
            "b": round(b, 6),
            "training": {
                **facts,
                "learning rate": self.lr,
                "weight decay": self.weight_decay,
                "weight seed": self.seed,
            },
            "figures": measure(module, tokenizer, trainer, held_out_seed, self.held_out),
            "words": tokenizer.words,
        }
        if runner.is_global_zero:
            checkpoints.write(folder, self.name, model.state_dict(), card)
        return folder / f"{self.name}.safetensors"


def cosines(
    module: Contrastive, tokenizer: WordTokenizer, trainer: TrainerFactory, seed: Seed, images: Count
) -> tuple[Tensor, Tensor]:
    """Cosines (N, C) between the first pictures of a seed and all concepts, and their truth (N, C) bool."""
    outputs: Any = single(trainer).predict(module, fixed_batches(seed, images, describe))
    embeddings, truth = (torch.cat(parts) for parts in zip(*outputs, strict=True))
    module.cpu().eval()
    with torch.inference_mode():
        texts = module.model.encode_text(tokenizer(CONCEPTS), normalize=True)
    return embeddings @ texts.T, truth


def calibrate(module: Contrastive, scores: Tensor, truth: Tensor) -> tuple[float, float]:
    """The (a, b) of `fit_sigmoid`; those of the training loss where so little was learned that cosines say nothing."""
    try:
        return fit_sigmoid(scores, truth)
    except UserError:
        scale = module.model.logit_scale.exp().item()
        return scale, module.model.logit_bias.item() / scale


def measure(
    module: Contrastive, tokenizer: WordTokenizer, trainer: TrainerFactory, seed: Seed, images: Count
) -> dict[str, float]:
    """Zero-shot AUROC on the first pictures of a seed: means over the words of each kind, and over longer phrases."""
    scores, truth = cosines(module, tokenizer, trainer, seed, images)
    values = dict(zip(CONCEPTS, auroc(scores, truth).tolist(), strict=True))
    least = min(SINGLE_WORDS, key=values.__getitem__)
    longer = [name for name in CONCEPTS if " " in name and name not in SINGLE_WORDS]
    groups = {"single words": SINGLE_WORDS, **GROUPS, "pairs and triples": longer}
    means = {group: torch.tensor([values[name] for name in names]).nanmean() for group, names in groups.items()}
    figures = {f"AUROC of {group}": round(mean.item(), 4) for group, mean in means.items()}
    return {
        **figures,
        f"AUROC of the worst word ({least})": round(values[least], 4),
        "images": len(truth),
        "image seed": seed,
    }


def auroc(scores: Tensor, truth: Tensor) -> Tensor:
    """Chance that an image with the concept scores above one without, ties counted half (Mann and Whitney, 1947).

    Args:
        scores: (N, C) floating point.
        truth: (N, C) bool.

    Returns:
        (C,) float64 in [0, 1]; NaN where all images or none show the concept.
    """
    n = len(scores)
    ordered, order = scores.sort(dim=0)
    # Tied scores share the mean of their ranks.
    rows = ordered.T.contiguous()
    below, above = (torch.searchsorted(rows, rows, right=right) for right in (False, True))
    ranks = (below + above + 1).T.double() / 2
    positive = truth.gather(0, order).double()
    count = positive.sum(0)
    return ((ranks * positive).sum(0) - count * (count + 1) / 2) / (count * (n - count))
