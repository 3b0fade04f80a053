"""Units named by where they fire: corners and borders, as padding makes them, or parts of the picture."""

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neuronx.concepts.visual.places import places
from neuronx.options import Count, Share
from neuronx.types import Cell, Explanation, Found, Table, TrainerFactory, Unit

if TYPE_CHECKING:
    from neuronx.data.probe import Probe
    from neuronx.recording.mean_maps import MeanMap
    from neuronx.targets.target import Target

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class Places:
    """Names each unit of a layer with positions by the place with which it correlates most over all positions.

    The place is chosen on train; the notes say, on val, its `correlation` with the unit over positions and pictures,
    and `by place`, the share of the unit's variance that its mean map explains. A unit above `threshold` is one of
    places: it does much the same on every picture.

    Attributes:
        border: Positions that make a border, on each side.
        threshold: Share of the variance by place above which a unit counts as one of places.
    """

    border: Count = 1
    threshold: Share = 0.25

    def explain(self, target: "Target", probe: "Probe", trainer: TrainerFactory) -> Found:
        """Names the units asked for; the tables list them, those most by place first.

        Raises:
            Unsuitable: A layer without positions.
        """
        from neuronx.recording.mean_maps import mean_maps

        train, val = (mean_maps(target, probe, trainer, probe.split(name)) for name in ("train", "val"))
        explanations: list[Explanation] = []
        tables: dict[str, Table] = {}
        for layer in target.layers:
            named = self.explain_layer(layer, train[layer], val[layer])
            asked = [one for one in named if target.asks_for(one.unit)]
            of_place = sum(dict(one.notes).get("by place", 0) > self.threshold for one in asked)
            log.info("%s %s: %d of %d units are units of places", target.name, layer, of_place, len(asked))
            explanations += asked
            active = sorted((one for one in asked if one.terms), key=lambda one: -one.notes[0][1])
            rows: list[list[Cell]] = [[one.unit.index, str(one), *(v for _, v in one.notes)] for one in active]
            tables[f"places_{target.name}_{layer}.csv"] = (("unit", "place", *NOTES), rows)
        return Found(explanations, tables)

    def explain_layer(self, layer: str, train: "MeanMap", val: "MeanMap") -> list[Explanation]:
        """Names all units of one layer by its mean maps."""
        found = places(train.mean.shape[1], train.mean.shape[2], self.border)
        names, where = list(found), torch.stack(list(found.values())).flatten(1).double()
        best = correlations(train, where).max(1).indices
        held_out = correlations(val, where).gather(1, best[:, None])[:, 0]
        return [
            Explanation(Unit(layer, k), ((names[place], 1.0),), notes=tuple(zip(NOTES, values, strict=True)))
            if active
            else Explanation(Unit(layer, k), ())
            for k, (place, active, *values) in enumerate(
                zip(
                    best.tolist(),
                    (train.variance > 0).tolist(),
                    val.by_place.tolist(),
                    held_out.tolist(),
                    strict=True,
                )
            )
        ]


NOTES = ("by place", "correlation")


def correlations(maps: "MeanMap", where: Tensor) -> Tensor:
    """Of K units with C places (C, positions), over positions and pictures: (K, C); 0 for a constant unit."""
    centred = where - where.mean(1, keepdim=True)
    covariance = maps.mean.flatten(1) @ centred.T / where.shape[1]
    scale = maps.variance.sqrt()[:, None] * centred.square().mean(1).sqrt()
    return torch.where(scale > 0, covariance / scale.clamp(min=1e-300), 0)
