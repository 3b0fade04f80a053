"""Virtual units: a target's `parts`, recorded beside the layer's own units, so that nobody needs to know of them.

A part's activation on an image is its unit's activation times the part's gate there; so is its map.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neuronx.types import Activations, TrainerFactory, Unit

if TYPE_CHECKING:
    from neuronx.data.probe import Probe
    from neuronx.recording.exemplars import Exemplars
    from neuronx.targets.target import Target


def without_parts(target: "Target") -> "Target":
    """The network with its own units only."""
    return target if target.parts is None else replace(target, parts=None)


def with_parts(
    recorded: dict[str, Activations], target: "Target", probe: "Probe", trainer: TrainerFactory
) -> dict[str, Activations]:
    """Activations (N, K) of layers with those of the parts after them: (N, K + V), where a layer has parts."""
    found = dict(recorded)
    for layer, one in recorded.items():
        if target.parts and layer in target.parts:
            units, gates = _gates(target, layer, probe, trainer)
            own = one.values[:, [unit.index for unit in units]]
            found[layer] = replace(one, values=torch.cat([one.values, own * gates], 1), units=one.units + units)
    return found


def exemplars_with_parts(
    found: "dict[str, Exemplars]", target: "Target", probe: "Probe", trainer: TrainerFactory, rows: Tensor
) -> "dict[str, Exemplars]":
    """Exemplars of layers with those of the parts after them, where a layer has parts.

    A part fires above its unit's threshold, and where its peaks are in an image was not looked for: -1.

    Args:
        found: Layer -> exemplars of the layer's own units.
        target: With the parts.
        probe: The images.
        trainer: Makes trainers.
        rows: The images that were looked at.
    """
    from neuronx.recording.record import record

    made = dict(found)
    for layer, one in found.items():
        if not target.parts or layer not in target.parts:
            continue
        units, gates = _gates(target, layer, probe, trainer)
        how = "none" if one.grid is None else "max"
        peaks = record(without_parts(target), probe, trainer, {layer: how})[layer].values
        of = torch.tensor([unit.index for unit in units])
        shares = peaks[rows][:, of] * gates[rows]
        best = shares.argsort(dim=0, descending=True, stable=True)[: one.rows.shape[1]]
        made[layer] = replace(
            one,
            units=one.units + units,
            rows=torch.cat([one.rows, rows[best].T]),
            peaks=torch.cat([one.peaks, shares.gather(0, best).T]),
            places=torch.cat([one.places, torch.full_like(best.T, -1)]),
            thresholds=torch.cat([one.thresholds, one.thresholds[of]]),
        )
    return made


def _gates(target: "Target", layer: str, probe: "Probe", trainer: TrainerFactory) -> tuple[tuple[Unit, ...], Tensor]:
    parts = (target.parts or {})[layer]
    return parts.units, parts.gates(without_parts(target), probe, trainer)
