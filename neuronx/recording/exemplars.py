"""Exemplars: the images that excite each unit most, where in them, and the threshold above which a unit is on."""

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from lightning import Trainer
from torch import Tensor

from neuronx.data.probe import Probe
from neuronx.errors import UserError, unknown
from neuronx.recording.centres import centres_of
from neuronx.recording.forward_pass import Collector, collect, visit_outputs
from neuronx.recording.maps import FieldCentres, on_grid
from neuronx.recording.record import Recorder, gates_of, identity, record, say_broken, with_parts, without_parts
from neuronx.recording.tally import LayerTally, merge, strongest
from neuronx.store.cache import Contents, Entry, entry, open_or_draft, packed
from neuronx.store.processes import on_first, start
from neuronx.targets.target import Target
from neuronx.types import Activations, Plain, TrainerFactory, Unit

TAIL_MB = 64
VERSION = 2
"""Of what the store holds; 1 broke ties by the order of the data."""

RANKED_BY = ("peak", "pool")
"""What ranks images: the unit's largest activation at any position, or what its pooling makes of an image."""

POOLED = {"avg": "mean", "max": "peak", "first": "class token", "patch": "patch mean", "none": "activation"}
"""What poolings make of an image, in words."""


@dataclass(frozen=True)
class Exemplars:
    """What excites the units of one layer most.

    Attributes:
        units: The K units of the whole layer, in column order.
        rows: (K, k) int64, the images of largest value, strongest first; of equal values the larger pooled activation
            comes first, then lots are drawn, always the same.
        values: (K, k) float32, by which images are ranked; see `ranking`.
        peaks: (K, k) float32, the largest activation over all positions of the image.
        places: (K, k) int64, where the peak is: y * w + x in the grid; 0 where there is no grid, -1 for parts of units.
        thresholds: (K,) float32, the activations' `quantile` over all positions of all images looked at, interpolated
            linearly as `torch.quantile` does.
        quantile: Of the thresholds, in (0, 1).
        grid: (h, w) of the layer's maps or patch tokens; None for one number an image, where the whole image counts, as
            for the class token (pool=first).
        images: How many images were looked at.
        ties: (K,) int64, how many of these share the largest value.
        pool: How the layer's output becomes one number, which is explained and scored.
        by: What ranks images, of `RANKED_BY`.
        broken: Units that are NaN or infinite on some image, as columns: their peaks are 0, and they never fire.
        centres: Where the positions of the grid look; None for the middle of equal cells.
    """

    units: tuple[Unit, ...]
    rows: Tensor
    values: Tensor
    peaks: Tensor
    places: Tensor
    thresholds: Tensor
    quantile: float
    grid: tuple[int, int] | None
    images: int
    ties: Tensor
    pool: str
    by: str = "peak"
    broken: tuple[int, ...] = ()
    centres: FieldCentres | None = None

    @property
    def ranking(self) -> str:
        """What ranks the images, in words."""
        if self.grid is None and self.pool != "first":
            return "activation"
        return POOLED[self.pool] if self.by == "pool" else "peak"

    @property
    def saturated(self) -> Tensor:
        """(K,) bool: at least k images share the largest value, so that it does not say which are the exemplars."""
        return (self.ties >= max(2, self.rows.shape[1])) & (self.values[:, 0] != 0)

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
    by: str = "peak",
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
        layers: Names, or layer -> pooling; the target's own by default.
        k: Exemplars of each unit.
        quantile: Of the thresholds, in (0, 1): 0.99 in MILAN, 0.995 in Network Dissection.
        by: What ranks the images: the unit's `peak` over positions (MILAN, Network Dissection), or its activation as
            the layer is pooled (`pool`). With pool=first it is the class token, whatever is asked for here.
        rows: The images looked at; train and val by default, since methods see no test images.
        batch_size: Images at a time; the probe's own by default.
        tail_mb: Megabytes of values in memory, for all layers of a process together, beside those of one batch.

    Returns:
        Layer -> exemplars of the whole layer, in the order of `layers`.

    Raises:
        UserError: k or the quantile out of range, an unknown layer, one all of whose units are NaN or infinite,
            a full disk.
    """
    runner = trainer()
    names = target.layers if layers is None else layers
    finder = Finder(target, probe, runner, names, k=k, quantile=quantile, by=by, rows=rows, tail_mb=tail_mb)
    if finder.layers:
        collect(target, probe, runner, [finder], finder.rows, batch_size)
    return exemplars_with_parts(finder.finish(runner), target, probe, trainer, finder.rows)


def observe(
    target: Target,
    probe: Probe,
    trainer: TrainerFactory,
    layers: dict[str, str] | None = None,
    *,
    k: int = 15,
    quantile: float = 0.99,
    by: str = "peak",
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
        by: As in `find_exemplars`.
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
    finder = Finder(target, probe, runner, recorder.poolings, k=k, quantile=quantile, by=by, rows=rows, tail_mb=tail_mb)
    collectors: list[Collector] = [collector for collector in (recorder, finder) if collector.layers]
    if collectors:
        collect(target, probe, runner, collectors, None if recorder.layers else finder.rows, batch_size)
    recorded, exemplars = recorder.finish(runner), finder.finish(runner)
    return (
        with_parts(recorded, target, probe, trainer),
        exemplars_with_parts(exemplars, target, probe, trainer, finder.rows),
    )


def exemplars_with_parts(
    found: dict[str, Exemplars], target: Target, probe: Probe, trainer: TrainerFactory, rows: Tensor
) -> dict[str, Exemplars]:
    """Exemplars of layers with those of the parts after them, where a layer has parts.

    A part fires above its unit's threshold, and where its peaks are in an image was not looked for: -1.

    Args:
        found: Layer -> exemplars of the layer's own units.
        target: With the parts.
        probe: The images.
        trainer: Makes trainers.
        rows: The images that were looked at.
    """
    made = dict(found)
    for layer, one in found.items():
        if not target.parts or layer not in target.parts:
            continue
        units, gates = gates_of(target, layer, probe, trainer)
        how = one.pool if one.grid is None or one.by == "pool" else "max"
        activations = record(without_parts(target), probe, trainer, {layer: how})[layer].values
        of = torch.tensor([unit.index for unit in units])
        shares = (activations[rows][:, of] * gates[rows]).T
        best = strongest(shares, shares, rows.expand_as(shares), one.rows.shape[1])
        values = shares.gather(1, best)
        made[layer] = replace(
            one,
            units=one.units + units,
            rows=torch.cat([one.rows, rows[best]]),
            values=torch.cat([one.values, values]),
            peaks=torch.cat([one.peaks, values]),
            places=torch.cat([one.places, torch.full_like(best, -1)]),
            ties=torch.cat([one.ties, (shares == values[:, :1]).sum(1)]),
            thresholds=torch.cat([one.thresholds, one.thresholds[of]]),
            broken=(*one.broken, *(len(one.units) + at for at, unit in enumerate(units) if unit.index in one.broken)),
        )
    return made


def gather(
    found: Mapping[str, Exemplars], units: Mapping[str, Tensor], target: Target, probe: Probe, trainer: TrainerFactory
) -> tuple[dict[str, Tensor], Trainer | None]:
    """The maps of some units on their exemplars, of all layers in one pass.

    They are kept as small as the layer makes them, 4 h w bytes each: for 15 exemplars 6 MB of 2,048 units on a grid of
    7 x 7, 48 MB of 64 units on 112 x 112.

    Args:
        found: Layer -> its exemplars.
        units: Layer -> (U,) indices of the units that are wanted.
        target: The network.
        probe: The images.
        trainer: Makes the trainer that runs the pass; every process of it gets all maps.

    Returns:
        Layer -> maps (U, k, h, w) float32, without the layers that have no positions; and the trainer, None if there
        was nothing to run.
    """
    pairs = {
        layer: _Pairs(one.rows[units[layer]], _own(one, units[layer]), one.grid)
        for layer, one in found.items()
        if one.grid is not None
    }
    if not pairs:
        return {}, None

    def visit(rows: Tensor, outputs: Mapping[str, Tensor]) -> None:
        for layer, mine in pairs.items():
            mine.take(rows, on_grid(outputs[layer], target.prefix_tokens or 0))

    rows = torch.cat([mine.rows for mine in pairs.values()]).unique()
    runner = visit_outputs(target, probe, trainer, list(pairs), visit, rows)
    if runner.world_size == 1:
        return {layer: mine.maps for layer, mine in pairs.items()}, runner
    # Each exemplar's map was made by one process and is zero on all others.
    return {layer: _sum(mine.maps, runner) for layer, mine in pairs.items()}, runner


@dataclass(init=False)
class _Pairs:
    """The exemplars of a layer's units, (unit, rank) pairs sorted by image, and their maps as they come.

    Attributes:
        rows: (P,) of the images, sorted.
        maps: (U, k, h, w) float32.
    """

    rows: Tensor
    maps: Tensor

    def __init__(self, rows: Tensor, units: Tensor, grid: tuple[int, int]) -> None:
        self.rows, self.order = rows.reshape(-1).sort()
        self.units = units.repeat_interleave(rows.shape[1])[self.order]
        self.maps = torch.zeros(*rows.shape, *grid)

    def take(self, rows: Tensor, grids: Tensor) -> None:
        """Keeps what is wanted of the maps (B, K, h, w) of images `rows` (B,), which are sorted."""
        first, last = torch.searchsorted(self.rows, torch.stack([rows[0], rows[-1] + 1])).tolist()
        if first < last:
            image = torch.searchsorted(rows, self.rows[first:last]).to(grids.device)
            unit = self.units[first:last].to(grids.device)
            self.maps.flatten(0, 1)[self.order[first:last]] = grids[image, unit].float().cpu()


def _own(exemplars: Exemplars, units: Tensor) -> Tensor:
    """The units of the layer whose maps are looked at: a part of a unit has its unit's."""
    return torch.tensor([exemplars.units[unit].index for unit in units.tolist()], dtype=torch.int64)


def _sum(maps: Tensor, runner: Trainer) -> Tensor:
    return runner.strategy.reduce(maps.to(runner.strategy.root_device), reduce_op="sum").cpu()


class Finder:
    """The collector of what excites the units of several layers (names, or layer -> pooling); see `find_exemplars`.

    `of` is what the values that it is given depend on besides the layer, where they are not its activations.
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
        by: str = "peak",
        of: Mapping[str, Plain] | None = None,
    ) -> None:
        self.rows = probe.split("train", "val") if rows is None else rows.unique()
        _check(self.rows, len(probe), k, quantile)
        self.target, self.probe, self.k, self.quantile, self.budget = target, probe, k, quantile, tail_mb * 1e6
        self.wanted = torch.zeros(len(probe), dtype=torch.bool)
        self.wanted[self.rows] = True
        if by not in RANKED_BY:
            raise unknown("ranking of exemplars", str(by), RANKED_BY)
        facts: dict[str, Plain] = {
            "rows": hashlib.sha256(self.wanted.numpy().tobytes()).hexdigest(),
            "k": k,
            "quantile": quantile,
            "version": VERSION,
        }
        facts |= {"prefix": target.prefix_tokens, **(of or {})}
        own = layers if isinstance(layers, Mapping) else target.layers
        self.pools = {
            target.canonical(layer): own.get(layer, own.get(target.canonical(layer), "avg")) for layer in layers
        }
        # There is one number only to rank by, or it is the peak.
        self.by = {layer: "pool" if pool in ("first", "max", "none") else by for layer, pool in self.pools.items()}
        start(runner)

        def places() -> dict[str, Entry]:
            keys: dict[str, dict[str, Plain]] = {
                layer: identity(target, layer, probe, runner) | facts | {"pool": pool, "by": self.by[layer]}
                for layer, pool in self.pools.items()
            }
            return {layer: entry("exemplars", key) for layer, key in keys.items()}

        self.published, drafts = open_or_draft(places)
        self.tallies = {
            layer: LayerTally(draft, self.wanted, k, quantile, self.pools[layer], self.by[layer])
            for layer, draft in drafts.items()
        }

    @property
    def layers(self) -> Collection[str]:
        """Those that are not in the store yet."""
        return self.tallies

    @property
    def encodes(self) -> bool:
        """It takes latents at all positions."""
        return False

    def done(self, batches: Sequence[Tensor]) -> Collection[int]:
        """The batches that no layer needs."""
        return set.intersection(*(set(tally.done(batches)) for tally in self.tallies.values()))

    def collect(self, layer: str, output: Tensor, rows: Tensor) -> None:
        """Tallies a batch for the time being."""
        self.tallies[layer].add(output, rows, self.target.prefix_tokens or 0)

    def end_batch(self, rows: Tensor, output: Any = None) -> None:
        """Takes it for good."""
        for tally in self.tallies.values():
            tally.confirm()
        if sum(tally.nbytes for tally in self.tallies.values()) >= self.budget:
            self.save()

    def save(self) -> None:
        """Writes what is in memory to the store."""
        for tally in self.tallies.values():
            tally.save()

    def finish(self, runner: Trainer) -> dict[str, Exemplars]:
        """Publishes what all processes have found, and reads all layers asked for."""
        if self.tallies:
            self.published |= on_first(self._merge)
        found = {layer: _read(layer, pool, self.by[layer], self.published[layer]) for layer, pool in self.pools.items()}
        return {
            layer: replace(one, centres=centres_of(self.target, self.probe, runner, layer, one.grid))
            for layer, one in found.items()
        }

    def _merge(self) -> dict[str, Contents]:
        found = {}
        for layer, tally in self.tallies.items():
            head, thresholds = merge(tally.draft, self.wanted, self.k, self.quantile)
            broken = head.broken.nonzero().flatten().tolist()
            say_broken(self.target, layer, broken, len(head.broken))
            tensors = {name: getattr(head, name) for name in ("rows", "values", "peaks", "places", "ties")}
            tensors["thresholds"] = thresholds
            facts: dict[str, Plain] = {"target": self.target.name, "layer": layer, "images": len(self.rows)}
            facts |= {"grid": head.grid.tolist() or None, "quantile": self.quantile, "broken": broken}
            found[layer] = tally.draft.publish(packed(tensors), **facts)
        return found


def _check(rows: Tensor, images: int, k: int, quantile: float) -> None:
    if not 0 < quantile < 1:
        raise UserError(f"quantile={quantile}: write a number between 0 and 1, such as 0.99.")
    if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < images:
        raise UserError(f"rows {int(rows.min())} to {int(rows.max())} are asked for, but the data has {images} images.")
    if not 1 <= k <= len(rows):
        raise UserError(f"k={k} exemplars of each unit cannot be found among {len(rows)} images.")


def _read(layer: str, pool: str, by: str, contents: Contents) -> Exemplars:
    tensors: dict[str, Any] = dict(contents.tensors())
    facts = cast("dict[str, Any]", contents.facts)
    return Exemplars(
        units=tuple(Unit(layer, index) for index in range(len(tensors["rows"]))),
        **tensors,
        pool=pool,
        by=by,
        quantile=facts["quantile"],
        grid=tuple(facts["grid"]) if facts["grid"] else None,
        images=facts["images"],
        broken=tuple(facts.get("broken", [])),
    )
