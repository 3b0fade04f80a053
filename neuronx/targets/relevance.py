"""Layer-wise relevance propagation: which rule goes with which module, from what runs and not from names of classes.

Convolutions: z-plus. Linear layers, and batch norms that follow no linear operation: epsilon (1e-6). Sums and average
pooling: in proportion to what each input contributes. Activations pass relevance on; maximum pooling gives it to the
winner. Relevance is conserved but for what biases absorb. (Bach et al. 2015; Montavon et al. 2019.)
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from neuronx.errors import UserError
from neuronx.targets.layers import first_tensor
from neuronx.targets.replay import wrapped

UNRULED = {
    *("softmax", "sigmoid", "sigmoid_", "hardsigmoid", "tanh", "scaled_dot_product_attention"),
    *("multi_head_attention_forward", "layer_norm", "group_norm", "instance_norm", "rms_norm", "normalize"),
    *("mul", "mul_", "__mul__", "__rmul__", "__imul__", "div", "div_", "__truediv__", "__itruediv__"),
    *("matmul", "__matmul__", "bmm", "baddbmm", "einsum", "sub", "sub_"),
}
"""Operations on what carries relevance that no rule covers: gates, attention, norms of single images."""
ADDITIONS = {"add", "__add__", "__radd__"}
IN_PLACE = {"add_", "__iadd__"}


@dataclass(frozen=True)
class Rules:
    """Rules for a part of a network.

    Attributes:
        modules: Those that run in that part, by name, in order.
        merges: Linear operations and the batch norms that are merged into them, ((linear,), batch norm).
        flat: The module that shares relevance out evenly, whatever its weights and inputs: the first linear operation,
            where relevance is followed to the pixels (the composite EpsilonPlusFlat). None for nowhere.
    """

    modules: dict[str, nn.Module]
    merges: list[tuple[tuple[str], str]]
    flat: str | None = None

    @contextmanager
    def applied(self, network: nn.Module) -> Iterator[None]:
        """Within the context gradients are relevance; then the network is as it was, whatever happened."""
        from zennit.core import Composite
        from zennit.rules import Epsilon, Flat, Norm, Pass, ZPlus
        from zennit.types import Activation, AvgPool, BatchNorm, Convolution, Linear

        merged = {norm for _, norm in self.merges}
        kinds = ((Convolution, ZPlus), (Linear, Epsilon), (BatchNorm, Epsilon), (AvgPool, Norm), (Activation, Pass))

        def rule(_: Any, name: str, module: nn.Module) -> Any:
            if name not in self.modules or name in merged:
                return None
            if name == self.flat:
                return Flat()
            return next((hook() for kind, hook in kinds if isinstance(module, kind)), None)

        composite = Composite(module_map=rule)
        with _merged(network, self.merges), _shared_sums(network):
            try:
                composite.register(network)
                yield
            finally:
                composite.remove()


def find_rules(network: nn.Module, go: Callable[[], object], where: str, option: str, flat: bool = False) -> Rules:
    """Looks at a part of a network while it runs.

    Args:
        network: All of it.
        go: Runs the part; what carries relevance must take gradients.
        where: What runs, for messages: "r50 uses between `a` and `b`".
        option: What to set to `gradient` where rules do not do.
        flat: Whether the first linear operation shares relevance out evenly.

    Raises:
        UserError: An operation that the rules do not cover.
    """
    names = {module: name for name, module in network.named_modules()}
    calls: list[tuple[nn.Module, Any, Any]] = []

    def wrapper(module: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            output = forward(*args, **kwargs)
            calls.append((module, first_tensor(args), first_tensor(output)))
            return output

        return run

    with wrapped(network, wrapper), _Covered(where, option):
        go()
    modules = {names[module]: module for module, _, _ in calls}
    first = next((name for name, module in modules.items() if _linear(module)), None)
    return Rules(modules, [((names[a],), names[b]) for a, b in _merges(calls)], first if flat else None)


def need_zennit(option: str) -> None:
    """UserError where zennit is not installed.

    Args:
        option: What asked for it, as it is typed.
    """
    try:
        import zennit  # noqa: F401
    except ImportError:
        raise UserError(f"{option} needs zennit, which is not installed: pip install neuronx[pure].") from None


def _linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear | nn.modules.conv._ConvNd)


def _merges(calls: list[tuple[nn.Module, Any, Any]]) -> list[tuple[nn.Module, nn.Module]]:
    """Linear operations and the batch norms that take what they give, where both run once."""
    counts = Counter(module for module, _, _ in calls)
    found: list[tuple[nn.Module, nn.Module]] = []
    for norm, given, _ in calls:
        if not isinstance(norm, nn.modules.batchnorm._BatchNorm) or counts[norm] > 1 or norm.weight is None:
            continue
        for module, _, output in calls:
            if _linear(module) and output is given and counts[module] == 1:
                found.append((module, norm))
    return found


class _Covered(TorchFunctionMode):
    """Within it, an operation on what carries relevance that no rule covers is a UserError."""

    def __init__(self, where: str, option: str) -> None:
        super().__init__()
        self.where, self.option = where, option

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.__name__
        if name in UNRULED and any(isinstance(x, Tensor) and x.requires_grad for x in _flat(args)):
            raise UserError(
                f"{self.option}=lrp does not cover `{name.strip('_')}`, which {self.where}; use {self.option}=gradient."
            )
        return function(*args, **(kwargs or {}))


def _flat(args: Any) -> list[Any]:
    return [x for arg in args for x in (arg if isinstance(arg, tuple | list) else [arg])]


@contextmanager
def _merged(network: nn.Module, merges: list[tuple[tuple[str], str]]) -> Iterator[None]:
    """Merges batch norms into the linear operations that they follow, exactly: with an epsilon of 0 afterwards."""
    from zennit.canonizers import NamedMergeBatchNorm

    norms: list[Any] = [network.get_submodule(norm) for _, norm in merges]
    epsilons = [norm.eps for norm in norms]
    instances = NamedMergeBatchNorm(merges).apply(network)
    try:
        for norm in norms:
            norm.eps = 0.0
        yield
    finally:
        for instance, norm, epsilon in zip(instances, norms, epsilons, strict=True):
            instance.remove()
            norm.eps = epsilon


@contextmanager
def _shared_sums(network: nn.Module) -> Iterator[None]:
    """Sums of two tensors share relevance out by what each contributes (the rule Norm), wherever they are.

    Shortcuts of torchvision's and timm's blocks, and of any other class, are seen as the additions that they are, since
    the network's forward is wrapped; zennit's own canonizers go by names in a few classes, and where these differ
    (timm's BasicBlock), sums double the relevance. Sums with constants or parameters are left alone.
    """
    own, forward = network.__dict__.get("forward"), network.forward

    def run(*args: Any, **kwargs: Any) -> Any:
        with _Additions():
            return forward(*args, **kwargs)

    network.forward = run
    try:
        yield
    finally:
        if own is not None:
            network.forward = own
        else:
            del network.forward


class _Additions(TorchFunctionMode):
    """Replaces additions of two tensors with gradients."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.__name__
        if name in ADDITIONS | IN_PLACE and len(args) == 2 and not kwargs:
            a, b = args
            if all(isinstance(x, Tensor) and x.requires_grad for x in args) and a.shape == b.shape:
                return _Sum.apply(a, b) if name in ADDITIONS else a.copy_(_Sum.apply(a.clone(), b))
        return function(*args, **(kwargs or {}))


class _Sum(torch.autograd.Function):
    """a + b, whose backward pass shares relevance R out as a R / (a + b) and b R / (a + b)."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        return a + b

    @staticmethod
    def backward(ctx: Any, relevance: Tensor) -> tuple[Tensor, Tensor]:
        from zennit.core import stabilize

        a, b = ctx.saved_tensors
        share = relevance / stabilize(a + b)
        return a * share, b * share
