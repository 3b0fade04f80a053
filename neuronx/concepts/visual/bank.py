"""The bank of features as concepts and as judge: what low-level things pictures show, exactly, without any weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from neuronx.concepts.labels import look_up
from neuronx.concepts.visual.colour import COLOUR_FEATURES
from neuronx.concepts.visual.lines import LINE_FEATURES
from neuronx.concepts.visual.planes import Planes
from neuronx.concepts.visual.surface import SURFACE_FEATURES
from neuronx.data.probe import Probe
from neuronx.recording.record import record
from neuronx.targets.preprocess import Preprocess
from neuronx.targets.target import Target
from neuronx.types import Concepts, Judgement, TrainerFactory

FEATURES = (*COLOUR_FEATURES, *LINE_FEATURES, *SURFACE_FEATURES)
"""The 114 features, in their order."""

VERSION = "1"
"""Increase it when a feature is computed otherwise, so that what the store holds is computed anew."""

AT_ONCE = 4
"""Pictures whose planes are kept together: they stay in the processor's cache."""

LEAST, MOST = 0.01, 0.99
"""Quantiles of the train pictures that become 0 and 1."""


class Bank(nn.Module):
    """Pictures (B, 3, S, S) float32 RGB in [0, 1] to their features (B, 114) float32, each on a scale of its own."""

    def forward(self, pictures: Tensor) -> Tensor:
        """Computes all features."""
        parts = []
        for some in pictures.split(AT_ONCE):
            planes = Planes(some)
            parts.append(torch.stack([feature.value(planes).float() for feature in FEATURES], 1))
        return torch.cat(parts)


@dataclass(frozen=True)
class VisualConcepts:
    """A concept for each feature, and one for its complement: `green` and `little green`.

    A feature's value is linear from the 1st to the 99th percentile of the train pictures, and clipped to [0, 1]. The
    complement is 1 less that, so that formulas can do without minus signs.

    Attributes:
        resize: Pictures are scaled so that their short side has this many pixels,
        crop: and their centre of this side is looked at, as most networks do.
        complements: Whether complements are concepts too.
    """

    resize: int = 256
    crop: int = 224
    complements: bool = True
    name: ClassVar[str] = "visual"
    domain: ClassVar[str] = ""
    encoders: ClassVar[tuple[str, ...]] = ()

    def concepts(self, probe: Probe, trainer: TrainerFactory) -> Concepts:
        """Scores of all images (N, C); C is 228, or 114 without complements."""
        return Concepts(self.vocabulary(probe), self._scores(probe, trainer))

    def vocabulary(self, probe: Probe) -> tuple[str, ...]:
        """The names of all concepts, features before complements."""
        names = tuple(feature.name for feature in FEATURES)
        return names + tuple(feature.little for feature in FEATURES) if self.complements else names

    def judge(self, names: Sequence[str], probe: Probe, trainer: TrainerFactory) -> Judgement:
        """Computes the named features; other concepts are unknown."""
        known, scores = look_up(names, self.vocabulary(probe), self._scores(probe, trainer))
        return Judgement(known, lambda rows: scores[rows])

    def _scores(self, probe: Probe, trainer: TrainerFactory) -> Tensor:
        seen = Preprocess(resize=self.resize, crop=self.crop)
        bank = Target("visual features", Bank(), seen, {"": "none"}, digest=f"visual features {VERSION}")
        values = record(bank, probe, trainer)[""].values[:].float().nan_to_num()
        low, high = values[probe.split("train")].quantile(torch.tensor([LEAST, MOST]), dim=0)
        scores = ((values - low) / (high - low).clamp(min=1e-12)).clamp(0, 1) * (high > low)
        return torch.cat([scores, 1 - scores], 1) if self.complements else scores
