"""Layer-wise relevance propagation through a segment of a network: epsilon-plus without a flat layer; see `rules`."""

from collections.abc import Callable

from torch import Tensor

from neuronx.methods.pure.gradient import Gradient, of_units
from neuronx.targets.latents import Inputs
from neuronx.targets.relevance import Rules, find_rules, need_zennit
from neuronx.targets.segment import Segment
from neuronx.types import Plain


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
        need_zennit("rule=lrp")
        self.rules = Rules({}, [])

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
        segment, features = self.segment, self.segment.features(inputs)
        where = f"{segment.target.name} uses between `{segment.lower}` and `{segment.layer}`"
        self.rules = find_rules(segment.target.module, lambda: segment.run(features), where, "rule")

    def maps(self, features: list[Tensor], at: Tensor, units: Tensor, weigh: Callable[[Tensor], Tensor]) -> Tensor:
        """The relevance at the lower layer's positions, for any relevance of a unit's positions to begin with."""
        with self.rules.applied(self.segment.target.module):
            lower, upper = self.segment.run([part[at] for part in features])
            activations = of_units(upper, units)
            relevance = self.segment.gradient(activations, lower, weigh(activations))
        return self.segment.canonical(relevance)
