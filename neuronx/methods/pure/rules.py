"""Which rule of layer-wise relevance propagation goes with which module, from what runs and not from names of classes.

Convolutions: z-plus. Linear layers, and batch norms that follow no linear operation: epsilon (1e-6). Sums and average
pooling: in proportion to what each input contributes. Activations pass relevance on; maximum pooling gives it to the
winner. Relevance is conserved but for what biases absorb. (Bach et al. 2015; Montavon et al. 2019.)
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from neuronx.errors import UserError
from neuronx.targets.layers import first_tensor
from neuronx.targets.replay import wrapped

if TYPE_CHECKING:
    from zennit.core import Composite

UNRULED = {
    *("softmax", "sigmoid", "sigmoid_", "hardsigmoid", "tanh", "scaled_dot_product_attention"),
    *("multi_head_attention_forward", "layer_norm", "group_norm", "instance_norm", "rms_norm", "normalize"),
    *("mul", "mul_", "__mul__", "__rmul__", "__imul__", "div", "div_", "__truediv__", "__itruediv__"),
    *("matmul", "__matmul__", "bmm", "baddbmm", "einsum", "sub", "sub_"),
}
"""Operations on what carries relevance that no rule covers: gates, attention, norms of single images."""


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
        composite = self.composite()
        try:
            composite.register(network)
            yield
        finally:
            composite.remove()

    def composite(self) -> "Composite":
        """The rules as zennit takes them."""
        from zennit.core import Composite
        from zennit.rules import Epsilon, Flat, Norm, Pass, ZPlus
        from zennit.types import Activation, AvgPool, BatchNorm, Convolution, Linear

        from neuronx.methods.pure.canonizers import MergedNorms, SharedSums

        merged = {norm for _, norm in self.merges}
        kinds = ((Convolution, ZPlus), (Linear, Epsilon), (BatchNorm, Epsilon), (AvgPool, Norm), (Activation, Pass))

        def rule(_: Any, name: str, module: nn.Module) -> Any:
            if name not in self.modules or name in merged:
                return None
            if name == self.flat:
                return Flat()
            return next((hook() for kind, hook in kinds if isinstance(module, kind)), None)

        return Composite(module_map=rule, canonizers=[MergedNorms(self.merges), SharedSums()])


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
