"""Part of a forward pass, run again: modules that come before it give back what they gave, instead of running.

The modules that run before a layer are found by recording the order of calls in one forward pass; no architecture is
known by name. `Tail` runs what comes after one layer, again and again, on changed copies of one batch.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from neuronx.errors import UserError
from neuronx.targets.calling import run, seen_parts
from neuronx.targets.layers import first_tensor
from neuronx.targets.target import Target

Call = tuple[nn.Module, int]
"""The n-th time, counted from 0, that a module is called in a forward pass."""

Wrapper = Callable[[nn.Module, Callable[..., Any]], Callable[..., Any]]
"""From a module and its forward to what is called instead."""

Change = Callable[[Tensor], object]
"""Writes into an output of the layer with units on axis 1: (B, K), tokens (B, K, T) or maps (B, K, H, W)."""


@contextmanager
def wrapped(network: nn.Module, wrapper: Wrapper) -> Iterator[None]:
    """Within the context every module's forward is wrapped, the network's own left out; then all are as they were."""
    before = {module: module.__dict__.get("forward") for _, module in seen_parts(network)[1:]}
    try:
        for module in before:
            module.forward = wrapper(module, module.forward)
        yield
    finally:
        for module, own in before.items():
            if own is not None:
                module.forward = own
            elif "forward" in module.__dict__:
                del module.forward


class Noted:
    """Outputs of all outermost module calls that finished before call `last` returned.

    Attributes:
        last: The last call of interest.
        only: Calls to note, wherever they are; by default all but those inside others.
        then: Called once `last` is over.
        given: In the order in which they ended, copied, since later modules may write into what these gave; empty
            until `last` is over.
        counts: How often each module has been called, also later.
    """

    def __init__(
        self, last: Call, only: Collection[Call] | None = None, then: Callable[[], None] = lambda: None
    ) -> None:
        self.last, self.only, self.then = last, only, then
        self.given: dict[Call, Any] = {}
        self.counts: Counter[nn.Module] = Counter()
        self._over: list[tuple[Call, Any]] = []

    def __call__(self, module: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
        """The wrapper."""

        def run(*args: Any, **kwargs: Any) -> Any:
            call, start = (module, self.counts[module]), len(self._over)
            self.counts[module] += 1
            output = forward(*args, **kwargs)
            if not self.given:
                if self.only is None:
                    del self._over[start:]
                if self.only is None or call in self.only:
                    self._over.append((call, tree_map(clone, output)))
                if call == self.last:
                    self.given = dict(self._over)
                    self.then()
            return output

        return run


def replayed(gives: Mapping[Call, Callable[[], Any]]) -> Wrapper:
    """Calls that are listed give what their entry makes, instead of running."""
    counts: Counter[nn.Module] = Counter()
    known = {module for module, _ in gives}

    def wrapper(module: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
        if module not in known:
            return forward

        def run(*args: Any, **kwargs: Any) -> Any:
            call = module, counts[module]
            counts[module] += 1
            return gives[call]() if call in gives else forward(*args, **kwargs)

        return run

    return wrapper


def changed(call: Call, change: Callable[[Any], Any]) -> Wrapper:
    """Everything runs as it is, and what one call gives is changed."""
    counts: Counter[nn.Module] = Counter()

    def wrapper(module: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
        if module is not call[0]:
            return forward

        def run(*args: Any, **kwargs: Any) -> Any:
            number = counts[module]
            counts[module] += 1
            output = forward(*args, **kwargs)
            return change(output) if number == call[1] else output

        return run

    return wrapper


def clone(x: Any) -> Any:
    """A copy of a tensor; anything else as it is."""
    return x.clone() if isinstance(x, Tensor) else x


def nan(x: Any) -> Any:
    """NaN throughout; what holds none raises, and so counts as read."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise TypeError
    return torch.full_like(x, torch.nan)


class Tail:
    """Runs a network from one layer on. First `load` a batch, then `run` it, as often as you like.

    Attributes:
        logits: (B, C) of the batch, as the whole network gives them.
        output: What the layer gives for the batch, (B, K), (B, T, K) or (B, K, H, W).
        partial: Whether only the tail is run, rather than the whole network.
    """

    def __init__(self, target: Target, layer: str) -> None:
        """Takes a layer; UserError for one that is unknown, or of a dictionary."""
        self.target, self.layer, self.module = target, layer, target.replaceable(layer).module
        self.partial = True
        self.call: Call | None = None
        self.needed: dict[Call | None, bool] = {}
        self.given: dict[Call, Any] = {}
        self.logits: Tensor
        self.output: Tensor

    def load(self, images: Tensor) -> None:
        """Runs the whole network once on (B, ...) images and keeps what lies before the tail.

        Raises:
            UserError: The network's output is not (B, C).
        """
        if self.call is None:
            self.call = self.module, self.target.call_of(self.layer, images[:2]) - 1
        noted = Noted(self.call)
        with self.target.record([self.layer]) as found, wrapped(self.target.module, noted):
            self.logits = class_logits(self.target, run(self.target.module, images))
        self.output = found[self.layer]
        self.images, self.given = images, noted.given if self.partial else {}
        if not self.given:
            self.partial = False
            return
        if not self.needed:
            self.needed = {call: True for call in (None, *self.given)}
            self.needed = {call: self._is_needed(call) for call in self.needed}
        changes: list[Tensor] = []
        self.partial = self._agrees(self.run(1, changes.append)) and len(changes) == 1

    def run(self, copies: int, change: Change = lambda _: None) -> Tensor:
        """Logits (copies * B, C) of so many copies of the batch, one after the other, the layer's output changed."""
        network, images = self.target.module, self.images
        if not self.partial:
            with self.target.edit(self.layer, change, self.call[1] + 1 if self.call else None):
                return class_logits(self.target, run(network, _copies(images, copies, len(images))))
        inputs = _copies(images, copies, len(images)) if self.needed[None] else _blank(images, copies)
        with wrapped(network, replayed(self._gives(copies, change))):
            return class_logits(self.target, run(network, inputs))

    def _gives(self, copies: int, change: Change) -> dict[Call, Callable[[], Any]]:
        """How the calls that lie before the tail give copies of what they gave."""
        size = len(self.images)

        def give(call: Call) -> Any:
            if not self.needed[call]:
                return tree_map(lambda x: _blank(x, copies, size), self.given[call])
            output = tree_map(lambda x: _copies(x, copies, size), self.given[call])
            if call == self.call:
                self.target.edited(self.layer, output, change, self.images, copy=False)
            return output

        return {call: partial(give, call) for call in self.given}

    def _is_needed(self, call: Call | None) -> bool:
        """Whether the tail reads what a call gave (None: the images); if not, NaN in its place changes nothing."""
        if call == self.call:
            return True
        given, images = self.given, self.images
        try:
            if call is None:
                self.images = torch.full_like(images, torch.nan)
            else:
                self.given = given | {call: tree_map(nan, given[call])}
            return not self._agrees(self.run(1))
        except Exception:  # whatever a network does with NaN, it reads it
            return True
        finally:
            self.given, self.images = given, images

    def _agrees(self, logits: Tensor) -> bool:
        scale = self.logits.abs().max().clamp(min=1e-6)
        return logits.shape == self.logits.shape and bool((logits - self.logits).abs().max() <= 1e-4 * scale)


def class_logits(target: Target, output: Any) -> Tensor:
    """The logits in what a network returned, (B, C) float32; UserError where it has no class head."""
    logits = first_tensor(output)
    if logits is None or logits.ndim != 2 or logits.shape[1] < 2:
        shape = "no tensor" if logits is None else f"outputs of shape {tuple(logits.shape)}"
        raise UserError(f"{target.name} has no class head: it gives {shape}, where (images, classes) is needed.")
    return logits.float()


def _copies(x: Any, copies: int, batch: int) -> Any:
    """So many copies along the batch axis; what has no such axis stays."""
    if not isinstance(x, Tensor) or not x.ndim or len(x) != batch:
        return x
    return torch.cat([x] * copies) if copies > 1 else x.clone()


def _blank(x: Any, copies: int, batch: int | None = None) -> Any:
    """Something of the shape that the copies would have: nobody reads it, so that no memory is touched."""
    if not isinstance(x, Tensor) or not x.ndim or len(x) != (batch or len(x)):
        return x
    return x.new_empty((copies * len(x), *x.shape[1:]))
