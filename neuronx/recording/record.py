"""Recording: one forward pass over a probe gives the activations of every layer asked for.

What was recorded is kept in the store under a key of everything that it depends on: the network's digest, the layer,
its pooling, the pictures, the transform, the precision. Values of two batch sizes or devices agree to rounding, so
neither is part of the key; what is in the store stays as first recorded.

Batches are written as they come, some in a shard, from which an interrupted run goes on. Batch b is always the same
rows, so it does not matter which process wrote it, when, or in what company: what is made of them is the same, byte for
byte.
"""

import io
import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from lightning import Trainer
from safetensors import safe_open
from safetensors.torch import save as packed
from torch import Tensor

from neuronx.data.probe import Probe
from neuronx.errors import UserError
from neuronx.recording.forward_pass import collect
from neuronx.recording.maps import pooled, pooled_latents
from neuronx.store.cache import UNKEYED, Contents, Draft, Entry, entry, open_or_draft
from neuronx.store.processes import on_first, start
from neuronx.targets.dictionary import SUFFIX
from neuronx.targets.identity import transform_digest
from neuronx.targets.layers import first_tensor
from neuronx.targets.target import Target
from neuronx.types import Activations, Plain, TrainerFactory, Unit

FLUSH_BYTES = 32 * 2**20
VALUES = "values.npy"
ANSWERS = "(answers)"
"""Stands among layers for the classes that the network finds, which are kept beside them."""

log = logging.getLogger("neuronx")


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
        UserError: An unknown layer, a pooling that does not fit, a layer all of whose units are NaN or infinite on some
            image, a full disk.
    """
    runner = trainer()
    recorder = Recorder(target, probe, runner, layers, batch_size, store)
    if recorder.layers:
        collect(target, probe, runner, [recorder], batch_size=batch_size)
    return with_parts(recorder.finish(runner), target, probe, trainer)


class Recorder:
    """The collector of pooled activations of all images of a probe, written down batch by batch.

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
        if self.todo and store and target.latents is None:
            kept, drafts = open_or_draft(lambda: {ANSWERS: _answers_entry(target, probe, runner)})
            self.published, self.todo = self.published | kept, self.todo | drafts
        self.found: dict[str, Tensor] = {}
        self.waiting: dict[str, dict[int, Tensor]] = {layer: {} for layer in self.todo}

    @property
    def layers(self) -> Collection[str]:
        """Those that are not in the store yet."""
        return [layer for layer in self.todo if layer != ANSWERS]

    def done(self, batches: Sequence[Tensor]) -> Collection[int]:
        """The batches that are on disk for every layer."""

        def on_disk() -> set[int]:
            shards = (draft.adopt(f"shard-{self.batch_size}-") for draft in self.todo.values())
            return set.intersection(*(set(_batches(paths)) for paths in shards))

        return on_first(on_disk)

    @property
    def encodes(self) -> bool:
        """Latents are pooled as they are encoded."""
        return True

    def collect(self, layer: str, output: Tensor, rows: Tensor) -> None:
        """Pools the output, or the latents of a dictionary of it."""
        how, prefix, dictionary = (
            self.poolings[layer],
            self.target.prefix_tokens or 0,
            self.target.find(layer).dictionary,
        )
        if dictionary is None:
            self.found[layer] = pooled(output, how, prefix)
        else:
            self.found[layer] = pooled_latents(output, how, dictionary.to(output.device), prefix)

    def end_batch(self, rows: Tensor, output: Any = None) -> None:
        """Takes the pooled values of a batch, and what the network answers."""
        if ANSWERS in self.todo:
            self.found[ANSWERS] = _answers(output, len(rows))
        number = int(rows[0]) // self.batch_size
        for layer in self.todo:
            self.waiting[layer][number] = self.found[layer].cpu()
        if sum(values.nbytes for kept in self.waiting.values() for values in kept.values()) >= FLUSH_BYTES:
            self.save()

    def save(self) -> None:
        """Writes the waiting batches, one shard a layer."""
        for layer, kept in self.waiting.items():
            if kept:
                numbers = sorted(kept)
                tensors = {"batches": torch.tensor(numbers), "values": torch.cat([kept[b] for b in numbers])}
                name = f"shard-{self.batch_size}-{numbers[0]:06d}-{len(numbers):04d}.safetensors"
                self.todo[layer].write(name, packed(tensors))
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

        def batches() -> Iterator[Tensor]:
            for b in range(len(shards)):
                path, place = shards[b]
                with safe_open(path, "pt") as shard:
                    yield shard.get_slice("values")[place * self.batch_size : (place + 1) * self.batch_size]

        sound = torch.ones(shape[1], dtype=torch.bool)
        for batch in batches():
            sound &= batch.isfinite().all(0)
        broken = (~sound).nonzero().flatten().tolist()
        say_broken(self.target, layer, broken, shape[1])

        def values() -> Iterator[bytes]:
            yield header.getvalue()
            for batch in batches():
                yield batch.masked_fill(~sound, 0.0).numpy().tobytes()

        facts: dict[str, Plain] = {"target": self.target.name, "layer": layer, "shape": list(shape), "broken": broken}
        return draft.publish({VALUES: values()}, **facts)


def say_broken(target: Target, layer: str, broken: Sequence[int], units: int) -> None:
    """Says in one line which units are broken; UserError where no other unit is left."""
    if len(broken) == units:
        raise UserError(
            f"Layer `{layer}` of {target.name}: every unit is NaN or infinite on some image; check the "
            "network's weights and transform."
        )
    if broken:
        others = f" and {len(broken) - 5} others" if len(broken) > 5 else ""
        log.warning(
            f"Layer `{layer}` of {target.name}: {len(broken)} of {units} units are NaN or infinite on some image "
            f"({', '.join(map(str, broken[:5]))}{others}). They are broken: only the others are explained and scored."
        )


def identity(target: Target, layer: str, probe: Probe, runner: Trainer) -> dict[str, Plain]:
    """What the output of a layer depends on, for keys of the store."""
    return {
        "target": target.digest,
        "layer": layer,
        "channels": f"{target.channels} by the network's input",  # as in `unit_axis`; once it was by the transform
        "dictionary": target.dictionary.digest if target.dictionary is not None and layer.endswith(SUFFIX) else None,
        "probe": probe.fingerprint,
        "images": len(probe),
        "transform": transform_digest(target.transform),
        "precision": str(runner.precision),
    }


def _key(target: Target, layer: str, how: str, probe: Probe, runner: Trainer) -> Plain:
    prefix = target.prefix_tokens if how in ("patch", "patches") else None
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
    units = tuple(Unit(layer, index) for index in range(values.shape[1]))
    return Activations(values, units, how, tuple(cast("list[int]", contents.facts.get("broken", []))))


def _answers_entry(target: Target, probe: Probe, runner: Trainer) -> Entry:
    return entry("recordings", identity(target, ANSWERS, probe, runner))


def _answers(output: Any, images: int) -> Tensor:
    """How many classes a network tells apart and which one it finds on each image: (B, 2) float32.

    0 classes where it puts out something else than one number a class, and class -1 where one of them is no number.
    """
    logits = first_tensor(output)
    if logits is None or logits.ndim != 2 or len(logits) < images or not logits.is_floating_point():
        return torch.zeros(images, 2)
    logits = logits[:images].float()
    found = logits.argmax(1).where(~logits.isnan().any(1), -1)
    return torch.stack([torch.full_like(found, logits.shape[1]), found], 1).float()


def answers_of(target: Target, probe: Probe, runner: Trainer) -> tuple[int, Tensor] | None:
    """How many classes a network tells apart, and which one it finds on each image, (N,) int64; None if unknown.

    They were kept when layers were recorded; no picture is looked at, and any process may ask alone.
    """
    kept = _answers_entry(target, probe, runner).open()
    if kept is None:
        return None
    counts, found = torch.from_numpy(np.load(kept.files[VALUES])).long().unbind(1)
    return (int(counts[0]), found) if int(counts[0]) and bool((counts == counts[0]).all()) else None


def without_parts(target: Target) -> Target:
    """The network with its own units only."""
    return target if target.parts is None else replace(target, parts=None)


def with_parts(
    recorded: dict[str, Activations], target: Target, probe: Probe, trainer: TrainerFactory
) -> dict[str, Activations]:
    """Activations (N, K) of layers with those of the parts of their units after them: (N, K + V).

    A part's activation on an image is its unit's activation times the part's gate there; so is its map.
    """
    found = dict(recorded)
    for layer, one in recorded.items():
        if target.parts and layer in target.parts:
            units, gates = gates_of(target, layer, probe, trainer)
            own = one.values[:, [unit.index for unit in units]]
            broken = [len(one.units) + at for at, unit in enumerate(units) if unit.index in one.broken]
            found[layer] = replace(
                one,
                values=torch.cat([one.values, own * gates], 1),
                units=one.units + units,
                broken=(*one.broken, *broken),
            )
    return found


def gates_of(target: Target, layer: str, probe: Probe, trainer: TrainerFactory) -> tuple[tuple[Unit, ...], Tensor]:
    """The parts of a layer's units, and how much of its unit each has on all images (N, V)."""
    parts = (target.parts or {})[layer]
    return parts.units, parts.gates(without_parts(target), probe, trainer)
