"""Layer-wise relevance propagation through a segment of a network: zennit's rules, epsilon-plus without a flat layer.

Convolutions: z-plus. Linear layers, and batch norms that follow no linear operation: epsilon (1e-6). Sums and average
pooling: in proportion to what each input contributes. Activations pass relevance on; maximum pooling gives it to the
winner. Relevance is conserved but for what biases absorb. (Bach et al. 2015; Montavon et al. 2019.)
"""

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from neuronx.errors import UserError
from neuronx.latents import Inputs
from neuronx.methods.pure.gradient import Gradient, of_units
from neuronx.targets.outputs import first_tensor
from neuronx.targets.replay import wrapped
from neuronx.targets.segment import Segment
from neuronx.types import Plain

if TYPE_CHECKING:
    from zennit.core import Composite

UNRULED = {
    *("softmax", "sigmoid", "sigmoid_", "hardsigmoid", "tanh", "scaled_dot_product_attention"),
    *("multi_head_attention_forward", "layer_norm", "group_norm", "instance_norm", "rms_norm", "normalize"),
    *("mul", "mul_", "__mul__", "__rmul__", "__imul__", "div", "div_", "__truediv__", "__itruediv__"),
    *("matmul", "__matmul__", "bmm", "baddbmm", "einsum", "sub", "sub_"),
}
"""Operations on what carries relevance that no rule covers: gates, attention, norms of single images."""


class Lrp(Gradient):
    """Relevance from the seed on a unit's map down to the lower layer.

    Args:
        segment: From the lower layer to that of the units.
        seed: See `seeds`.

    Raises:
        UserError: zennit is not installed.
    """

    def __init__(self, segment: Segment, seed: str) -> None:
        super().__init__(segment, seed)
        try:
            import zennit  # noqa: F401
        except ImportError:
            raise UserError("rule=lrp needs zennit, which is not installed: pip install neuronx[pure].") from None
        self.modules: dict[str, nn.Module] = {}
        self.merges: list[tuple[tuple[str], str]] = []

    @property
    def key(self) -> Plain:
        """What the relevance depends on besides the layers, for keys of the store."""
        return {"rule": "lrp: z-plus, epsilon", "seed": self.seed}

    def trace(self, inputs: Inputs) -> None:
        """Looks at two images; see `Segment.trace`.

        Raises:
            UserError: Also for networks with operations that the rules do not cover.
        """
        super().trace(inputs)
        network = self.segment.target.module
        names = {module: name for name, module in network.named_modules()}
        calls: list[tuple[nn.Module, Any, Any]] = []

        def wrapper(module: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
            def run(*args: Any, **kwargs: Any) -> Any:
                output = forward(*args, **kwargs)
                calls.append((module, first_tensor(args), first_tensor(output)))
                return output

            return run

        with wrapped(network, wrapper), _Covered(self.segment):
            self.segment.run(self.segment.features(inputs))
        self.modules = {names[module]: module for module, _, _ in calls}
        self.merges = [((names[a],), names[b]) for a, b in _merges(calls)]

    def maps(self, features: list[Tensor], at: Tensor, units: Tensor, weigh: Callable[[Tensor], Tensor]) -> Tensor:
        """The relevance at the lower layer's positions, for any relevance of a unit's positions to begin with."""
        with self.composite().context(self.segment.target.module):
            lower, upper = self.segment.run([part[at] for part in features])
            activations = of_units(upper, units)
            relevance = self.segment.gradient(activations, lower, weigh(activations))
        return self.segment.canonical(relevance)

    def composite(self) -> "Composite":
        """The composite for the modules of the segment; after `trace`."""
        from zennit.core import Composite
        from zennit.rules import Epsilon, Norm, Pass, ZPlus
        from zennit.types import Activation, AvgPool, BatchNorm, Convolution, Linear

        from neuronx.methods.pure.canonizers import MergedNorms, SharedSums

        merged = {norm for _, norm in self.merges}
        rules = ((Convolution, ZPlus), (Linear, Epsilon), (BatchNorm, Epsilon), (AvgPool, Norm), (Activation, Pass))

        def rule(_: Any, name: str, module: nn.Module) -> Any:
            if name not in self.modules or name in merged:
                return None
            return next((hook() for kind, hook in rules if isinstance(module, kind)), None)

        return Composite(module_map=rule, canonizers=[MergedNorms(self.merges), SharedSums()])


def _merges(calls: list[tuple[nn.Module, Any, Any]]) -> list[tuple[nn.Module, nn.Module]]:
    """Linear operations and the batch norms that take what they give, where both run once."""
    counts = Counter(module for module, _, _ in calls)
    found: list[tuple[nn.Module, nn.Module]] = []
    for norm, given, _ in calls:
        if not isinstance(norm, nn.modules.batchnorm._BatchNorm) or counts[norm] > 1 or norm.weight is None:
            continue
        for module, _, output in calls:
            linear = isinstance(module, nn.Linear | nn.modules.conv._ConvNd)
            if linear and output is given and counts[module] == 1:
                found.append((module, norm))
    return found


class _Covered(TorchFunctionMode):
    """Within it, an operation on what carries relevance that no rule covers is a UserError."""

    def __init__(self, segment: Segment) -> None:
        super().__init__()
        self.segment = segment

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.__name__
        if name in UNRULED and any(isinstance(x, Tensor) and x.requires_grad for x in _flat(args)):
            segment = self.segment
            raise UserError(
                f"rule=lrp does not cover `{name.strip('_')}`, which {segment.target.name} uses between "
                f"`{segment.lower}` and `{segment.layer}`; use rule=gradient."
            )
        return function(*args, **(kwargs or {}))


def _flat(args: Any) -> list[Any]:
    return [x for arg in args for x in (arg if isinstance(arg, tuple | list) else [arg])]
