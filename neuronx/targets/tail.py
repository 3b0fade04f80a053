"""The tail of a network: what it computes after one layer, run again and again on changed copies of one batch.

Which modules come before the layer is seen in one forward pass, from the order of the calls; no architecture is known
by name. In later passes those modules are not run, but give back what they gave then. Where that does not reproduce the
network's logits (a layer that runs several times, a network that goes other ways each time), all of it is run instead.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from neuronx.errors import UserError
from neuronx.targets.outputs import first_tensor
from neuronx.targets.replay import Call, Noted, nan, replayed, wrapped
from neuronx.targets.target import Target

Change = Callable[[Tensor], object]
"""Writes into an output of the layer with units on axis 1: (B, K), tokens (B, K, T) or maps (B, K, H, W)."""


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
        noted = Noted((self.module, 0))
        with self.target.record([self.layer]) as found, wrapped(self.target.module, noted):
            self.logits = class_logits(self.target, self.target.module(images))
        self.output = found[self.layer]
        self.partial &= noted.counts[self.module] == 1  # not where the layer runs again
        self.images, self.given = images, noted.given if self.partial else {}
        if not self.partial:
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
        with wrapped(network, replayed(self._gives(copies, change))):
            return class_logits(self.target, network(inputs))

    def _gives(self, copies: int, change: Change) -> dict[Call, Callable[[], Any]]:
        """How the calls that lie before the tail give copies of what they gave."""
        size = len(self.images)

        def give(call: Call) -> Any:
            if not self.needed[call]:
                return tree_map(lambda x: _blank(x, copies, size), self.given[call])
            output = tree_map(lambda x: _copies(x, copies, size), self.given[call])
            if call[0] is self.module:
                self.target.edited(self.layer, output, change, copy=False)
            return output

        return {call: partial(give, call) for call in self.given}

    def _is_needed(self, call: Call | None) -> bool:
        """Whether the tail reads what a call gave (None: the images); if not, NaN in its place changes nothing."""
        if call is not None and call[0] is self.module:
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
    """The logits in what a network returned; UserError where it has no class head."""
    logits = first_tensor(output)
    if logits is None or logits.ndim != 2 or logits.shape[1] < 2:
        shape = "no tensor" if logits is None else f"outputs of shape {tuple(logits.shape)}"
        raise UserError(f"{target.name} has no class head: it gives {shape}, where (images, classes) is needed.")
    return logits


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
