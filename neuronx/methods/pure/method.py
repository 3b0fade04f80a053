"""PURE as a method: units that mean several things are split into parts, and any other method names the parts."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from neuronx.errors import UserError, unknown
from neuronx.methods.pure.gates import KINDS, centres
from neuronx.methods.pure.heat import check_heat
from neuronx.methods.pure.patches import CROPS
from neuronx.methods.pure.pictured import split_samples
from neuronx.methods.pure.references import Findings, find_parts, find_references
from neuronx.methods.pure.split import Split
from neuronx.recording.record import record
from neuronx.types import Cell, Explanation, Method, PartSamples, Table, TrainerFactory, as_found

if TYPE_CHECKING:
    from neuronx.data.probe import Probe
    from neuronx.targets.target import Target

COLUMNS = (
    "target",
    "layer",
    "unit",
    "polysemanticity",
    "explained",
    "null",
    "low",
    "high",
    "p",
    "parts",
    "sizes",
    "silhouette",
    "references",
    "status",
)


class Pure:
    """Splits polysemantic units by their circuits (Dreyer et al., CVPR-W 2024) and has the parts described.

    Explanations are of the parts of units that are split, `layer:unit/part`, and of units left whole. What goes beyond
    the publication: the test that leaves pure units whole, the choice of how many parts, parts that run on any image.
    """

    def __init__(
        self,
        describe: Mapping[str, Method],
        k: int | str = "silhouette",
        references: int = 100,
        gate: str = "hard",
        alpha: float | None = 0.001,
        most: int = 5,
        min_size: int = 5,
        n_init: int = 10,
        draws: int = 50,
        lower: str | None = None,
        rule: str = "gradient",
        positions: str = "activation",
        learns_from: int = 1500,
        quantile: float = 0.0,
        chosen_by: str = "activation",
        crop: str = "mask",
        heat: str = "auto",
        seed: int = 0,
    ) -> None:
        """Chooses how to split, and who describes.

        Args:
            describe: One method, by name.
            k: Number of parts of a split unit; or `silhouette` or `gap`, which choose it for each unit.
            references: Train images of each unit whose circuits are clustered.
            gate: How much of a unit's activation belongs to each part: hard, soft, reject or distilled (`Split`).
            alpha: Level of the test that a unit is polysemantic; None splits every unit that can be.
            most: Parts of a unit at most, where they are chosen.
            min_size: References that a part needs.
            n_init: Restarts of k-means.
            draws: Draws of the test.
            lower: Layer that circuits lead to; the one before by default.
            rule: Of relevance: gradient (as published), lrp or adjacent.
            positions: Which positions of a map count: activation (all, as published), peak or one.
            learns_from: Train images of each unit that the distilled gate learns from.
            quantile: Of a unit's train activations; up to it the parts have equal shares, which saves circuits.
            chosen_by: What makes a reference: activation (as published), or relevance for the predicted class, by `lrp`
                or `gradient`.
            crop: Of the references in its pictures: mask, peak, heat or none, as in `samples.Samples`.
            heat: Of `crop=heat`: auto, lrp or gradient.
            seed: Of clustering and test.
        """
        if crop not in CROPS:
            raise unknown("way to crop", crop, CROPS)
        check_heat(heat)
        if len(describe) != 1:
            raise UserError(f"PURE needs one method that describes parts, not {', '.join(describe) or 'none'}.")
        if gate not in KINDS:
            raise unknown("gate", gate, KINDS)
        if gate == "distilled" and rule == "adjacent":
            raise UserError("gate=distilled reads a layer, and rule=adjacent leads to none; choose another of the two.")
        self.describes, self.describer = next(iter(describe.items()))
        self.name = f"pure-{self.describes}"
        self.references, self.gate, self.lower = references, gate, lower
        self.gating: dict[str, Any] = {"most": learns_from, "quantile": quantile}
        self.circuits = {"rule": rule, "seed": positions}
        self.chosen_by = chosen_by
        self.shown = {"crop": crop, "heat": heat}
        self.parts: dict[str, Any] = {
            "k": k,
            "alpha": alpha,
            "most": most,
            "min_size": min_size,
            "n_init": n_init,
            "draws": draws,
        }
        self.parts["seed"] = seed
        self.found: dict[tuple[str, str, str], Findings] = {}

    def explain(self, target: "Target", probe: "Probe", trainer: TrainerFactory) -> list[Explanation]:
        """Describes the parts of the units asked for that are split, and the others as they are.

        Raises:
            UserError: A first layer, fewer references than parts, and whatever the describer raises.
        """
        split = self.split(target, probe, trainer)
        columns = {}
        for layer, recorded in record(split, probe, trainer).items():
            wanted = set(recorded_units(target, layer, len(recorded.units)))
            whole = {unit.index for unit in recorded.units if unit.part is not None}
            columns[layer] = [
                column
                for column, unit in enumerate(recorded.units)
                if unit.index in wanted and (unit.part is not None or unit.index not in whole)
            ]
        return list(as_found(self.describer.explain(replace(split, units=columns), probe, trainer)).explanations)

    def split(self, target: "Target", probe: "Probe", trainer: TrainerFactory) -> "Target":
        """The network with the parts of its split units: `recording.record` gives them after the layer's own units."""
        parts = {}
        for layer, pool in target.layers.items():
            found = self.look(target, probe, trainer, layer)
            which = found.split.nonzero().squeeze(1)
            if len(which):
                own = found.references
                centre = centres(own.vectors[which], found.clusters.labels[which], found.clusters.k)
                parts[layer] = Split(
                    layer, pool, own.units[which], centre, self.gate, own.lower, self.circuits, **self.gating
                )
        return replace(target, parts=parts)

    def with_options(self, lower: str | None = None, alpha: float | None = None) -> "Pure":
        """The same with another lower layer and level of the test; None for the default and for splitting all units."""
        same = copy.copy(self)
        same.lower, same.parts, same.found = lower, self.parts | {"alpha": alpha}, {}
        return same

    def look(self, target: "Target", probe: "Probe", trainer: TrainerFactory, layer: str) -> Findings:
        """What the circuits of the units asked for of a layer tell; looked for once."""
        key = target.name, layer, f"{target.digest} {probe.fingerprint} {(target.units or {}).get(layer)}"
        if key not in self.found:
            total = target.layer_table(layers=[layer])[0].units
            units = torch.tensor(recorded_units(target, layer, total), dtype=torch.int64)
            options: dict[str, Any] = {"chosen_by": self.chosen_by, **self.circuits}
            found = find_references(target, probe, trainer, layer, units, self.references, self.lower, **options)
            self.found[key] = find_parts(found, **self.parts)
        return self.found[key]

    def samples(
        self, target: "Target", probe: "Probe", trainer: TrainerFactory, explained: Sequence[Explanation]
    ) -> list[PartSamples]:
        """References of the units that are split most clearly, with what was said of their parts, to be shown."""
        return split_samples(self, target, probe, trainer, explained, **self.shown)

    def tables(self, target: "Target", probe: "Probe", trainer: TrainerFactory) -> Mapping[str, Table]:
        """`units.csv`: the units of all networks so far, most polysemantic first within a layer.

        `polysemanticity` is by how much two clusters explain more of the variance of a unit's circuits (`explained`)
        than of one Gaussian cloud of the same shape (`null`, and `low` to `high`, 95 % of its draws).
        """
        for layer in target.layers:
            self.look(target, probe, trainer, layer)
        rows = [row for (name, layer, _), found in self.found.items() for row in ranking(name, layer, found)]
        return {"units.csv": (COLUMNS, rows)}


def recorded_units(target: "Target", layer: str, total: int) -> list[int]:
    """The units of a layer that were asked for."""
    return list(range(total)) if target.units is None else list(target.units[layer])


def ranking(target: str, layer: str, found: Findings) -> list[list[Cell]]:
    """Rows of `units.csv`, most polysemantic first."""
    test, sizes = found.verdicts, found.clusters.sizes
    counted = found.references.counted.sum(1).tolist()
    rows: list[list[Cell]] = []
    for at in test.excess.argsort(descending=True, stable=True).tolist():
        own = [size for size in sizes[at].tolist() if size]
        split = bool(found.split[at])
        status = "split" if split else "whole" if counted[at] else "inactive"
        numbers = [float(x[at]) for x in (test.excess, test.share, test.null, test.low, test.high, test.p)]
        parts = len(own) if split else 1
        shown = ";".join(map(str, own)) if split else ""
        unit = int(found.references.units[at])
        rows.append([target, layer, unit, *numbers, parts, shown, float(found.silhouette[at]), counted[at], status])
    return rows
