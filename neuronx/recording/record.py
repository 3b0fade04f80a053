"""Recording: one `Trainer.predict` pass over a probe gives the activations of every layer asked for.

What was recorded is kept in the store under a key of everything that it depends on: the network's digest, the layer,
its pooling, the pictures, the transform, the precision. Values of two batch sizes or devices agree to rounding, so
neither is part of the key; what is in the store stays as first recorded.
"""

from collections.abc import Collection, Sequence

from lightning import Trainer
from torch import Tensor

from neuronx.data.probe import Probe
from neuronx.errors import UserError
from neuronx.recording.pooling import pooled
from neuronx.recording.virtual import with_parts
from neuronx.recording.walk import on_first, watch
from neuronx.store.cache import Entry, entry
from neuronx.store.shards import NotFinite, find_batches, is_whole, merge, read_values, write_shard
from neuronx.targets.dictionary import SUFFIX
from neuronx.targets.target import Target
from neuronx.types import Activations, Plain, TrainerFactory, Unit

FLUSH_BYTES = 32 * 2**20


def record(
    target: Target,
    probe: Probe,
    trainer: TrainerFactory,
    layers: dict[str, str] | None = None,
    *,
    batch_size: int | None = None,
    store: bool = True,
) -> dict[str, Activations]:
    """Records the pooled activations of all images of a probe, or reads them from the store.

    Under DDP each process sees every world-size-th batch; batch b always holds the same images, so that the result
    does not depend on the number of processes, bit for bit. All nodes must see the same store folder.

    Args:
        target: The network.
        probe: The images.
        trainer: Makes the trainer whose `predict` runs the pass.
        layers: Layer -> pooling; the target's own by default.
        batch_size: Images at a time; the probe's own by default.
        store: False keeps nothing on disk once the values are read.

    Returns:
        Layer -> activations (N, K) float32 of the whole layer, in the order of `layers`; parts of units follow the
        layer's own units where the target has them.

    Raises:
        UserError: An unknown layer, a pooling that does not fit, activations that are NaN or infinite, a full disk.
    """
    runner = trainer()
    recorder = Recorder(target, probe, runner, layers, batch_size, store)
    if recorder.layers:
        watch(target, probe, runner, [recorder], batch_size=batch_size)
    return with_parts(recorder.finish(runner), target, probe, trainer)


class Recorder:
    """Watches a pass over all images of a probe and writes down what layers do, pooled, batch by batch.

    Args:
        target: The network.
        probe: The images.
        runner: The trainer of the pass.
        layers: Layer -> pooling; the target's own by default.
        batch_size: Images at a time; the probe's own by default.
        store: False keeps nothing on disk once the values are read.
    """

    def __init__(
        self,
        target: Target,
        probe: Probe,
        runner: Trainer,
        layers: dict[str, str] | None = None,
        batch_size: int | None = None,
        store: bool = True,
    ) -> None:
        self.target, self.images, self.store = target, len(probe), store
        self.batch_size = batch_size or probe.batch_size
        wanted = target.layers if layers is None else layers
        self.poolings = {target.canonical(layer): how for layer, how in wanted.items()}
        kind = "recordings" if store else "unstored"
        self.entries = {
            layer: entry(kind, _key(target, layer, how, probe, runner)) for layer, how in self.poolings.items()
        }
        self.todo = {layer: place for layer, place in self.entries.items() if not is_whole(place)}
        self.found: dict[str, Tensor] = {}
        self.waiting: dict[str, dict[int, Tensor]] = {layer: {} for layer in self.todo}

    @property
    def layers(self) -> Collection[str]:
        """Those that are not in the store yet."""
        return self.todo

    def done(self, batches: Sequence[Tensor]) -> Collection[int]:
        """The batches that are on disk for every layer."""
        return set.intersection(*(set(find_batches(place, self.batch_size)) for place in self.todo.values()))

    def look(self, layer: str, output: Tensor, rows: Tensor) -> None:
        """Pools the output."""
        self.found[layer] = pooled(output, self.poolings[layer], self.target.prefix_tokens or 0)

    def keep(self, rows: Tensor) -> None:
        """Takes the pooled values of a batch."""
        number = int(rows[0]) // self.batch_size
        for layer in self.todo:
            self.waiting[layer][number] = self.found[layer].cpu()
        if sum(values.nbytes for kept in self.waiting.values() for values in kept.values()) >= FLUSH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Writes the waiting batches, one shard a layer."""
        for layer, kept in self.waiting.items():
            if kept:
                write_shard(self.todo[layer], self.batch_size, kept)
                kept.clear()

    def finish(self, runner: Trainer) -> dict[str, Activations]:
        """Publishes what all processes have recorded, and reads all layers asked for."""
        if self.todo:
            on_first(runner, self._merge)
        found = {layer: _activations(layer, how, self.entries[layer]) for layer, how in self.poolings.items()}
        if not self.store:
            runner.strategy.barrier()
            for place in self.entries.values():
                place.remove()
        return found

    def _merge(self) -> None:
        """Joins the shards of all layers; a mistake in one does not keep the others from being published."""
        mistakes = []
        for layer, place in self.todo.items():
            try:
                merge(place, self.batch_size, self.images, target=self.target.name, layer=layer)
            except NotFinite as error:
                mistakes.append(not_finite(self.target, layer, error.unit, error.row))
            except UserError as error:
                mistakes.append(error)
        if mistakes:
            raise mistakes[-1]


def not_finite(target: Target, layer: str, unit: int, row: int) -> UserError:
    """Builds the error for an activation that is NaN or infinite."""
    return UserError(
        f"Layer `{layer}` of {target.name}: unit {unit} is NaN or infinite on image {row}; "
        "check the network's weights and transform. Nothing was kept of this layer."
    )


def identity(target: Target, layer: str, probe: Probe, runner: Trainer) -> dict[str, Plain]:
    """What the output of a layer depends on, for keys of the store."""
    return {
        "target": target.digest,
        "layer": layer,
        "channels": target.channels,
        "dictionary": target.dictionary.digest if target.dictionary is not None and layer.endswith(SUFFIX) else None,
        "probe": probe.fingerprint,
        "images": len(probe),
        "transform": repr(target.transform),
        "precision": str(runner.precision),
    }


def _key(target: Target, layer: str, how: str, probe: Probe, runner: Trainer) -> Plain:
    prefix = target.prefix_tokens if how == "patch" else None
    return identity(target, layer, probe, runner) | {"pool": how, "prefix": prefix}


def _activations(layer: str, how: str, place: Entry) -> Activations:
    values = read_values(place)
    return Activations(values, tuple(Unit(layer, index) for index in range(values.shape[1])), how)
