"""The tail of a network: what it computes after one layer, run again and again on changed copies of one batch.

Which modules come before the layer is seen in one forward pass, from the order of the calls; no architecture is known
by name. In later passes those modules are not run, but give back what they gave then. Where that does not reproduce the
network's logits (a layer that runs several times, a network that goes other ways each time), all of it is run instead.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from neuronx.errors import UserError
from neuronx.targets.outputs import first_tensor
from neuronx.targets.target import Target

Change = Callable[[Tensor], object]
"""Writes into an output of the layer with units on axis 1: (B, K), tokens (B, K, T) or maps (B, K, H, W)."""

Call = tuple[nn.Module, int]
"""The n-th time that a module is called in a forward pass."""


class Tail:
    """Runs a network from one layer on. First `load` a batch, then `run` it, as often as you like.

    Attributes:
        logits: (B, C) of the batch, as the whole network gives them.
        output: What the layer gives for the batch, (B, K), (B, T, K) or (B, K, H, W).
        partial: Whether only the tail is run, rather than the whole network.
    """

    def __init__(self, target: Target, layer: str) -> None:
        """Takes a layer; UserError for one that is unknown, or of a dictionary."""
        self.target, self.layer, self.module = target, layer, target.replaceable(layer)
        self.partial = True
        self.needed: dict[Call | None, bool] = {}
        self.given: dict[Call, Any] = {}
        self.logits: Tensor
        self.output: Tensor

    def load(self, images: Tensor) -> None:
        """Runs the whole network once on (B, ...) images and keeps what lies before the tail.

        Raises:
            UserError: The network's output is not (B, C).
        """
        self.images, self.given = images, {}
        with self.target.record([self.layer]) as found, _wrapped(self.target.module, self._trace()):
            self.logits = class_logits(self.target, self.target.module(images))
        self.output = found[self.layer]
        if not self.partial:
            self.given = {}
            return
        if not self.needed:
            self.needed = {call: True for call in (None, *self.given)}
            self.needed = {call: self._is_needed(call) for call in self.needed}
        self.partial = bool(self.given) and self._agrees(self.run(1))

    def run(self, copies: int, change: Change = lambda _: None) -> Tensor:
        """Logits (copies * B, C) of so many copies of the batch, one after the other, the layer's output changed."""
        network, images = self.target.module, self.images
        if not self.partial:
            with self.target.edit(self.layer, change):
                return class_logits(self.target, network(_copies(images, copies, len(images))))
        inputs = _copies(images, copies, len(images)) if self.needed[None] else _blank(images, copies)
        with _wrapped(network, self._replay(copies, change)):
            return class_logits(self.target, network(inputs))

    def _trace(self) -> "Wrapper":
        """Notes the calls that are over when the layer's is, those inside others left out, and what they gave."""
        over: list[tuple[Call, Any]] = []
        counts: Counter[nn.Module] = Counter()

        def wrapper(module: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
            def run(*args: Any, **kwargs: Any) -> Any:
                call, start = (module, counts[module]), len(over)
                counts[module] += 1
                output = forward(*args, **kwargs)
                if not self.given:
                    del over[start:]
                    # Later modules may write into what this one gave.
                    kept = tree_map(_clone, output)
                    over.append((call, kept))
                    if module is self.module:
                        self.given = dict(over)
                elif module is self.module:
                    self.partial = False  # the layer runs again
                return output

            return run

        return wrapper

    def _replay(self, copies: int, change: Change) -> "Wrapper":
        """Gives copies of what was given, instead of calling what lies before the tail."""
        counts: Counter[nn.Module] = Counter()
        known = {module for module, _ in self.given}

        def wrapper(module: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
            if module not in known:
                return forward

            def run(*args: Any, **kwargs: Any) -> Any:
                call = module, counts[module]
                counts[module] += 1
                if call not in self.given:
                    return forward(*args, **kwargs)
                size = len(self.images)
                if not self.needed[call]:
                    return tree_map(lambda x: _blank(x, copies, size), self.given[call])
                output = tree_map(lambda x: _copies(x, copies, size), self.given[call])
                if module is self.module:
                    self.target.edited(self.layer, output, change, copy=False)
                return output

            return run

        return wrapper

    def _is_needed(self, call: Call | None) -> bool:
        """Whether the tail reads what a call gave (None: the images); if not, NaN in its place changes nothing."""
        if call is not None and call[0] is self.module:
            return True
        given, images = self.given, self.images
        try:
            if call is None:
                self.images = torch.full_like(images, torch.nan)
            else:
                self.given = given | {call: tree_map(_nan, given[call])}
            return not self._agrees(self.run(1))
        except Exception:  # whatever a network does with NaN, it reads it
            return True
        finally:
            self.given, self.images = given, images

    def _agrees(self, logits: Tensor) -> bool:
        scale = self.logits.abs().max().clamp(min=1e-6)
        return logits.shape == self.logits.shape and bool((logits - self.logits).abs().max() <= 1e-4 * scale)


def class_logits(target: Target, output: Any) -> Tensor:
    """The logits in what a network returned; UserError where it has no class head."""
    logits = first_tensor(output)
    if logits is None or logits.ndim != 2 or logits.shape[1] < 2:
        shape = "no tensor" if logits is None else f"outputs of shape {tuple(logits.shape)}"
        raise UserError(f"{target.name} has no class head: it gives {shape}, where (images, classes) is needed.")
    return logits


Wrapper = Callable[[nn.Module, Callable[..., Any]], Callable[..., Any]]


@contextmanager
def _wrapped(network: nn.Module, wrapper: Wrapper) -> Iterator[None]:
    """Within the context every module's forward is wrapped; then all are as they were."""
    before = {module: module.__dict__.get("forward") for module in network.modules() if module is not network}
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


def _clone(x: Any) -> Any:
    return x.clone() if isinstance(x, Tensor) else x


def _nan(x: Any) -> Any:
    """NaN throughout; what holds none raises, and so counts as read."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise TypeError
    return torch.full_like(x, torch.nan)
