"""What units of the embedded world answer to, which is known there."""

from pathlib import Path

from neuronx.milannotations.dataset import Milannotations
from neuronx.tables.csv import read_csv
from neuronx.world.annotations.factors import words


def leading_factors(units: Milannotations, source: str | None = None) -> list[tuple[str, ...]]:
    """For each unit the ways to say what its exemplars share first of all; () where they share nothing or nobody knows.

    Args:
        units: Of models whose folders have a `truth.csv`, as those of the embedded annotations do.
        source: Only what is known so: `known` from rendered scenes, or `seen` by networks in generated pictures.
    """
    known: dict[tuple[Path, str, int], tuple[str, ...]] = {}
    for folder in dict.fromkeys(layer.folder.parent for layer in units.folders):
        if (folder / "truth.csv").is_file():
            for row in read_csv(folder / "truth.csv")[1]:
                factor = row.cells["factor"]
                if factor and source in (None, row.cells["source"]):
                    known[folder, row.cells["layer"], row.whole("unit")] = words(factor)
    folders = {(layer.model, layer.name): layer.folder.parent for layer in units.folders}
    found = []
    for index in range(len(units)):
        unit = units.unit(index)
        found.append(known.get((folders[units.model(index), unit.layer], unit.layer, unit.index), ()))
    return found
