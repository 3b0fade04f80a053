"""Forward passes over pictures: one LightningModule runs a network, and collectors take what they need from it.

Several collectors share a pass, so that the network runs once for all of them.
"""

import copy
import dataclasses
import logging
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import Any, Protocol

import torch
from lightning import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils._pytree import tree_map
from torch.utils.data import DataLoader

from neuronx.data.probe import Probe
from neuronx.errors import UserError, brief, first_line
from neuronx.recording.maps import pooled
from neuronx.recording.trainer import PassProgress
from neuronx.store.processes import is_first
from neuronx.targets.calling import Fails, run, to_device_of
from neuronx.targets.target import Recorded, Target
from neuronx.types import TrainerFactory

SAVE_SECONDS = 10.0
CHECKED = 8
"""Images that run twice at the start of a pass, to see whether the outputs can be relied on."""

log = logging.getLogger("neuronx")

Visit = Callable[[Tensor, Mapping[str, Tensor]], None]
"""Gets rows (B,) of the probe on the CPU and layer -> output on the trainer's device: (B, K), tokens or maps."""


class Collector(Protocol):
    """Takes layer outputs during a pass. Under DDP each process has its own, for its share of the batches."""

    @property
    def layers(self) -> Collection[str]:
        """Names, in the canonical spelling."""
        ...

    @property
    def encodes(self) -> bool:
        """Whether it takes what a dictionary reads, and encodes it itself; other collectors are given latents."""
        ...

    def done(self, batches: Sequence[Tensor]) -> Collection[int]:
        """Numbers of the batches (rows each) that it does not need; asked once, before the pass."""
        ...

    def collect(self, layer: str, output: Tensor, rows: Tensor) -> None:
        """Takes what a layer puts out for some rows (B,), while the network runs.

        Later layers may write into the output; of a module that runs several times in a pass, the last output counts.
        A UserError raised here is completed with the names of layer and network: "it has no positions".
        """
        ...

    def end_batch(self, rows: Tensor, output: Any = None) -> None:
        """The network has gone through these rows and put out `output`: what was collected last is final."""
        ...

    def save(self) -> None:
        """Writes to disk what is in memory only; called every ten seconds, and at the end."""
        ...


class Work(Protocol):
    """What a pass does with pictures, batch by batch; `_Outputs`, with collectors, is one of them."""

    @property
    def network(self) -> nn.Module:
        """Moved to the trainer's device, in its precision."""
        ...

    def batches(self, rank: int, world: int) -> DataLoader:
        """This process's share of the batches."""
        ...

    def run(self, batch: Any) -> None:
        """Works on one batch, on the trainer's device."""
        ...

    def save(self) -> None:
        """Writes to disk what is in memory only; called every ten seconds, and at the end."""
        ...


def visit_outputs(
    target: Target,
    probe: Probe,
    trainer: TrainerFactory,
    layers: list[str],
    visit: Visit,
    rows: Tensor | None = None,
    *,
    batch_size: int | None = None,
    skip: frozenset[int] = frozenset(),
) -> Trainer:
    """Runs the network over images and shows `visit` what its layers put out, batch by batch.

    Under DDP each process visits its share of the batches; the caller brings the results together with the strategy of
    the trainer that is returned (`runner.strategy.reduce(x, reduce_op="sum")`).

    Args:
        target: The network.
        probe: The images.
        trainer: Makes the trainer whose `predict` runs the pass.
        layers: Names.
        visit: Called once a batch, in order; the layers' outputs are copies.
        rows: The images; all by default.
        batch_size: Images at a time; the probe's own by default.
        skip: Numbers of batches to leave out.
    """
    runner = trainer()
    visitor = _Visitor([target.canonical(layer) for layer in layers], visit, skip)
    collect(target, probe, runner, [visitor], rows, batch_size)
    return runner


def collect(
    target: Target,
    probe: Probe,
    runner: Trainer,
    collectors: Sequence[Collector],
    rows: Tensor | None = None,
    batch_size: int | None = None,
) -> None:
    """Runs the network over images once for several collectors.

    Args:
        target: The network; what the trainer's precision does to weights is done to a copy.
        probe: The images; their loader may give tuples of inputs, as generators take them.
        runner: Its `predict` runs the pass.
        collectors: They take the outputs of their layers.
        rows: The images; all by default.
        batch_size: Images at a time; the probe's own by default.
    """
    work = _Outputs(untouched(target, runner), probe, collectors, rows, batch_size)
    predict(work, runner, f"{target.name} on {probe.name}")


def predict(work: Work, runner: Trainer, name: str, fast_layout: bool = True) -> None:
    """Runs a pass.

    Args:
        work: What is done in it.
        runner: The trainer.
        name: What is done, for the progress bar.
        fast_layout: On a CPU, convolutions run channels last; False leaves them, and their rounding, as they are.
    """
    if isinstance(runner.progress_bar_callback, PassProgress):
        runner.progress_bar_callback.title = name
    with warnings.catch_warnings(), _fast_layout(work.network, runner) if fast_layout else nullcontext():
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        warnings.filterwarnings("ignore", ".*Total length of `DataLoader`.*")
        runner.predict(ForwardPass(work), return_predictions=False)


class ForwardPass(LightningModule):
    """The LightningModule that runs networks over pictures."""

    def __init__(self, work: Work) -> None:
        super().__init__()
        # With more processes than batches left, some have nothing to do.
        self.allow_zero_length_dataloader_with_multiple_devices = True
        self.work, self.network = work, work.network
        self.saved = time.monotonic()

    def predict_dataloader(self) -> DataLoader:
        """The batches of this process."""
        return self.work.batches(self.trainer.global_rank, self.trainer.world_size)

    def predict_step(self, batch: Any, batch_idx: int) -> int:
        """Works on one batch; returns its number."""
        self.work.run(batch)
        if self.trainer.received_sigterm:
            # Lightning would run on to the end; the next run resumes from what is on disk.
            self.work.save()
            raise SystemExit(143)
        if time.monotonic() - self.saved >= SAVE_SECONDS:
            self.on_predict_end()
        return batch_idx

    def on_predict_end(self) -> None:
        """Saves what is still in memory."""
        self.work.save()
        self.saved = time.monotonic()


class _Outputs:
    """Gives collectors what layers put out, once a few images have shown that it can be relied on."""

    def __init__(
        self, target: Target, probe: Probe, collectors: Sequence[Collector], rows: Tensor | None, batch_size: int | None
    ) -> None:
        self.network = nn.ModuleList(part for part in (target.module, target.dictionary) if part is not None)
        self.target, self.probe, self.collectors = target, probe, collectors
        self.rows = torch.arange(len(probe)) if rows is None else rows
        self.batch_size = batch_size or probe.batch_size
        self.layers = list(dict.fromkeys(layer for collector in collectors for layer in collector.layers))
        self.current, self.checked, self.images = self.rows[:0], False, 0
        self.units: dict[str, int] = {}
        self.widths: dict[str, int] = {}

    def batches(self, rank: int, world: int) -> DataLoader:
        """Those that some collector still needs."""
        split = self.rows.split(self.batch_size)
        skip = frozenset.intersection(*(frozenset(collector.done(split)) for collector in self.collectors))
        return self.probe.loader(
            self.target.transform, self.rows, batch_size=self.batch_size, rank=rank, world=world, skip=skip
        )

    def run(self, batch: tuple[Any, Tensor]) -> None:
        """Shows the collectors one batch of (inputs, rows (B,))."""
        inputs, rows = batch
        if not self.checked:
            self._check(inputs, len(rows))
            self.checked = True
        self.current = rows.cpu()
        if len(rows) == 1:  # some networks cannot take a single image, and only the last batch is one
            inputs = tree_map(lambda x: torch.cat([x, x]), inputs)
        self.images = max(2, len(rows))
        with self.target.record(self.layers, self._collect, encoded=False):
            output = run(self.target.module, inputs)
        self.units = self.units or dict(self.widths)
        for layer, units in self.units.items():
            if self.widths[layer] != units:
                raise UserError(
                    f"Layer `{layer}` of {self.target.name} puts out {units} units for some images, "
                    f"{self.widths[layer]} for others; units must be the same for all."
                )
        for collector in self.collectors:
            collector.end_batch(self.current, output)

    def save(self) -> None:
        for collector in self.collectors:
            collector.save()

    def _check(self, inputs: Any, size: int) -> None:
        """Runs a few images twice, in a batch of another size than the first one.

        Raises:
            UserError: A layer whose first axis does not count the images; in one batch tokens may be as many as images.
        """
        few = [place % size for place in range(min(CHECKED, size - 1) if size > 2 else 3)]
        once, again = (self._outputs(tree_map(lambda x: x[few], inputs)) for _ in range(2))
        for layer in self.layers:
            check_rows(self.target, layer, once[layer], len(few))
            if once[layer].is_meta:
                raise UserError(
                    f"Layer `{layer}` of {self.target.name} puts out a tensor on the device meta, no values."
                )
        if not is_first():
            return
        for layer in self.layers:
            if not once[layer].is_floating_point():
                where = f"Layer `{layer}` of {self.target.name}"
                log.warning(f"{where} puts out {once[layer].dtype}; its values are taken as real numbers.")
        if different := [layer for layer in self.layers if not _alike(once[layer], again[layer])]:
            log.warning(
                f"Layer `{different[0]}` of {self.target.name} gives other values when the same images come again: the "
                "network draws random numbers or changes as it runs, so results cannot be repeated."
            )

    def _outputs(self, inputs: Any) -> Recorded:
        with self.target.record(self.layers, encoded=False) as found:
            run(self.target.module, inputs)
        return found

    def _collect(self, layer: str, output: Tensor) -> Tensor:
        check_rows(self.target, layer, output, self.images)
        output = output[: len(self.current)]
        self.widths[layer] = output.shape[1 if output.ndim == 4 else -1]
        encode, latents = self.target.find(layer).dictionary, None
        for collector in self.collectors:
            if layer in collector.layers:
                try:
                    if encode is not None and not collector.encodes:
                        latents = encode.to(output.device)(output) if latents is None else latents
                        collector.collect(layer, latents, self.current)
                    else:
                        collector.collect(layer, output, self.current)
                except UserError as mistake:
                    raise UserError(f"Layer `{layer}` of {self.target.name}: {mistake}.") from None
        return output.new_empty(0)


class _Visitor:
    """Shows a function whole outputs."""

    def __init__(self, layers: list[str], visit: Visit, skip: frozenset[int]) -> None:
        self.layers, self.visit, self.skip = layers, visit, skip
        self.outputs: dict[str, Tensor] = {}

    @property
    def encodes(self) -> bool:
        return False

    def done(self, batches: Sequence[Tensor]) -> Collection[int]:
        return self.skip

    def collect(self, layer: str, output: Tensor, rows: Tensor) -> None:
        self.outputs[layer] = output.clone()

    def end_batch(self, rows: Tensor, output: Any = None) -> None:
        self.visit(rows, self.outputs)
        self.outputs = {}

    def save(self) -> None:
        pass


def try_layers(target: Target) -> None:
    """Runs the network on two blank pictures, so that a layer or pooling that cannot work is said before any work.

    A network that takes no blank picture is left to the pass over real ones.

    Raises:
        UserError: A layer that never runs or has no units, or a pooling or dictionary that does not fit it.
    """
    with torch.inference_mode(), target.record(target.layers) as found, suppress(Fails):
        target.run_blank(2)
        _look_at(target, found, 2)


def _look_at(target: Target, found: Recorded, images: int) -> None:
    """Checks what the layers put out for a few images, and says which of them run several times."""
    for layer, how in target.layers.items():
        check_rows(target, layer, found[layer], images)
        try:
            pooled(found[layer], how, target.prefix_tokens or 0)
        except UserError as mistake:
            raise UserError(f"Layer `{layer}` of {target.name}: {mistake}.") from None
        if (calls := found.calls[layer]) > 1 and "#" not in layer and is_first():
            where = f"Layer `{layer}` of {target.name}"
            log.warning(f"{where} runs {calls} times in a forward pass; its last call, `{layer}#{calls}`, counts.")


def check_rows(target: Target, layer: str, output: Tensor, images: int) -> None:
    """Raises UserError where the first axis of a layer's output does not count the images."""
    if len(output) != images:
        raise UserError(
            f"Layer `{layer}` of {target.name} puts out a tensor of shape {tuple(output.shape)} for {images} "
            "images; its first axis must count the images (as batch_first=True does in torch's transformers)."
        )


def try_pictures(target: Target, probe: Probe) -> int | None:
    """Runs two pictures, so that what cannot work is said early; the side of the network's input, if it is square.

    Raises:
        UserError: The transform makes no input of a picture, or the network does not take it.
    """
    if target.latents is not None:
        return None
    rows, shape = probe.split("train")[:2].tolist(), None
    try:
        inputs, _ = probe.loader(target.transform).dataset[rows]
        shape = f"{tuple(inputs.shape[1:])} {inputs.dtype}"
        if inputs.ndim != 4 or not inputs.is_floating_point():
            raise UserError(
                f"transform={brief(target.transform)} makes {shape} of a picture; expected floats (3, H, W)."
            )
        with torch.inference_mode(), target.record(target.layers) as found:
            run(target.module, to_device_of(target.module, inputs))
        _look_at(target, found, len(inputs))
    except Exception as error:  # whatever the user's transform, data set or network raises
        if isinstance(error, UserError) and not isinstance(error, Fails):
            raise
        made = f"{target.name} does not take {shape}, as made by" if shape else f"Picture {rows[0]} does not suit"
        raise UserError(f"{made} transform={brief(target.transform)}: {first_line(error)}.") from error
    return inputs.shape[3] if inputs.shape[2] == inputs.shape[3] else None


def untouched(target: Target, runner: Trainer) -> Target:
    """The target, its network copied where the trainer's precision would change the weights for good."""
    if str(runner.precision) == "32-true" or str(runner.precision).endswith("mixed"):
        return target
    return dataclasses.replace(target, module=copy.deepcopy(target.module), dictionary=copy.deepcopy(target.dictionary))


def _alike(a: Tensor, b: Tensor) -> bool:
    """Whether two outputs for the same images are equal but for rounding."""
    if a.shape != b.shape:
        return False
    a, b = a.float(), b.float()
    scale = float(a.abs().nan_to_num(0, 0, 0).max()) if a.numel() else 0.0
    return torch.allclose(a, b, rtol=1e-3, atol=1e-4 * scale, equal_nan=True)


@contextmanager
def _fast_layout(network: nn.Module, runner: Trainer) -> Iterator[None]:
    """On a CPU, convolutions run 1.4 to 2.1 times faster with channels last; a lone patch embedding gains nothing."""
    convolutions = sum(isinstance(part, nn.Conv2d) for part in network.modules())
    if runner.strategy.root_device.type != "cpu" or convolutions < 2:
        yield
        return
    network.to(memory_format=torch.channels_last)
    try:
        yield
    finally:
        network.to(memory_format=torch.contiguous_format)
