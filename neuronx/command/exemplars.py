"""`exemplars=`: the images where each unit is strongest, written as annotations, as pictures and as pages."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuronx.errors import UserError, unknown
from neuronx.store.processes import is_first
from neuronx.types import Cell, Explanation, TrainerFactory

if TYPE_CHECKING:
    from torch import Tensor

    from neuronx.data.probe import Probe
    from neuronx.recording.exemplars import Exemplars
    from neuronx.targets.target import Target

log = logging.getLogger(__name__)

SPLITS = {"methods": ("train", "val"), "all": ("train", "val", "test")}
RANKED_BY = ("peak", "pool")
COLUMNS = (
    *("target", "layer", "pool", "unit", "ranked_by", "highest", "lowest", "threshold"),
    *("ties", "images", "saturated"),
)
"""Of `exemplars.csv`."""


@dataclass(frozen=True)
class Wanted:
    """What was typed behind `exemplars=`.

    Attributes:
        k: Images of each unit.
        quantile: Of a unit's activations; masks are where it is above.
        images: Among which: those that methods see (train and val), or all.
        by: What ranks them: the unit's `peak`, as MILAN publishes them, or its activation as the layer is pooled
            (`pool`), which is explained and scored. By default the peak in the published layout, and on pages and in
            pictures what is scored. Where that is the class token (pool=first), it ranks them everywhere.
        size: Side of the images in pixels; that of the network's input by default, 224 as published.
    """

    k: int = 15
    quantile: float = 0.99
    images: str = "methods"
    by: str | None = None
    size: int | None = None

    def __post_init__(self) -> None:
        _whole("k", self.k)
        if self.size is not None:
            _whole("size", self.size)
        if isinstance(self.quantile, bool) or not isinstance(self.quantile, int | float) or not 0 < self.quantile < 1:
            raise UserError(f"exemplars.quantile={self.quantile}: write a number between 0 and 1, such as 0.99.")
        for name, choices in (("images", tuple(SPLITS)), ("by", RANKED_BY)):
            if (value := getattr(self, name)) not in (*choices, *(None,) * (name == "by")):
                raise unknown(f"choice of exemplars.{name}", str(value), choices, f"All: {', '.join(choices)}.")

    def rows(self, images: "Probe") -> "Tensor":
        """The images looked at. Raises UserError where there are fewer than k."""
        rows = images.split(*SPLITS[self.images])
        if self.k > len(rows):
            raise UserError(
                f"exemplars.k={self.k} images of each unit cannot be found among {len(rows)} ({self.images} of "
                f"{images.name}): write a smaller number."
            )
        return rows


def _whole(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UserError(f"exemplars.{name}={value}: write a whole number of at least 1, as in exemplars=15.")


def read(typed: Any) -> Wanted | None:
    """What was typed, a number or options; None for nothing.

    Raises:
        UserError: For anything else, unknown options, or values that these cannot have.
    """
    if typed is None:
        return None
    if not isinstance(typed, Mapping):
        return Wanted(k=typed)
    options = [field.name for field in fields(Wanted)]
    for name in typed:
        if name not in options:
            raise unknown("option of exemplars", str(name), options, f"All: {', '.join(options)}.")
    return Wanted(**{name: value for name, value in typed.items() if value is not None or name == "k"})


def draw(
    targets: "Mapping[str, Target]",
    probe: "Probe",
    wanted: Wanted,
    trainer: TrainerFactory,
    folder: Path,
    explanations: Mapping[tuple[str, str], Sequence[Explanation]],
) -> None:
    """Finds the images where each unit is strongest, and writes them as annotations, pictures and `exemplars.csv`.

    Args:
        targets: Networks by name.
        probe: The images.
        wanted: How many, of which, by what.
        trainer: Makes trainers.
        folder: Of the run.
        explanations: Shown beside the pictures.
    """
    from neuronx.data.latents import images_of
    from neuronx.recording.exemplars import observe
    from neuronx.report.exemplar_grids import show_exemplars
    from neuronx.tables.csv import write_csv

    table: list[list[Cell]] = []
    for name, target in targets.items():
        log.info("%s: looking for the images where the units of %s fire most", name, ", ".join(target.layers))
        images = images_of(target, probe)
        rows = wanted.rows(images)
        how: dict[str, Any] = {"k": wanted.k, "quantile": wanted.quantile, "by": wanted.by or "peak"}
        _, found = observe(target, images, trainer, rows=rows, **how)
        said = {method: told for (network, method), told in explanations.items() if network == name}
        show_exemplars(found, target, images, trainer, folder, said, rows, wanted.size, as_scored=wanted.by is None)
        for layer, exemplars in found.items():
            units = target.units_of(layer, len(exemplars.units))
            table += [[name, layer, exemplars.pool, *_summary(exemplars, unit)] for unit in units]
            _say_saturated(target, exemplars, units)
    if is_first():
        write_csv(folder / "exemplars.csv", COLUMNS, table)


def _summary(exemplars: "Exemplars", unit: int) -> list[Cell]:
    values = exemplars.values[unit]
    numbers = [float(values[0]), float(values[-1]), float(exemplars.thresholds[unit]), int(exemplars.ties[unit])]
    return [unit, exemplars.ranking, *numbers, exemplars.images, int(exemplars.saturated[unit])]


def _say_saturated(target: "Target", exemplars: "Exemplars", units: Sequence[int]) -> None:
    tied = int(exemplars.saturated[units].sum())
    if tied and is_first():
        first = "their mean, then " if exemplars.by == "peak" and exemplars.grid is not None else ""
        log.warning(
            f"Layer `{exemplars.layer}` of {target.name}: {tied} of {len(units)} units are saturated: their largest "
            f"{exemplars.ranking} is that of {exemplars.rows.shape[1]} images or more, of which {first}a lot chooses."
        )
