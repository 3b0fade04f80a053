"""Recording: one `Trainer.predict` pass over a probe gives the activations of every layer asked for.

What was recorded is kept in the store under a key of everything that it depends on: the network's digest, the layer,
its pooling, the pictures, the transform, the precision. Values of two batch sizes or devices agree to rounding, so
neither is part of the key; what is in the store stays as first recorded.

Batches are written as they come, some in a shard, from which an interrupted run goes on. Batch b is always the same
rows, so it does not matter which process wrote it, when, or in what company: what is made of them is the same, byte for
byte.
"""

import io
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from lightning import Trainer
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from neuronx.data.probe import Probe
from neuronx.errors import UserError
from neuronx.recording.pooling import pooled
from neuronx.recording.virtual import with_parts
from neuronx.recording.walk import watch
from neuronx.store.cache import UNKEYED, Contents, Draft, Entry, entry, open_or_draft
from neuronx.store.processes import on_first, start
from neuronx.targets.dictionary import SUFFIX
from neuronx.targets.identity import transform_digest
from neuronx.targets.target import Target
from neuronx.types import Activations, Plain, TrainerFactory, Unit

FLUSH_BYTES = 32 * 2**20
VALUES = "values.npy"


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
        start(runner)

        def places() -> dict[str, Entry]:
            keys = {layer: _key(target, layer, how, probe, runner) for layer, how in self.poolings.items()}
            return {layer: entry("recordings", key if store else [key, UNKEYED]) for layer, key in keys.items()}

        self.published, self.todo = open_or_draft(places)
        self.found: dict[str, Tensor] = {}
        self.waiting: dict[str, dict[int, Tensor]] = {layer: {} for layer in self.todo}

    @property
    def layers(self) -> Collection[str]:
        """Those that are not in the store yet."""
        return self.todo

    def done(self, batches: Sequence[Tensor]) -> Collection[int]:
        """The batches that are on disk for every layer."""

        def on_disk() -> set[int]:
            shards = (draft.adopt(f"shard-{self.batch_size}-") for draft in self.todo.values())
            return set.intersection(*(set(_batches(paths)) for paths in shards))

        return on_first(on_disk)

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
                numbers = sorted(kept)
                tensors = {"batches": torch.tensor(numbers), "values": torch.cat([kept[b] for b in numbers])}
                name = f"shard-{self.batch_size}-{numbers[0]:06d}-{len(numbers):04d}.safetensors"
                self.todo[layer].write(name, save(tensors))
                kept.clear()

    def finish(self, runner: Trainer) -> dict[str, Activations]:
        """Publishes what all processes have recorded, and reads all layers asked for."""
        if self.todo:
            self.published |= on_first(self._merge)
        found = {layer: _activations(layer, how, self.published[layer]) for layer, how in self.poolings.items()}
        if not self.store:
            for draft in self.todo.values():
                on_first(draft.entry.remove)
        return found

    def _merge(self) -> dict[str, Contents]:
        """Joins the shards of all layers; a mistake in one does not keep the others from being published."""
        found: dict[str, Contents] = {}
        mistakes = []
        for layer, draft in self.todo.items():
            shards = draft.blocks(f"shard-{self.batch_size}-")
            try:
                found[layer] = self._join(layer, draft, _batches(shards))
            except UserError as error:
                mistakes.append(error)
        if mistakes:
            raise mistakes[-1]
        return found

    def _join(self, layer: str, draft: Draft, shards: dict[int, tuple[Path, int]]) -> Contents:
        """Publishes the batches of a layer as one file (N, K) float32; one batch at a time is in memory."""
        if len(shards) < -(-self.images // self.batch_size):
            raise UserError(f"Recordings in {draft.entry.path} vanished while they were made; run again.")
        with safe_open(shards[0][0], "pt") as shard:
            shape = (self.images, shard.get_slice("values").get_shape()[1])
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})

        def values() -> Iterator[bytes]:
            yield header.getvalue()
            for b in range(len(shards)):
                path, place = shards[b]
                with safe_open(path, "pt") as shard:
                    batch = shard.get_slice("values")[place * self.batch_size : (place + 1) * self.batch_size]
                if not bool(batch.isfinite().all()):
                    row, unit = (~batch.isfinite()).nonzero()[0].tolist()
                    draft.discard()
                    raise not_finite(self.target, layer, unit, b * self.batch_size + row)
                yield batch.numpy().tobytes()

        return draft.publish({VALUES: values()}, target=self.target.name, layer=layer, shape=list(shape))


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
        "transform": transform_digest(target.transform),
        "precision": str(runner.precision),
    }


def _key(target: Target, layer: str, how: str, probe: Probe, runner: Trainer) -> Plain:
    prefix = target.prefix_tokens if how == "patch" else None
    return identity(target, layer, probe, runner) | {"pool": how, "prefix": prefix}


def _batches(shards: Sequence[Path]) -> dict[int, tuple[Path, int]]:
    """The batches in some shards: number -> (shard, where in the shard)."""
    found: dict[int, tuple[Path, int]] = {}
    for path in shards:
        with safe_open(path, "pt") as shard:
            found |= {b: (path, place) for place, b in enumerate(shard.get_tensor("batches").tolist())}
    return found


def _activations(layer: str, how: str, contents: Contents) -> Activations:
    """The values (N, K), memory-mapped: read when touched, and never written back."""
    path = contents.files[VALUES]
    mapped = np.load(path, mmap_mode="r")
    # from_file maps privately, so that unlike a read-only array it can be shared with torch without a warning.
    first = mapped.offset // 4
    whole = torch.from_file(str(path), shared=False, size=first + mapped.size, dtype=torch.float32)
    values = whole[first:].view(mapped.shape)
    return Activations(values, tuple(Unit(layer, index) for index in range(values.shape[1])), how)
