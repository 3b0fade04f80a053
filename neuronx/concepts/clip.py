"""A CLIP as source of concepts and as judge: how likely does this picture show that phrase?"""

import hashlib
import math
import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from neuronx.concepts.encoders import Encoder, load
from neuronx.concepts.labels import LabelConcepts, shown_by_labels
from neuronx.concepts.words import Words
from neuronx.data.probe import Probe
from neuronx.errors import UserError, unknown
from neuronx.options import Count
from neuronx.store.cache import cache_root, digest, entry, packed
from neuronx.types import Concepts, Judgement, TrainerFactory

if TYPE_CHECKING:
    from neuronx.targets.target import Target

TEXTS = 256
"""Phrases encoded at a time."""


@dataclass(frozen=True)
class Clip:
    """A CLIP by name. Cheap to make: weights are loaded when first needed and shared by all equal ones.

    Attributes:
        model: open_clip's name of the architecture.
        pretrained: open_clip's tag, or a weights file.
        a: Slope of the sigmoid that turns cosines into probabilities, sigmoid(a (cos + b)). Where a and b are None,
            `calibrate` takes the published values, or else fits them.
        b: Its offset, inside the slope.
        domain: The kind of pictures that it knows, "shapes" or "natural".
        name: What tables call it; the model's name by default.
        weights: A file in place of the tag's download.
        tokenizer: A folder in place of the tokenizer's download.
        template: Put around every phrase, as in "a photo of {}"; none by default, as published.
        batch_size: Of images; the probe's by default.
    """

    model: str
    pretrained: str
    a: float | None = None
    b: float | None = None
    domain: str = "natural"
    name: str = ""
    weights: str | None = None
    tokenizer: str | None = None
    template: str | None = None
    batch_size: Count | None = None

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", self.model)
        if (self.a is None) != (self.b is None):
            raise UserError(f"The sigmoid of {self.name} needs both a and b, or neither.")

    @classmethod
    def published(cls, model: str) -> "Clip":
        """One of the three CLIPs of Linear Explanations, by open_clip's name."""
        tags = {name: tag for name, tag in PUBLISHED}
        if model not in tags:
            raise unknown("published CLIP", model, tags)
        return cls(model, tags[model]).known()

    @property
    def encoder(self) -> Encoder:
        """The loaded model."""
        return load(self.model, self.pretrained, self.weights, self.tokenizer)

    @property
    def digest(self) -> str:
        """Hex identity of all that decides the embeddings; loads the model."""
        return digest([self.encoder.identity, self.template])

    @property
    def encoders(self) -> tuple[str, ...]:
        """Digest of the weights, whatever the template and the sigmoid; loads the model."""
        return (self.encoder.identity,)

    def embed_images(self, probe: Probe, trainer: TrainerFactory) -> Tensor:
        """Unit embeddings of all images, (N, D) float32, recorded once and memory-mapped.

        Raises:
            UserError: If the pictures are of another domain than the CLIP knows.
        """
        from neuronx.recording.record import record

        if probe.domain != self.domain:
            raise UserError(
                f"{self.name} knows {self.domain} pictures and cannot see those of `{probe.name}`, which are "
                f"{probe.domain}: take a CLIP of that domain (clip=, judge=)."
            )
        target = self.encoder.image_target(self.name)
        return record(target, probe, trainer, layers={"": "none"}, batch_size=self.batch_size)[""].values

    def embed_texts(self, texts: Sequence[str], *, store: bool = True) -> Tensor:
        """Unit embeddings of phrases, (C, D) float32, made once for equal phrases, template and weights.

        Args:
            texts: The C phrases.
            store: False keeps nothing on disk, for lists that are long and of no further use.
        """
        full = [self.template.replace("{}", text) for text in texts] if self.template else list(texts)
        if not store:
            return self.encoder.embed(full, TEXTS)
        reads = getattr(self.encoder.tokenizer, "identity", None)  # of tokenizers of ours, which may change
        place = entry("texts", {"clip": self.digest, "texts": list(texts), **({"reads": reads} if reads else {})})
        made = place.open() or place.publish(packed({"embeddings": self.encoder.embed(full, TEXTS)}))
        return made.tensors()["embeddings"]

    def scores(self, cosines: Tensor) -> Tensor:
        """Probabilities sigmoid(a (cos + b)), of the shape of the cosines, float32.

        Raises:
            UserError: If (a, b) are neither given nor published; `calibrate` fits them.
        """
        clip = self.known()
        if clip.a is None or clip.b is None:
            raise UserError(
                f"{self.name} has no published sigmoid: give its a and b (as clip.a=60 clip.b=-.09) or labelled images."
            )
        return sigmoid_scores(cosines, clip.a, clip.b)

    def known(self) -> "Clip":
        """The same CLIP with (a, b) filled in from the published table, if they are there."""
        if self.a is not None or (self.model, self.pretrained) not in PUBLISHED:
            return self
        a, b = PUBLISHED[self.model, self.pretrained]
        return replace(self, a=a, b=b)

    def calibrate(self, probe: Probe, trainer: TrainerFactory) -> "Clip":
        """The same CLIP with (a, b): as given, as published, or else fitted to the train and val images of the probe.

        The fit is a logistic regression on what the images are known to show: the probe's truth, or its labels with
        those superclasses that cover at most .3 of the classes (broader ones, such as "entity", say little; so did
        the published fit).

        Raises:
            UserError: If nothing is known of the images.
        """
        clip = self.known()
        if clip.a is not None:
            return clip
        names, truth = _what_is_known(probe)
        rows = probe.split("train", "val")
        images, texts, shown = self.embed_images(probe, trainer)[rows], self.embed_texts(names), truth[rows]
        place = entry("sigmoids", [hashlib.sha256(one.numpy().tobytes()).hexdigest() for one in (images, texts, shown)])

        def fit() -> dict[str, Tensor]:
            return {"sigmoid": torch.tensor(fit_sigmoid(images @ texts.T, shown), dtype=torch.float64)}

        a, b = (place.open() or place.publish(packed(fit()))).tensors()["sigmoid"].tolist()
        return replace(self, a=a, b=b)

    def vocabulary(self, probe: Probe) -> None:
        """None: a CLIP can judge any phrase."""
        return None

    def judge(self, names: Sequence[str], probe: Probe, trainer: TrainerFactory) -> Judgement:
        """Judges any phrases, by `scores`."""
        if not names:
            return Judgement(torch.ones(0, dtype=torch.bool), lambda rows: torch.zeros(len(rows), 0))
        clip = self.calibrate(probe, trainer)
        images, texts = self.embed_images(probe, trainer), self.embed_texts(names)
        return Judgement(torch.ones(len(names), dtype=torch.bool), lambda rows: clip.scores(images[rows] @ texts.T))


@dataclass(frozen=True)
class ClipConcepts:
    """Concepts of a word list as a CLIP sees them.

    Attributes:
        clip: Who looks.
        words: What it looks for.
    """

    clip: Clip
    words: Words

    @property
    def encoders(self) -> tuple[str, ...]:
        """Those of the CLIP."""
        return self.clip.encoders

    def concepts(self, probe: Probe, trainer: TrainerFactory) -> Concepts:
        """Probability of every word in every image: scores (N, C)."""
        names = self.words.of(probe)
        judged = self.clip.judge(names, probe, trainer)
        scores = empty_table(len(probe), len(names))
        for rows in torch.arange(len(probe)).split(4096):
            scores[rows[0] : rows[-1] + 1] = judged.scores(rows)
        return Concepts(names, scores, self.clip.encoders)


def _what_is_known(probe: Probe) -> tuple[tuple[str, ...], Tensor]:
    """Names of concepts and their presence (N, C) bool."""
    if probe.truth is not None:
        return probe.truth
    names, table = LabelConcepts().table(probe)
    narrow = (table.sum(0) <= max(1, 0.3 * len(table))).nonzero().flatten()
    return tuple(names[i] for i in narrow.tolist()), shown_by_labels(probe, table[:, narrow]).bool()


CHUNK = 4_000_000
"""Entries of the (N, C) table turned into float64 at a time."""

PUBLISHED = {
    ("ViT-SO400M-14-SigLIP-384", "webli"): (58.0, -0.13),
    ("ViT-L-16-SigLIP-384", "webli"): (60.0, -0.09),
    ("ViT-L-14-336", "openai"): (58.0, -0.25),
}
"""(a, b) by open_clip's model and tag, as tuned on ImageNet for Linear Explanations (Oikarinen and Weng, 2024)."""


def sigmoid_scores(cosines: Tensor, a: float, b: float) -> Tensor:
    """sigmoid(a (cos + b)): cosines (N, C) to float32 scores in [0, 1]; .5 at cos = -b."""
    return torch.sigmoid(a * (cosines.float() + b))


def fit_sigmoid(cosines: Tensor, truth: Tensor, steps: int = 100) -> tuple[float, float]:
    """The (a, b) of least binary cross-entropy between sigmoid(a (cos + b)) and the truth, over all N x C entries.

    Newton's method on the convex problem in (a, a b), in float64, a chunk of rows at a time, with step halving. Same
    result as a logistic regression without penalty.

    Args:
        cosines: (N, C) between images and concepts.
        truth: (N, C) bool, whether the image shows the concept.
        steps: At most so many Newton steps (about ten are needed).

    Raises:
        UserError: If truth is all true or all false, or the best slope a is not positive (the cosines say nothing).
    """
    positives = int(truth.sum())
    if not 0 < positives < truth.numel():
        raise UserError("A sigmoid can only be fitted on images of which some show a concept and some do not.")
    # In standardised cosines z = (cos - mean) / std the two parameters hardly interact, so Newton starts well.
    mean = cosines.mean(dtype=torch.float64).item()
    std = max(cosines.double().std().item() if cosines.numel() < CHUNK else cosines.float().std().item(), 1e-12)
    rate = positives / truth.numel()
    slope, offset = 0.0, math.log(rate / (1 - rate))
    loss, gradient, hessian = _moments(cosines, truth, slope, offset, mean, std)
    for _ in range(steps):
        step = torch.linalg.solve(hessian + 1e-12 * torch.eye(2, dtype=torch.float64), gradient).tolist()
        for halving in range(30):
            scale = 0.5**halving
            moved = slope - scale * step[0], offset - scale * step[1]
            after = _moments(cosines, truth, *moved, mean, std)
            if after[0] <= loss:
                break
        else:
            break
        (slope, offset), (loss, gradient, hessian) = moved, after
        if max(abs(scale * s) for s in step) < 1e-10:
            break
    if slope <= 0:
        raise UserError("These images do not look like their labels to this CLIP: its cosines do not rise with them.")
    a = slope / std
    return a, offset / a - mean


def _moments(
    cosines: Tensor, truth: Tensor, slope: float, offset: float, mean: float, std: float
) -> tuple[float, Tensor, Tensor]:
    """Mean loss, gradient (2,) and Hessian (2, 2) at sigmoid(slope z + offset), z the standardised cosine."""
    loss, sums = 0.0, torch.zeros(5, dtype=torch.float64)
    rows = max(1, CHUNK // cosines.shape[1])
    for z, y in zip(cosines.split(rows), truth.split(rows), strict=True):
        z = ((z.double() - mean) / std).flatten()
        y = y.flatten().double()
        logit = slope * z + offset
        loss += (torch.nn.functional.softplus(logit) - y * logit).sum().item()
        p = torch.sigmoid(logit)
        error, weight = p - y, p * (1 - p)
        sums += torch.stack([error @ z, error.sum(), (weight * z) @ z, weight @ z, weight.sum()])
    sums /= truth.numel()
    gradient = sums[:2]
    hessian = torch.stack([torch.stack([sums[2], sums[3]]), torch.stack([sums[3], sums[4]])])
    return loss / truth.numel(), gradient, hessian


IN_MEMORY = 2**30
"""Bytes up to which a table is kept in memory."""


def empty_table(rows: int, columns: int) -> Tensor:
    """An uninitialised (rows, columns) float32 table; over 1 GB it is memory-mapped to an unlinked temporary file.

    Raises:
        UserError: If the disk of the store is full.
    """
    size = 4 * rows * columns
    if size <= IN_MEMORY:
        return torch.empty(rows, columns)
    folder = cache_root()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            # Reserved at once, for a disk that fills up while mapped memory is written kills the process.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.truncate(size)
        except OSError as error:
            raise UserError(f"{size / 2**30:.1f} GB are needed for a while in {folder}: {error.strerror}.") from None
        return torch.from_numpy(np.memmap(file, np.float32, "r+", shape=(rows, columns)))


BLOCKS = re.compile(r"(?:transformer\.resblocks|trunk\.blocks)\.(\d+)|(?:trunk\.)?layer(\d+)|(?:trunk\.)?stages\.(\d+)")


def mean_tokens(clip: Clip, probe: Probe, trainer: TrainerFactory) -> Tensor:
    """What PURE measures distances in: (N, D) float32, neither projected nor normalised.

    Of a ViT it is the mean over all tokens, the class token included, before the last normalisation; of a ResNet the
    mean over the last stage's map.

    Raises:
        UserError: A CLIP whose image tower has no such blocks, or that knows another kind of pictures.
    """
    from neuronx.recording.record import record

    if probe.domain != clip.domain:
        raise UserError(f"{clip.name} knows {clip.domain} pictures, and those of `{probe.name}` are {probe.domain}.")
    target = _before_the_head(clip)
    return record(target, probe, trainer, batch_size=clip.batch_size)[next(iter(target.layers))].values


def _before_the_head(clip: Clip) -> "Target":
    from neuronx.targets.target import Target

    encoder = clip.encoder
    visual: nn.Module = encoder.model.visual
    blocks = [name for name, _ in visual.named_modules() if BLOCKS.fullmatch(name)]
    if not blocks:
        raise UserError(f"The image tower of {clip.name} has no blocks that are known here: take tokens=false.")
    last = max(blocks, key=lambda name: int(re.findall(r"\d+", name)[-1]))
    return Target(
        name=f"{clip.name}-tokens",
        module=visual.eval(),
        transform=encoder.transform,
        layers={last: "avg"},
        digest=encoder.identity,
    )
