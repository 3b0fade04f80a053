"""The relevance of lower channels by gradients through a segment of the network, for many pairs of image and unit.

`Gradient` is gradient times activation, as PURE publishes it (Dreyer et al., CVPR-W 2024).

With A the map of a unit and x the lower layer's output: G_j(q) = sum_p max(A(p), 0) dA(p)/dx_j(q), and the relevance of
channel j is R_j = sum_q x_j(q) G_j(q). A position counts with the square of its activation. `Lrp` is layer-wise
relevance propagation by epsilon-plus, without a flat layer; see `targets.relevance`.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from neuronx.targets.calling import Inputs
from neuronx.targets.relevance import Rules, find_rules, need_zennit
from neuronx.targets.segment import Segment
from neuronx.types import Plain

POSITIONS = ("activation", "peak", "one", "first")


class Gradient:
    """Gradient times activation through one segment of a network.

    Args:
        segment: From the lower layer to that of the units.
        positions: See `position_weights`.
    """

    def __init__(self, segment: Segment, positions: str) -> None:
        self.segment, self.positions = segment, positions

    @property
    def lower(self) -> str:
        """The lower layer."""
        return self.segment.lower

    @property
    def key(self) -> Plain:
        """What the relevance depends on besides the layers, for keys of the store."""
        return {"rule": "gradient", "positions": self.positions}

    @property
    def reads(self) -> Plain:
        """What the features of an image are made of, for keys of the store."""
        return list(self.segment.reads)

    @property
    def width(self) -> int:
        """Number of lower channels."""
        return self.segment.shape[0]

    @property
    def units(self) -> int:
        """Number of units."""
        return self.segment.units

    def trace(self, inputs: Inputs) -> None:
        """Runs two images; see `Segment.trace`."""
        self.segment.trace(inputs)

    def features(self, inputs: Inputs) -> list[Tensor]:
        """What is kept of some images."""
        return self.segment.features(inputs)

    def relevance(self, features: list[Tensor], at: Tensor, units: Tensor) -> Tensor:
        """R (P, C') float32 of pairs: features of B images, and for each pair its image `at` (P,) and its unit (P,)."""
        return summed(self.maps(features, at, units, partial(position_weights, positions=self.positions)))

    def maps(self, features: list[Tensor], at: Tensor, units: Tensor, weigh: Callable[[Tensor], Tensor]) -> Tensor:
        """The same before the sum, (P, C'), (P, C', T) or (P, C', H, W), for any weights of a unit's positions."""
        lower, upper = self.segment.run(features, at)
        activations = of_units(upper, units)
        gradient = self.segment.gradient(activations, lower, weigh(activations))
        return self.segment.canonical(gradient * lower.detach())


class Lrp(Gradient):
    """Relevance from the positions of a unit's map down to the lower layer.

    Args:
        segment: From the lower layer to that of the units.
        positions: See `position_weights`.

    Raises:
        UserError: zennit is not installed.
    """

    def __init__(self, segment: Segment, positions: str) -> None:
        super().__init__(segment, positions)
        need_zennit("rule=lrp")
        self.rules = Rules({}, [])

    @property
    def key(self) -> Plain:
        """What the relevance depends on besides the layers, for keys of the store."""
        return {"rule": "lrp: z-plus, epsilon", "positions": self.positions}

    def trace(self, inputs: Inputs) -> None:
        """Runs two images; see `Segment.trace`.

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


def of_units(upper: Tensor, units: Tensor) -> Tensor:
    """The activations (P, positions) of one unit (P,) each, from (P, K), (P, T, K) or (P, K, H, W)."""
    pairs = torch.arange(len(units), device=upper.device)
    if upper.ndim == 3:
        return upper[pairs, :, units]
    return upper[pairs, units].flatten(1) if upper.ndim == 4 else upper[pairs, units][:, None]


def position_weights(activations: Tensor, positions: str) -> Tensor:
    """How much each position counts (P, positions), without gradients; 0 where the unit does not fire.

    Args:
        activations: (P, positions).
        positions: `activation`: its own activation, as published. `peak`: the same at the first largest only. `one`:
            all positions where it fires alike. `first`: its own activation at the first only, the class token's.
    """
    firing = activations.detach().clamp(min=0)
    if positions == "one":
        return (firing > 0).to(firing)
    if positions == "peak":
        peak = torch.zeros_like(firing).scatter_(1, firing.argmax(1, keepdim=True), 1)
        return firing * peak
    if positions == "first":
        return firing * (torch.arange(firing.shape[1], device=firing.device) == 0)
    return firing


def summed(relevance: Tensor) -> Tensor:
    """Relevance (P, C', ...) summed over positions: (P, C') float32."""
    return relevance.float().flatten(2).sum(2) if relevance.ndim > 2 else relevance.float()
