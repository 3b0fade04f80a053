"""Exemplars: the images that excite each unit most, where in them, and the threshold above which a unit is on."""

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from lightning import Trainer
from torch import Tensor

from neuronx.data.probe import Probe
from neuronx.errors import UserError
from neuronx.recording.record import Recorder, identity, not_finite
from neuronx.recording.tally import NotFinite, Tally, merge
from neuronx.recording.virtual import exemplars_with_parts, with_parts
from neuronx.recording.walk import Watcher, watch
from neuronx.store.cache import Contents, Entry, entry, open_or_draft, packed
from neuronx.store.processes import on_first, start
from neuronx.targets.target import Target
from neuronx.types import Activations, Plain, TrainerFactory, Unit

TAIL_MB = 64


@dataclass(frozen=True)
class Exemplars:
    """What excites the units of one layer most.

    Attributes:
        units: The K units of the whole layer, in column order.
        rows: (K, k) int64, the images of largest peak, strongest first, ties by smaller row.
        peaks: (K, k) float32, the largest activation over all positions of the image.
        places: (K, k) int64, where the peak is: y * w + x in the grid; 0 where there is no grid, -1 for parts of units.
        thresholds: (K,) float32, the activations' `quantile` over all positions of all images looked at, interpolated
            linearly as `torch.quantile` does.
        quantile: Of the thresholds, in (0, 1).
        grid: (h, w) of the layer's maps or patch tokens; None for one number an image, where the whole image counts.
        images: How many images were looked at.
    """

    units: tuple[Unit, ...]
    rows: Tensor
    peaks: Tensor
    places: Tensor
    thresholds: Tensor
    quantile: float
    grid: tuple[int, int] | None
    images: int

    @property
    def layer(self) -> str:
        """The layer that all of the units belong to."""
        return self.units[0].layer


def find_exemplars(
    target: Target,
    probe: Probe,
    trainer: TrainerFactory,
    layers: Iterable[str] | None = None,
    *,
    k: int = 15,
    quantile: float = 0.99,
    rows: Tensor | None = None,
    batch_size: int | None = None,
    tail_mb: float = TAIL_MB,
) -> dict[str, Exemplars]:
    """Finds the exemplars and thresholds of several layers in one pass over the images, or reads them from the store.

    Exact and in bounded memory: of each unit only the values that may decide about the quantile are kept, in memory up
    to `tail_mb` and in the store beyond. Under DDP each process tallies its share of the batches; what they find is
    merged exactly, bit for bit what one process finds. A run that broke off goes on where it was.

    Args:
        target: The network.
        probe: The images.
        trainer: Makes the trainer whose `predict` runs the pass.
        layers: Names; the target's own by default.
        k: Exemplars of each unit.
        quantile: Of the thresholds, in (0, 1): 0.99 in MILAN, 0.995 in Network Dissection.
        rows: The images looked at; train and val by default, since methods see no test images.
        batch_size: Images at a time; the probe's own by default.
        tail_mb: Megabytes of values in memory, for all layers of a process together, beside those of one batch.

    Returns:
        Layer -> exemplars of the whole layer, in the order of `layers`.

    Raises:
        UserError: k or the quantile out of range, an unknown layer, activations that are NaN or infinite, a full disk.
    """
    runner = trainer()
    names = target.layers if layers is None else layers
    finder = Finder(target, probe, runner, names, k=k, quantile=quantile, rows=rows, tail_mb=tail_mb)
    if finder.layers:
        watch(target, probe, runner, [finder], finder.rows, batch_size)
    return exemplars_with_parts(finder.finish(runner), target, probe, trainer, finder.rows)


def observe(
    target: Target,
    probe: Probe,
    trainer: TrainerFactory,
    layers: dict[str, str] | None = None,
    *,
    k: int = 15,
    quantile: float = 0.99,
    rows: Tensor | None = None,
    batch_size: int | None = None,
    tail_mb: float = TAIL_MB,
) -> tuple[dict[str, Activations], dict[str, Exemplars]]:
    """Records pooled activations of all images and finds the exemplars among some of them, in one pass for both.

    The same as `record` and `find_exemplars` one after the other, and kept in the same places of the store, for the
    price of one of them. What either of them knows already is not looked for again.

    Args:
        target: The network.
        probe: The images.
        trainer: Makes the trainer whose `predict` runs the pass.
        layers: Layer -> pooling; the target's own by default.
        k: As in `find_exemplars`.
        quantile: As in `find_exemplars`.
        rows: The images that may be exemplars and count for thresholds; train and val by default.
        batch_size: Images at a time; the probe's own by default.
        tail_mb: As in `find_exemplars`.

    Returns:
        Layer -> activations (N, K), and layer -> exemplars, both in the order of `layers`.

    Raises:
        UserError: As `record` and `find_exemplars` do.
    """
    runner = trainer()
    recorder = Recorder(target, probe, runner, layers, batch_size)
    finder = Finder(target, probe, runner, recorder.poolings, k=k, quantile=quantile, rows=rows, tail_mb=tail_mb)
    watchers: list[Watcher] = [watcher for watcher in (recorder, finder) if watcher.layers]
    if watchers:
        watch(target, probe, runner, watchers, None if recorder.layers else finder.rows, batch_size)
    recorded, exemplars = recorder.finish(runner), finder.finish(runner)
    return (
        with_parts(recorded, target, probe, trainer),
        exemplars_with_parts(exemplars, target, probe, trainer, finder.rows),
    )


class Finder:
    """Watches a pass and tallies what excites the units of several layers; see `find_exemplars`.

    `of` is what the values that it is shown depend on besides the layer, where they are not its activations.
    """

    def __init__(
        self,
        target: Target,
        probe: Probe,
        runner: Trainer,
        layers: Iterable[str],
        *,
        k: int,
        quantile: float,
        rows: Tensor | None,
        tail_mb: float,
        of: Mapping[str, Plain] | None = None,
    ) -> None:
        self.rows = probe.split("train", "val") if rows is None else rows.unique()
        _check(self.rows, len(probe), k, quantile)
        self.target, self.k, self.quantile, self.budget = target, k, quantile, tail_mb * 1e6
        self.wanted = torch.zeros(len(probe), dtype=torch.bool)
        self.wanted[self.rows] = True
        facts: dict[str, Plain] = {
            "rows": hashlib.sha256(self.wanted.numpy().tobytes()).hexdigest(),
            "k": k,
            "quantile": quantile,
        }
        facts |= {"prefix": target.prefix_tokens, **(of or {})}
        self.layers_asked = list(map(target.canonical, layers))
        start(runner)

        def places() -> dict[str, Entry]:
            keys = {layer: identity(target, layer, probe, runner) | facts for layer in self.layers_asked}
            return {layer: entry("exemplars", key) for layer, key in keys.items()}

        self.published, drafts = open_or_draft(places)
        self.tallies = {layer: Tally(draft, self.wanted, k, quantile) for layer, draft in drafts.items()}

    @property
    def layers(self) -> Collection[str]:
        """Those that are not in the store yet."""
        return self.tallies

    def done(self, batches: Sequence[Tensor]) -> Collection[int]:
        """The batches that no layer needs."""
        return set.intersection(*(set(tally.done(batches)) for tally in self.tallies.values()))

    def look(self, layer: str, output: Tensor, rows: Tensor) -> None:
        """Tallies a batch for the time being."""
        self.tallies[layer].look(output, rows, self.target.prefix_tokens or 0)

    def keep(self, rows: Tensor) -> None:
        """Takes it for good."""
        for tally in self.tallies.values():
            tally.keep()
        if sum(tally.nbytes for tally in self.tallies.values()) >= self.budget:
            self.flush()

    def flush(self) -> None:
        """Writes what is in memory to the store."""
        for tally in self.tallies.values():
            tally.flush()

    def finish(self, runner: Trainer) -> dict[str, Exemplars]:
        """Publishes what all processes have found, and reads all layers asked for."""
        if self.tallies:
            self.published |= on_first(self._merge)
        return {layer: _read(layer, self.published[layer]) for layer in self.layers_asked}

    def _merge(self) -> dict[str, Contents]:
        found = {}
        for layer, tally in self.tallies.items():
            try:
                head, thresholds = merge(tally.draft, self.wanted, self.k, self.quantile)
            except NotFinite as error:
                raise not_finite(self.target, layer, error.unit, error.row) from None
            tensors = {"rows": head.rows, "peaks": head.peaks, "places": head.places, "thresholds": thresholds}
            facts: dict[str, Plain] = {"target": self.target.name, "layer": layer, "images": len(self.rows)}
            facts |= {"grid": head.grid.tolist() or None, "quantile": self.quantile}
            found[layer] = tally.draft.publish(packed(tensors), **facts)
        return found


def _check(rows: Tensor, images: int, k: int, quantile: float) -> None:
    if not 0 < quantile < 1:
        raise UserError(f"quantile={quantile}: write a number between 0 and 1, such as 0.99.")
    if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < images:
        raise UserError(f"rows {int(rows.min())} to {int(rows.max())} are asked for, but the data has {images} images.")
    if not 1 <= k <= len(rows):
        raise UserError(f"k={k} exemplars of each unit cannot be found among {len(rows)} images.")


def _read(layer: str, contents: Contents) -> Exemplars:
    tensors, facts = contents.tensors(), cast("dict[str, Any]", contents.facts)
    return Exemplars(
        units=tuple(Unit(layer, index) for index in range(len(tensors["rows"]))),
        rows=tensors["rows"],
        peaks=tensors["peaks"],
        places=tensors["places"],
        thresholds=tensors["thresholds"],
        quantile=facts["quantile"],
        grid=tuple(facts["grid"]) if facts["grid"] else None,
        images=facts["images"],
    )
