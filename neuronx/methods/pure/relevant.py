"""Relevance maximisation: the images for whose class units matter most, rather than those that excite them most.

(RelMax of Achtibat et al., "From attribution maps to human-understandable explanations through concept relevance
propagation", 2023.) A unit that fires at anything may matter for one class only; its references by activation show the
first, those by relevance the second.
"""

import time
from collections.abc import Sequence
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor
from torch.utils.data import DataLoader

from neuronx.data.probe import Probe
from neuronx.errors import Unsuitable, UserError, unknown
from neuronx.methods.pure.gradient import Gradient, Lrp
from neuronx.recording.exemplars import TAIL_MB, Exemplars, Finder
from neuronx.recording.walk import FLUSH_SECONDS, predict, untouched
from neuronx.targets.segment import Segment
from neuronx.targets.target import Target
from neuronx.types import TrainerFactory

CLASSES = ("true", "predicted")
RULES = ("lrp", "gradient")


def find_relevant(
    target: Target,
    probe: Probe,
    trainer: TrainerFactory,
    layer: str,
    k: int = 100,
    *,
    classes: str = "true",
    rule: str = "lrp",
    quantile: float = 0.99,
    rows: Tensor | None = None,
    batch_size: int | None = None,
    tail_mb: float = TAIL_MB,
) -> Exemplars:
    """Finds the images in which each unit is most relevant for the image's class, in one pass, or reads them.

    The relevance of a unit at a position is what arrives there of the logit of the class, by LRP; or its gradient times
    activation. What counts is the largest over positions. Exact, resumable and merged as `find_exemplars` does.

    Args:
        target: The network, a classifier.
        probe: The images.
        trainer: Makes the trainer whose `predict` runs the pass.
        layer: Of the units.
        k: Images of each unit.
        classes: `true`, the image's label, which must be one of the network's classes; or `predicted`.
        rule: `lrp` (needs zennit) or `gradient`.
        quantile: Of the thresholds of relevance.
        rows: The images; train and val by default.
        batch_size: Images at a time; the probe's own by default.
        tail_mb: As in `find_exemplars`.

    Returns:
        `peaks` and `thresholds` are relevance instead of activation.

    Raises:
        UserError: A network without a class head, images without labels for `true`, and as `circuit_vectors` does.
    """
    if classes not in CLASSES:
        raise unknown("kind of classes", classes, CLASSES)
    if rule not in RULES:
        raise unknown("rule", rule, RULES)
    runner = trainer()
    target, layer = untouched(target, runner), target.canonical(layer)
    way = (Lrp if rule == "lrp" else Gradient)(Segment(target, layer, ""), "activation")
    labels = _labels(target, probe) if classes == "true" else None
    of = {"relevance": way.key, "for": classes, "labels": labels.tolist() if labels is not None else None}
    finder = Finder(target, probe, runner, [layer], k=k, quantile=quantile, rows=rows, tail_mb=tail_mb, of=of)
    if finder.layers:
        way.trace(next(iter(probe.loader(target.transform, finder.rows[:2], batch_size=2)))[0])
        if len(way.segment.upper) != 1:
            raise UserError(f"{target.name} has no class head: it gives {way.segment.upper} for an image.")
        if labels is not None and int(labels[finder.rows].max()) >= way.units:
            raise UserError(f"{target.name} has {way.units} outputs, but labels go to {int(labels.max())}.")
        predict(_Pass(target, way, probe, finder, labels, batch_size), runner)
    return finder.finish(runner)[layer]


def find_relevant_by_class(
    target: Target,
    probe: Probe,
    trainer: TrainerFactory,
    layer: str,
    classes: Sequence[str],
    k: int = 40,
    *,
    rows: Tensor | None = None,
    **options: Any,
) -> dict[str, Exemplars]:
    """For each of some classes, its own images in which each unit is most relevant for it: per-class statistics.

    Only what is asked for is made and kept, class by class; all classes together cost one pass over their images.

    Args:
        target: The network, a classifier.
        probe: The images, labelled.
        trainer: Makes trainers.
        layer: Of the units.
        classes: Names of the probe's classes.
        k: Images of each unit and class; a class with fewer images gives all it has.
        rows: The images; train and val by default.
        options: Of `find_relevant`, but for `classes`: the class is the image's label.

    Returns:
        Class -> its images (`rows`) and relevance (`peaks`) of each unit, strongest first.

    Raises:
        UserError: A class that does not exist or has no images, and as `find_relevant`.
    """
    if probe.labels is None:
        raise Unsuitable(f"The images of `{probe.name}` have no labels, so there are no images of a class.")
    known, found = list(probe.class_names), {}
    seen = probe.split("train", "val") if rows is None else rows
    for name in classes:
        if name not in known:
            raise unknown("class", name, known)
        own = seen[probe.labels[seen] == known.index(name)]
        if not len(own):
            raise UserError(f"No image among the {len(seen)} looked at is of class `{name}`.")
        most = min(k, len(own.unique()))
        found[name] = find_relevant(target, probe, trainer, layer, most, classes="true", rows=own, **options)
    return found


def _labels(target: Target, probe: Probe) -> Tensor:
    """The network's output (N,) int64 for each image's label."""
    if probe.labels is None:
        raise Unsuitable(f"The images of `{probe.name}` have no labels; use classes=predicted.")
    if not target.class_names or not probe.class_names or target.class_names == probe.class_names:
        return probe.labels
    places = {name: place for place, name in enumerate(target.class_names)}
    missing = [name for name in probe.class_names if name not in places]
    if missing:
        raise Unsuitable(f"{target.name} has no class `{missing[0]}` of `{probe.name}`; use classes=predicted.")
    return torch.tensor([places[name] for name in probe.class_names])[probe.labels]


class _Pass(LightningModule):
    """Shows the finder relevance where it expects activations."""

    def __init__(
        self, target: Target, way: Gradient, probe: Probe, finder: Finder, labels: Tensor | None, size: int | None
    ) -> None:
        super().__init__()
        self.allow_zero_length_dataloader_with_multiple_devices = True
        self.network = target.module
        self.target, self.way, self.probe, self.finder, self.labels = target, way, probe, finder, labels
        self.size = size or probe.batch_size
        self.flushed = time.monotonic()

    def predict_dataloader(self) -> DataLoader:
        """The batches of this process that are not known yet."""
        return self.probe.loader(
            self.target.transform,
            self.finder.rows,
            batch_size=self.size,
            rank=self.trainer.global_rank,
            world=self.trainer.world_size,
            skip=frozenset(self.finder.done(self.finder.rows.split(self.size))),
        )

    def predict_step(self, batch: tuple[Any, Tensor], _: int) -> Tensor:
        """One batch of (inputs, rows (B,)); returns the rows."""
        inputs, rows = batch[0], batch[1].cpu()
        with torch.inference_mode(False), torch.enable_grad():
            maps = self._relevance(inputs, rows)
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

    def _relevance(self, inputs: Any, rows: Tensor) -> Tensor:
        """Of each unit at each position for the class of each image: (B, K), (B, K, T) or (B, K, H, W)."""
        features = self.way.features(inputs)
        at = torch.arange(len(rows), device=self.device)
        if self.labels is None:
            with torch.no_grad():
                wanted = self.way.segment.run(features)[1].detach().argmax(1)
        else:
            wanted = self.labels[rows].to(self.device)
        return self.way.maps(features, at, wanted, self._start).detach()

    def _start(self, logits: Tensor) -> Tensor:
        """LRP shares the logit out; gradient times activation sums to it by itself."""
        return logits.detach() if isinstance(self.way, Lrp) else torch.ones_like(logits)
