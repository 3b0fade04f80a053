"""PURE as a method: units that mean several things are split into parts, and any other method names the parts."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from neuronx.errors import UserError
from neuronx.methods.pure.clusters import PartOptions
from neuronx.methods.pure.gates import GateOptions, SplitUnits, centres
from neuronx.methods.pure.references import (
    Findings,
    ReferenceOptions,
    asked_units,
    counting,
    find_parts,
    find_references,
)
from neuronx.methods.pure.samples import samples_of
from neuronx.types import Cell, Found, Method, PartSamples, TrainerFactory, Unit, as_found, encoders_of

if TYPE_CHECKING:
    from neuronx.data.probe import Probe
    from neuronx.targets.target import Target

COLUMNS = (
    *("target", "layer", "unit", "k", "p", "q", "repeats", "dip", "sizes", "silhouette", "references", "status"),
)
SHOWN = 10
"""Split units of a layer whose references are shown, the most polysemantic."""


@dataclass(frozen=True)
class Pure(ReferenceOptions, PartOptions, GateOptions):
    """Splits polysemantic units by their circuits (Dreyer et al., CVPR-W 2024) and has the parts described.

    What goes beyond the publication: the test that leaves units of one meaning whole, the choice of how many parts,
    parts that run on any image.

    Attributes:
        describe: One method, by name.
    """

    describe: Mapping[str, Method]

    def __post_init__(self) -> None:
        ReferenceOptions.__post_init__(self)
        GateOptions.__post_init__(self)
        if len(self.describe) != 1:
            raise UserError(f"PURE needs one method that describes parts, not {', '.join(self.describe) or 'none'}.")
        if self.gate == "distilled" and self.rule == "adjacent":
            raise UserError("gate=distilled reads a layer, and rule=adjacent leads to none; choose another of the two.")

    @property
    def describes(self) -> str:
        """Name of the method that describes."""
        return next(iter(self.describe))

    @property
    def name(self) -> str:
        """Of both methods together, such as pure-le_clip."""
        return f"pure-{self.describes}"

    @property
    def encoders(self) -> tuple[str, ...]:
        """Those of the method that describes."""
        return encoders_of(self.describe[self.describes])

    def explain(self, target: "Target", probe: "Probe", trainer: TrainerFactory) -> Found:
        """Describes the parts of the units asked for that are split, `layer:unit/part`, and the others as they are.

        Returns:
            Beside explanations, the table `units.csv`, the references of the units that are split most clearly, and the
            network with the parts.

        Raises:
            UserError: A first layer, fewer references than parts, and whatever the describer raises.
        """
        findings = study(target, probe, trainer, self)
        split = split_target(target, findings, self)
        columns = {}
        for layer, found in findings.items():
            whole = sorted(found.references.units[~found.split].tolist())
            columns[layer] = whole + [column for parts in part_columns(split, layer).values() for column in parts]
        describer = self.describe[self.describes]
        explanations = as_found(describer.explain(replace(split, units=columns), probe, trainer)).explanations
        in_words = {explanation.unit: str(explanation) for explanation in explanations}
        samples: list[PartSamples] = []
        for layer, found in findings.items():
            samples += _samples(target, probe, trainer, layer, found, in_words, self)
        rows = [row for layer, found in findings.items() for row in ranking(target.name, layer, found)]
        return Found(explanations, {"units.csv": (COLUMNS, rows)}, samples, split, self.name)


def study(target: "Target", probe: "Probe", trainer: TrainerFactory, options: Pure) -> dict[str, Findings]:
    """Tests and clusters the units asked for: layer -> findings."""
    found = {}
    for layer in target.layers:
        units = asked_units(target, layer)
        found[layer] = find_parts(find_references(target, probe, trainer, layer, units, options), options)
    return found


def split_target(target: "Target", findings: Mapping[str, Findings], options: Pure) -> "Target":
    """The network with the parts of its split units: `recording.record` gives them after the layer's own units."""
    parts = {}
    for layer, found in findings.items():
        own, which = found.references, found.split.nonzero().squeeze(1)
        if len(which):
            centre = centres(own.vectors[which], found.clusters.labels[which], found.clusters.k)
            parts[layer] = SplitUnits(
                layer=layer,
                pool=target.layers[layer],
                split=own.units[which],
                centres=centre,
                lower=own.lower,
                rule=options.rule,
                positions=counting(target, layer, options.positions),
                options=GateOptions(gate=options.gate, learns_from=options.learns_from, quantile=options.quantile),
            )
    return replace(target, parts=parts)


def part_columns(split: "Target", layer: str) -> dict[int, list[int]]:
    """Split unit -> the columns of its parts in recordings of the layer, after those of the layer's own units."""
    columns: dict[int, list[int]] = {}
    if split.parts and layer in split.parts:
        for column, unit in enumerate(split.parts[layer].units, split.layer_table(layers=[layer])[0].units):
            columns.setdefault(unit.index, []).append(column)
    return columns


def _samples(
    target: "Target",
    probe: "Probe",
    trainer: TrainerFactory,
    layer: str,
    found: Findings,
    in_words: Mapping[Unit, str],
    options: ReferenceOptions,
) -> list[PartSamples]:
    """The references of the most polysemantic units that are split, with the explanations of their parts."""
    order = found.verdicts.order
    which = order[found.split[order]][:SHOWN]
    labels = found.clusters.labels[which]
    names = [
        tuple(in_words.get(Unit(layer, unit, part), "") for part in range(int(own.max()) + 1))
        for unit, own in zip(found.references.units[which].tolist(), labels, strict=True)
    ]
    return samples_of(target, probe, trainer, found.references, which, labels, names, options)


def ranking(target: str, layer: str, found: Findings) -> list[list[Cell]]:
    """Rows of `units.csv`, most polysemantic first.

    `k` is the number of parts, 1 of a whole unit; `p`, `q`, `repeats` and `dip` are as `Verdicts` says.
    """
    test, q, sizes = found.verdicts, found.verdicts.q, found.clusters.sizes
    counted = found.references.counted.sum(1).tolist()
    rows: list[list[Cell]] = []
    for at in test.order.tolist():
        own = [size for size in sizes[at].tolist() if size]
        split = bool(found.split[at])
        status = "split" if split else "whole" if counted[at] else "inactive"
        numbers = [float(x[at]) for x in (test.p, q, test.repeats, test.dip)]
        parts = len(own) if split else 1
        shown = ";".join(map(str, own)) if split else ""
        unit = int(found.references.units[at])
        rows.append([target, layer, unit, parts, *numbers, shown, float(found.silhouette[at]), counted[at], status])
    return rows
