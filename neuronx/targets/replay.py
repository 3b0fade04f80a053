"""Part of a forward pass, run again: modules that come before it give back what they gave, instead of running.

What comes before is seen in one forward pass, from the order of the calls; no architecture is known by name.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

Call = tuple[nn.Module, int]
"""The n-th time, counted from 0, that a module is called in a forward pass."""

Wrapper = Callable[[nn.Module, Callable[..., Any]], Callable[..., Any]]
"""From a module and its forward to what is called instead."""


@contextmanager
def wrapped(network: nn.Module, wrapper: Wrapper) -> Iterator[None]:
    """Within the context every module's forward is wrapped, the network's own left out; then all are as they were."""
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


class Noted:
    """What the calls of a forward pass gave that are over when `last` is; those inside others are left out.

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
