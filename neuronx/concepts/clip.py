"""A CLIP as source of concepts and as judge: how likely does this picture show that phrase?"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from neuronx.concepts.calibration import PUBLISHED, fit_sigmoid, sigmoid_scores
from neuronx.concepts.encoders import Encoder, load
from neuronx.concepts.labels import LabelConcepts
from neuronx.concepts.room import room
from neuronx.concepts.words import Words
from neuronx.data.probe import Probe
from neuronx.errors import UserError, unknown
from neuronx.store.cache import digest, entry, packed
from neuronx.types import Concepts, Judgement, TrainerFactory

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
    batch_size: int | None = None

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
        scores = room(len(probe), len(names))
        for rows in torch.arange(len(probe)).split(4096):
            scores[rows[0] : rows[-1] + 1] = judged.scores(rows)
        return Concepts(names, scores, self.clip.encoders)


def _what_is_known(probe: Probe) -> tuple[tuple[str, ...], Tensor]:
    """Names of concepts and their presence (N, C) bool."""
    if probe.truth is not None:
        return probe.truth
    names, table = LabelConcepts().table(probe)
    narrow = (table.sum(0) <= max(1, 0.3 * len(table))).nonzero().flatten()
    labels = probe.labels
    return tuple(names[i] for i in narrow.tolist()), table[:, narrow].bool()[labels]
