"""Relevance maximisation: the images for whose class units matter most, rather than those that excite them most.

(RelMax of Achtibat et al., "From attribution maps to human-understandable explanations through concept relevance
propagation", 2023.) A unit that fires at anything may matter for one class only; its references by activation show the
first, those by relevance the second.
"""

import time
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor
from torch.utils.data import DataLoader

from neuronx.data.probe import Probe
from neuronx.errors import UserError, unknown
from neuronx.methods.pure.gradient import Gradient, Lrp
from neuronx.recording.exemplars import TAIL_MB, Exemplars, Finder
from neuronx.recording.walk import FLUSH_SECONDS, predict, untouched
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
    way = (Lrp if rule == "lrp" else Gradient)(Segment(target, layer, ""), "activation")
    of = {"relevance": way.key, "for": "predicted"}
    finder = Finder(target, probe, runner, [layer], k=k, quantile=0.99, rows=rows, tail_mb=TAIL_MB, of=of)
    if finder.layers:
        way.trace(next(iter(probe.loader(target.transform, finder.rows[:2], batch_size=2)))[0])
        if len(way.segment.upper) != 1:
            raise UserError(f"{target.name} has no class head: it gives {way.segment.upper} for an image.")
        predict(_Pass(target, way, probe, finder), runner)
    return finder.finish(runner)[layer]


class _Pass(LightningModule):
    """Shows the finder relevance where it expects activations."""

    def __init__(self, target: Target, way: Gradient, probe: Probe, finder: Finder) -> None:
        super().__init__()
        self.allow_zero_length_dataloader_with_multiple_devices = True
        self.network = target.module
        self.target, self.way, self.probe, self.finder = target, way, probe, finder
        self.flushed = time.monotonic()

    def predict_dataloader(self) -> DataLoader:
        """The batches of this process that are not known yet."""
        return self.probe.loader(
            self.target.transform,
            self.finder.rows,
            batch_size=self.probe.batch_size,
            rank=self.trainer.global_rank,
            world=self.trainer.world_size,
            skip=frozenset(self.finder.done(self.finder.rows.split(self.probe.batch_size))),
        )

    def predict_step(self, batch: tuple[Any, Tensor], _: int) -> Tensor:
        """One batch of (inputs, rows (B,)); returns the rows."""
        rows = batch[1].cpu()
        with torch.inference_mode(False), torch.enable_grad():
            maps = self._relevance(batch[0])
        tokens = maps.transpose(1, 2) if maps.ndim == 3 else maps
        self.finder.look(self.way.lower, tokens, rows)
        self.finder.keep(rows)
        if self.trainer.received_sigterm or time.monotonic() - self.flushed >= FLUSH_SECONDS:
            self.on_predict_end()
        if self.trainer.received_sigterm:
            raise SystemExit(143)
        return rows

    def on_predict_end(self) -> None:
        """Writes what is still in memory."""
        self.finder.flush()
        self.flushed = time.monotonic()

    def _relevance(self, inputs: Any) -> Tensor:
        """Of each unit at each position for the predicted class: (B, K), (B, K, T) or (B, K, H, W)."""
        features = self.way.features(inputs)
        with torch.no_grad():
            classes = self.way.segment.run(features)[1].detach().argmax(1)
        images = torch.arange(len(classes), device=self.device)
        return self.way.maps(features, images, classes, self._start).detach()

    def _start(self, logits: Tensor) -> Tensor:
        """LRP shares the logit out; gradient times activation sums to it by itself."""
        return logits.detach() if isinstance(self.way, Lrp) else torch.ones_like(logits)
