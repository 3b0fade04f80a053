"""The bank of features as concepts and as judge: what low-level things pictures show, exactly, without any weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from neuronx.concepts.labels import look_up
from neuronx.concepts.visual.colour import COLOUR_FEATURES
from neuronx.concepts.visual.lines import LINE_FEATURES
from neuronx.concepts.visual.planes import Planes
from neuronx.concepts.visual.surface import SURFACE_FEATURES
from neuronx.data.probe import Probe
from neuronx.recording.record import record
from neuronx.targets.preprocess import Preprocess, transform_of
from neuronx.targets.target import Target
from neuronx.types import Concepts, Judgement, TrainerFactory

FEATURES = (*COLOUR_FEATURES, *LINE_FEATURES, *SURFACE_FEATURES)
"""The 114 features, in their order."""

VERSION = "2"
"""Increase it when a feature is computed otherwise, so that what the store holds is computed anew."""

FEATURES_COMPUTED = "visual"
"""Stands in `made_by` of explanations that features took part in, where CLIPs have the digests of their encoders."""

AT_ONCE = 4
"""Pictures whose planes are kept together: they stay in the processor's cache."""

LEAST, MOST = 0.01, 0.99
"""Quantiles of the train pictures that become 0 and 1."""


class Bank(nn.Module):
    """Pictures (B, 3, S, S) RGB in [0, 1] to their features (B, 114) float32, each on a scale of its own.

    Pictures of one channel are grey.
    """

    def forward(self, pictures: Tensor) -> Tensor:
        """Computes all features, in full precision whatever the trainer's."""
        pictures = pictures.float().expand(-1, 3, -1, -1)
        with torch.autocast(pictures.device.type, enabled=False):
            return torch.cat([self._few(some) for some in pictures.split(AT_ONCE)])

    def _few(self, pictures: Tensor) -> Tensor:
        planes = Planes(pictures)
        return torch.stack([feature.value(planes).float() for feature in FEATURES], 1)


@dataclass(frozen=True)
class VisualConcepts:
    """A concept for each feature, and one for its complement: `green` and `little green`.

    Pictures are looked at as the network under study sees them, resized and cropped as its transform does.

    A feature's value is linear from the 1st to the 99th percentile of the train pictures, and clipped to [0, 1]. The
    complement is 1 less that, so that formulas can do without minus signs.

    Attributes:
        transform: How pictures are resized and cropped: a name such as imagenet, or the fields of a `Preprocess`. None
            takes the network's, and imagenet's where there is no network or its transform is a function of its own.
        complements: Whether complements are concepts too.
    """

    transform: str | Mapping[str, Any] | Preprocess | None = None
    complements: bool = True
    name: ClassVar[str] = "visual"
    domain: ClassVar[str] = ""
    encoders: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        if self.transform is not None:
            object.__setattr__(self, "transform", transform_of(self.transform))

    def seen_by(self, target: Target) -> "VisualConcepts":
        """The same features of what a network sees, unless a transform was chosen."""
        seen = target.transform
        return replace(self, transform=seen) if self.transform is None and isinstance(seen, Preprocess) else self

    def concepts(self, probe: Probe, trainer: TrainerFactory) -> Concepts:
        """Scores of all images (N, C); C is 228, or 114 without complements."""
        return Concepts(self.vocabulary(probe), self._scores(probe, trainer), (FEATURES_COMPUTED,))

    def vocabulary(self, probe: Probe) -> tuple[str, ...]:
        """The names of all concepts, features before complements."""
        names = tuple(feature.name for feature in FEATURES)
        return names + tuple(feature.little for feature in FEATURES) if self.complements else names

    def judge(self, names: Sequence[str], probe: Probe, trainer: TrainerFactory) -> Judgement:
        """Computes the named features; other concepts are unknown. Without any, no picture is looked at."""
        have = self.vocabulary(probe)
        known = look_up(names, have, torch.zeros(1, len(have)))[0]
        if not known.any():
            return Judgement(known, lambda rows: torch.zeros(len(rows), len(names)))
        scores = look_up(names, have, self._scores(probe, trainer))[1]
        return Judgement(known, lambda rows: scores[rows])

    def _scores(self, probe: Probe, trainer: TrainerFactory) -> Tensor:
        seen = replace(transform_of(self.transform or "imagenet"), mean=None, std=None)
        bank = Target("visual features", Bank(), seen, {"": "none"}, digest=f"visual features {VERSION}")
        values = record(bank, probe, trainer)[""].values[:].float().nan_to_num()
        low, high = values[probe.split("train")].quantile(torch.tensor([LEAST, MOST]), dim=0)
        scores = ((values - low) / (high - low).clamp(min=1e-12)).clamp(0, 1) * (high > low)
        return torch.cat([scores, 1 - scores], 1) if self.complements else scores
