"""Each unit is named by the one word of a list that scores best for it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from neuronx.concepts.formula import quoted
from neuronx.concepts.judged import with_support
from neuronx.errors import UserError
from neuronx.methods.one_word.directions import centred, contrasted, cosines
from neuronx.metrics.auprc import average_precision
from neuronx.options import Count, NotNegative, Share
from neuronx.recording.strongest import strongest
from neuronx.types import Explanation, TrainerFactory

if TYPE_CHECKING:
    from neuronx.concepts.clip import Clip
    from neuronx.concepts.words import Words
    from neuronx.data.probe import Probe
    from neuronx.targets.target import Target

EVIDENCE = 15
"""Pictures of each unit kept as evidence."""


@dataclass(frozen=True)
class Csp:
    """Names a unit by what its top pictures show and the pictures most like them, which leave it cold, do not.

    Attributes:
        clip: Sees pictures and words.
        words: The words to choose from.
        k: Top pictures of a unit.
        gamma: Share of the cold picture that is taken away from each.
    """

    clip: "Clip"
    words: "Words"
    k: Count = 30
    gamma: NotNegative = 1.0

    @property
    def encoders(self) -> tuple[str, ...]:
        """Those of the CLIP."""
        return self.clip.encoders

    def explain(self, target: "Target", probe: "Probe", trainer: TrainerFactory) -> list[Explanation]:
        """Names the units asked for, from train and val pictures. Raises UserError with fewer than k of these."""
        _enough(self.k, "csp", probe)

        def score(values: Tensor, images: Tensor, names: Sequence[str]) -> Tensor:
            directions = contrasted(images, values, strongest(values, self.k), self.gamma)
            return cosines(directions, self.clip.embed_texts(names))

        return named(score, "cosine", self.clip, self.words, target, probe, trainer)


@dataclass(frozen=True)
class SemanticLens:
    """Names a unit by the mean embedding of its top pictures, less that of all (Dreyer et al., 2025, *SemanticLens*).

    Attributes:
        clip: Sees pictures and words.
        words: The words to choose from.
        k: Top pictures of a unit.
        template: Put around each word, as in "a photo of {}"; the embedding of the template without a word is then
            subtracted from each, in place of the mean of all words.
    """

    clip: "Clip"
    words: "Words"
    k: Count = 15
    template: str | None = None

    def __post_init__(self) -> None:
        if self.template is not None and "{}" not in self.template:
            raise UserError(f"explain.semantic_lens.template={self.template} needs {{}} where the word goes.")

    @property
    def encoders(self) -> tuple[str, ...]:
        """Those of the CLIP."""
        return self.clip.encoders

    def explain(self, target: "Target", probe: "Probe", trainer: TrainerFactory) -> list[Explanation]:
        """Names the units asked for, from train and val pictures. Raises UserError with fewer than k of these."""
        _enough(self.k, "semantic_lens", probe)

        def score(values: Tensor, images: Tensor, names: Sequence[str]) -> Tensor:
            return cosines(centred(images, strongest(values, self.k)), self.texts(names))

        return named(score, "cosine", self.clip, self.words, target, probe, trainer)

    def texts(self, names: Sequence[str]) -> Tensor:
        """Embeddings of the words (C, D) less what they share."""
        if self.template is None:
            texts = self.clip.embed_texts(names)
            return texts - texts.mean(0)
        filled = [self.template.replace("{}", name) for name in (*names, "")]
        embedded = self.clip.embed_texts([text.strip() for text in filled])
        return embedded[:-1] - embedded[-1]


@dataclass(frozen=True)
class BestAuprc:
    """Names a unit by the word whose CLIP cosines find its active pictures best, by average precision.

    Attributes:
        clip: Sees pictures and words.
        words: The words to choose from.
        alpha: Share of the pictures on which a unit is active.
    """

    clip: "Clip"
    words: "Words"
    alpha: Share = 0.05

    @property
    def encoders(self) -> tuple[str, ...]:
        """Those of the CLIP."""
        return self.clip.encoders

    def explain(self, target: "Target", probe: "Probe", trainer: TrainerFactory) -> list[Explanation]:
        """Names the units asked for, from train and val pictures."""

        def score(values: Tensor, images: Tensor, names: Sequence[str]) -> Tensor:
            seen = images @ self.clip.embed_texts(names).T
            return average_precision(values, seen, self.alpha).nan_to_num(0)

        return named(score, "AUPRC", self.clip, self.words, target, probe, trainer)


def named(
    score: Callable[[Tensor, Tensor, Sequence[str]], Tensor],
    note: str,
    clip: "Clip",
    words: "Words",
    target: "Target",
    probe: "Probe",
    trainer: TrainerFactory,
) -> list[Explanation]:
    """Names the units asked for by the word that scores best, first among equals; units that never change get none.

    Args:
        score: From activations (R, K), embeddings of pictures (R, D) and C words to scores (K, C).
        note: What the score is called.
        clip: Sees pictures and words.
        words: The words to choose from.
        target: The network.
        probe: The pictures; those of train and val are looked at.
        trainer: Makes trainers.
    """
    from neuronx.recording.record import record

    rows, names = probe.split("train", "val"), words.of(probe)
    images = clip.embed_images(probe, trainer)[rows]
    found = []
    for layer, recorded in record(target, probe, trainer).items():
        units = list(target.units_of(layer, len(recorded.units)))
        values = recorded.values[rows][:, units]
        best, places = score(values, images, names).max(1)
        evidence = rows[strongest(values, min(EVIDENCE, len(rows))).T].tolist()
        lives = (values.amin(0) < values.amax(0)).tolist()
        for k, unit in enumerate(units):
            said = ((quoted(names[int(places[k])]), 1.0),) if lives[k] else ()
            backed, notes = (tuple(evidence[k]), ((note, float(best[k])),)) if said else ((), ())
            found.append(Explanation(recorded.units[unit], said, 0.0, backed, notes, clip.encoders))
    try:
        return with_support(found, lambda names: clip.judge(names, probe, trainer), probe)
    except UserError:  # a CLIP that nothing calibrates: embeddings choose the words, and no probabilities are there
        return found


def _enough(k: int, name: str, probe: "Probe") -> None:
    if k > (images := len(probe.split("train", "val"))):
        raise UserError(
            f"{name} looks at the top {k} images of each unit and `{probe.name}` has {images} in train and val: give "
            f"it more images, or set explain.{name}.k={max(1, images // 20)}."
        )
