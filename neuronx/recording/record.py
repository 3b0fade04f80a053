"""Recording: one `Trainer.predict` pass over a probe gives the activations of every layer asked for.

What was recorded is kept in the store under a key of everything that it depends on: the network's digest, the layer,
its pooling, the pictures, the transform, the precision. Values of two batch sizes or devices agree to rounding, so
neither is part of the key; what is in the store stays as first recorded.
"""

import copy
import dataclasses
import time

from lightning import LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from neuronx.cache import Entry, entry
from neuronx.data.probe import Probe
from neuronx.errors import UserError
from neuronx.recording.pooling import pooled
from neuronx.recording.shards import NotFinite, find_batches, is_whole, merge, read_values, write_shard
from neuronx.recording.walk import predict
from neuronx.targets.dictionary import SUFFIX
from neuronx.targets.target import Target
from neuronx.types import Activations, Plain, TrainerFactory, Unit

FLUSH_BYTES = 32 * 2**20
FLUSH_SECONDS = 10.0


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
        Layer -> activations (N, K) float32 of the whole layer, in the order of `layers`.

    Raises:
        UserError: An unknown layer, a pooling that does not fit, activations that are NaN or infinite, a full disk.
    """
    layers = target.layers if layers is None else {target.canonical(layer): how for layer, how in layers.items()}
    runner, size = trainer(), batch_size or probe.batch_size
    kind = "recordings" if store else "unstored"
    entries = {layer: entry(kind, _key(target, layer, how, probe, runner)) for layer, how in layers.items()}
    todo = {layer: place for layer, place in entries.items() if not is_whole(place)}
    if todo:
        predict(Recorder(_safe(target, runner), probe, {layer: layers[layer] for layer in todo}, todo, size), runner)
        _merge(todo, target, size, len(probe), runner)
    found = {layer: _activations(layer, how, entries[layer]) for layer, how in layers.items()}
    if not store:
        runner.strategy.barrier()
        for place in entries.values():
            place.remove()
    return found


class Recorder(LightningModule):
    """Runs a network over a probe and writes what its layers do, pooled, batch by batch.

    Args:
        target: The network.
        probe: The images.
        layers: Layer -> pooling.
        entries: Layer -> where it is stored.
        batch_size: Images at a time.
    """

    def __init__(
        self, target: Target, probe: Probe, layers: dict[str, str], entries: dict[str, Entry], batch_size: int
    ) -> None:
        super().__init__()
        # With more processes than batches left, some have nothing to do.
        self.allow_zero_length_dataloader_with_multiple_devices = True
        self.network = target.module
        self.dictionary = target.dictionary
        self.target, self.probe, self.layers, self.entries = target, probe, layers, entries
        self.batch_size = batch_size
        self.waiting: dict[str, dict[int, Tensor]] = {layer: {} for layer in layers}
        self.flushed = time.monotonic()

    def predict_dataloader(self) -> DataLoader:
        """The batches of this process that are not on disk yet for every layer."""
        done = [set(find_batches(place, self.batch_size)) for place in self.entries.values()]
        return self.probe.loader(
            self.target.transform,
            batch_size=self.batch_size,
            rank=self.trainer.global_rank,
            world=self.trainer.world_size,
            skip=frozenset(set.intersection(*done)),
        )

    def predict_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Records one batch of (images (B, 3, H, W), rows (B,)); returns the rows."""
        images, rows = batch
        with self.target.record(self.layers, self._pool) as found:
            self.network(images)
        number = int(rows[0]) // self.batch_size
        for layer in self.layers:
            self.waiting[layer][number] = found[layer].cpu()
        size = sum(values.nbytes for kept in self.waiting.values() for values in kept.values())
        if size >= FLUSH_BYTES or time.monotonic() - self.flushed >= FLUSH_SECONDS:
            self.flush()
        if self.trainer.received_sigterm:
            # Lightning would run on to the end; what is on disk is where the next run goes on.
            self.flush()
            raise SystemExit(143)
        return rows

    def on_predict_end(self) -> None:
        """Writes what is still in memory."""
        self.flush()

    def flush(self) -> None:
        """Writes the waiting batches, one shard a layer."""
        for layer, kept in self.waiting.items():
            if kept:
                write_shard(self.entries[layer], self.batch_size, kept)
                kept.clear()
        self.flushed = time.monotonic()

    def _pool(self, layer: str, output: Tensor) -> Tensor:
        try:
            return pooled(output, self.layers[layer], self.target.prefix_tokens or 0)
        except UserError as mistake:
            raise UserError(f"Layer `{layer}` of {self.target.name}: {mistake}.") from None


def _key(target: Target, layer: str, how: str, probe: Probe, runner: Trainer) -> Plain:
    return {
        "target": target.digest,
        "layer": layer,
        "pool": how,
        "prefix": target.prefix_tokens if how == "patch" else None,
        "channels": target.channels,
        "dictionary": target.dictionary.digest if target.dictionary is not None and layer.endswith(SUFFIX) else None,
        "probe": probe.fingerprint,
        "images": len(probe),
        "transform": repr(target.transform),
        "precision": str(runner.precision),
    }


def _safe(target: Target, runner: Trainer) -> Target:
    """The target, its network copied where the trainer's precision would change the weights for good."""
    if str(runner.precision) == "32-true" or str(runner.precision).endswith("mixed"):
        return target
    return dataclasses.replace(target, module=copy.deepcopy(target.module), dictionary=copy.deepcopy(target.dictionary))


def _merge(entries: dict[str, Entry], target: Target, batch_size: int, rows: int, runner: Trainer) -> None:
    """Publishes what all processes have recorded; every process raises the same mistake."""
    runner.strategy.barrier()
    mistake: str | None = None
    if runner.is_global_zero:
        for layer, place in entries.items():
            try:
                merge(place, batch_size, rows, target=target.name, layer=layer)
            except NotFinite as error:
                mistake = (
                    f"Layer `{layer}` of {target.name}: unit {error.unit} is NaN or infinite on image {error.row}; "
                    "check the network's weights and transform. Nothing was kept of this layer."
                )
            except UserError as error:
                mistake = str(error)
    mistake = runner.strategy.broadcast(mistake)
    if mistake is not None:
        raise UserError(mistake)


def _activations(layer: str, how: str, place: Entry) -> Activations:
    values = read_values(place)
    return Activations(values, tuple(Unit(layer, index) for index in range(values.shape[1])), how)
