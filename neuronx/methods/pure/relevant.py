"""Relevance maximisation: the images for whose class units matter most, rather than those that excite them most.

(RelMax of Achtibat et al., "From attribution maps to human-understandable explanations through concept relevance
propagation", 2023.) A unit that fires at anything may matter for one class only; its references by activation show the
first, those by relevance the second.
"""

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from neuronx.data.probe import Probe
from neuronx.errors import UserError, unknown
from neuronx.methods.pure.gradient import Gradient, Lrp
from neuronx.recording.exemplars import TAIL_MB, Exemplars, Finder
from neuronx.recording.forward_pass import predict, untouched
from neuronx.targets.segment import Segment
from neuronx.targets.target import Target
from neuronx.types import TrainerFactory

RULES = ("lrp", "gradient")


def find_relevant(
    target: Target, probe: Probe, trainer: TrainerFactory, layer: str, k: int, rule: str, rows: Tensor
) -> Exemplars:
    """Finds the images in which each unit is most relevant for the predicted class, in one pass, or reads them.

    The relevance of a unit at a position is what arrives there of the logit of the class, by LRP; or its gradient times
    activation. What counts is the largest over positions. Exact, resumable and merged as `find_exemplars` does.

    Args:
        target: The network, a classifier.
        probe: The images.
        trainer: Makes the trainer whose `predict` runs the pass.
        layer: Of the units.
        k: Images of each unit.
        rule: `lrp` (needs zennit) or `gradient`.
        rows: The images.

    Returns:
        `peaks` and `thresholds` are relevance instead of activation.

    Raises:
        UserError: A network without a class head, and as `circuit_vectors` does.
    """
    if rule not in RULES:
        raise unknown("rule", rule, RULES)
    runner = trainer()
    target, layer = untouched(target, runner), target.canonical(layer)
    attribution = (Lrp if rule == "lrp" else Gradient)(Segment(target, layer, ""), "activation")
    of = {"relevance": attribution.key, "for": "predicted"}
    finder = Finder(target, probe, runner, [layer], k=k, quantile=0.99, rows=rows, tail_mb=TAIL_MB, of=of)
    if finder.layers:
        attribution.trace(next(iter(probe.loader(target.transform, finder.rows[:2], batch_size=2)))[0])
        if len(attribution.segment.upper) != 1:
            raise UserError(f"{target.name} has no class head: it gives {attribution.segment.upper} for an image.")
        predict(_Relevances(target, attribution, probe, finder), runner, f"relevance in {target.name} on {probe.name}")
    return finder.finish(runner)[layer]


class _Relevances:
    """The work of a pass that gives the finder relevance where it expects activations."""

    def __init__(self, target: Target, attribution: Gradient, probe: Probe, finder: Finder) -> None:
        self.network, self.target, self.attribution, self.probe, self.finder = (
            target.module,
            target,
            attribution,
            probe,
            finder,
        )

    def batches(self, rank: int, world: int) -> DataLoader:
        """Those that the finder does not know yet."""
        rows, size = self.finder.rows, self.probe.batch_size
        skip = frozenset(self.finder.done(rows.split(size)))
        return self.probe.loader(self.target.transform, rows, batch_size=size, rank=rank, world=world, skip=skip)

    def run(self, batch: tuple[Any, Tensor]) -> None:
        """One batch of (inputs, rows (B,))."""
        rows = batch[1].cpu()
        with torch.inference_mode(False), torch.enable_grad():
            maps = self._relevance(batch[0])
        tokens = maps.transpose(1, 2) if maps.ndim == 3 else maps
        self.finder.collect(self.attribution.lower, tokens, rows)
        self.finder.end_batch(rows)

    def save(self) -> None:
        self.finder.save()

    def _relevance(self, inputs: Any) -> Tensor:
        """Of each unit at each position for the predicted class: (B, K), (B, K, T) or (B, K, H, W)."""
        features = self.attribution.features(inputs)
        with torch.no_grad():
            classes = self.attribution.segment.run(features)[1].detach().argmax(1)
        images = torch.arange(len(classes), device=classes.device)
        return self.attribution.maps(features, images, classes, self._start).detach()

    def _start(self, logits: Tensor) -> Tensor:
        """LRP shares the logit out; gradient times activation sums to it by itself."""
        return logits.detach() if isinstance(self.attribution, Lrp) else torch.ones_like(logits)
