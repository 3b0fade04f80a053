"""Which layer comes before another: where circuits lead to unless somebody says otherwise."""

from collections.abc import Callable
from typing import Any

from torch import nn

from neuronx.errors import UserError
from neuronx.targets.dictionary import SUFFIX
from neuronx.targets.replay import wrapped
from neuronx.targets.target import Target


def lower_layer(target: Target, layer: str) -> str:
    """The layer whose channels a layer's circuits lead to by default.

    Among the layers that are over before `layer` begins, in this order: the last of those that the target lists
    (`layers=`); the last of its own kind, a module of the same class with the same parent, then with any parent (layer3
    for ResNet's layer4, layer3.1 for its layer4.0, one fire module for the next); the last module with weights that
    lies in no other (layer4 for fc).

    Raises:
        UserError: An unknown layer, one that never runs, or the first one.
    """
    layer = target.canonical(layer)
    names = {module: name for name, module in target.module.named_modules()}
    listed = {target.canonical(name).removesuffix(SUFFIX) for name in target.layers}
    module, call, _ = target.find(layer)
    begun, ended = _order(target, layer, module, call)
    start = begun.get(module, len(names))  # the network itself, "", begins before all and ends after all
    before = sorted((other for other in ended if ended[other] < start), key=lambda other: ended[other])
    kind = [other for other in before if type(other) is type(module)]
    parent = names[module].rpartition(".")[0]
    for candidates in (
        [other for other in before if names[other] in listed],
        [other for other in kind if names[other].rpartition(".")[0] == parent],
        kind,
        _outermost([other for other in before if any(True for _ in other.parameters())], begun, ended),
    ):
        if candidates:
            return names[candidates[-1]]
    raise UserError(
        f"`{layer}` is the first layer of {target.name}: no layer comes before it that a circuit could lead to."
    )


def _order(
    target: Target, layer: str, last: nn.Module, call: int | None
) -> tuple[dict[nn.Module, int], dict[nn.Module, int]]:
    """When each module last begins and ends in a forward pass, up to a call of one, as one running number."""
    begun: dict[nn.Module, int] = {}
    ended: dict[nn.Module, int] = {}

    def wrapper(module: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            if call is not None and moments.count((last, True)) >= call:
                return forward(*args, **kwargs)
            begun[module] = len(moments)
            moments.append((module, True))
            output = forward(*args, **kwargs)
            ended[module] = len(moments)
            moments.append((module, False))
            return output

        return run

    moments: list[tuple[nn.Module, bool]] = []
    with wrapped(target.module, wrapper):
        target.layer_table(layers=[layer])
    return begun, ended


def _outermost(modules: list[nn.Module], begun: dict[nn.Module, int], ended: dict[nn.Module, int]) -> list[nn.Module]:
    """Those that lie in no other of the list, which is sorted by when they end."""
    kept: list[nn.Module] = []
    for module in modules:
        kept = [other for other in kept if begun[other] < begun[module]] + [module]
    return kept
