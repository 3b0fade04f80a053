"""Split units to look at: the references of each part, cropped to where the unit fires, with their circuits."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neuronx.methods.pure.patches import boxes, cropped, cut, find_masks, side_of
from neuronx.recording.exemplars import find_exemplars
from neuronx.recording.pictures import view
from neuronx.recording.virtual import without_parts
from neuronx.types import Explanation, PartSamples, TrainerFactory, Unit

if TYPE_CHECKING:
    from neuronx.data.probe import Probe
    from neuronx.methods.pure.method import Pure
    from neuronx.targets.target import Target

LARGEST = 10
"""Split units of a layer that are shown, the most polysemantic."""
LEAST = 0.5
"""Side of the smallest crop, as a share of the picture's: people need more around it than a CLIP."""


def split_samples(
    pure: "Pure",
    target: "Target",
    probe: "Probe",
    trainer: TrainerFactory,
    explanations: Sequence[Explanation],
    crop: str = "mask",
    heat: str = "auto",
) -> list[PartSamples]:
    """The most polysemantic units that PURE has split, layer by layer.

    Args:
        pure: Has split them.
        target: The network.
        probe: The images.
        trainer: Makes trainers.
        explanations: Of the parts.
        crop: As in `samples.Samples`.
        heat: As there.
    """
    said = {one.unit: str(one) for one in explanations}
    shown: list[PartSamples] = []
    for layer in target.layers:
        found = pure.look(target, probe, trainer, layer)
        order = found.verdicts.excess.argsort(descending=True, stable=True)
        which = order[found.split[order]][:LARGEST]
        if len(which):
            own, labels = found.references, found.clusters.labels[which]
            names = [
                tuple(said.get(Unit(layer, unit, part), "") for part in range(int(some.max()) + 1))
                for unit, some in zip(own.units[which].tolist(), labels, strict=True)
            ]
            shown += samples_of(
                *(target, probe, trainer, layer, own.units[which], own.rows[which], own.vectors[which], labels),
                names=names,
                crop=crop,
                heat=heat,
            )
    return shown


def samples_of(
    target: "Target",
    probe: "Probe",
    trainer: TrainerFactory,
    layer: str,
    units: Tensor,
    rows: Tensor,
    vectors: Tensor,
    labels: Tensor,
    names: Sequence[tuple[str, ...]],
    crop: str = "mask",
    heat: str = "auto",
) -> list[PartSamples]:
    """Crops the references of units (U,): rows and labels (U, m), vectors (U, m, D); -1 is not shown."""
    target = without_parts(target)
    train = probe.splits["train"]
    exemplars = find_exemplars(target, probe, trainer, [layer], k=rows.shape[1], rows=train)[target.canonical(layer)]
    side = side_of(target, probe)
    found = find_masks(exemplars, units, target, probe, trainer, crop, heat)
    shown, made = view(target.transform, side), []
    for at, unit in enumerate(units.tolist()):
        there = labels[at] >= 0
        pictures = probe.load(rows[at][there].tolist())
        seen = shown(pictures) if isinstance(pictures, Tensor) else torch.stack([shown(one) for one in pictures])
        masks: Tensor | None = None
        if found is not None:
            inside = cut(found[0][at][there], found[1][at][there], side)
            where = boxes(inside, LEAST)
            seen = cropped(seen, where, side).round().clamp(0, 255).byte()
            masks = (cropped(inside[:, None], where, side) > 0.5).byte()
        who = target.name, Unit(target.canonical(layer), unit), names[at]
        made.append(PartSamples(*who, labels[at][there], seen, masks, vectors[at][there]))
    return made
