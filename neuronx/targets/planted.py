"""Planted units: sums of a layer's own units, for which is known what they are made of."""

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn

from neuronx.errors import UserError
from neuronx.targets.target import Target

NAME = "planted"


class Planted(nn.Module):
    """A layer that also puts out planted units, of which the network knows nothing.

    Args:
        layer: The layer, which becomes `inner`.
        mixes: (M, K) float32, how much of each of its units a planted unit is made of.
    """

    def __init__(self, layer: nn.Module, mixes: Tensor) -> None:
        super().__init__()
        self.inner = layer
        self.planted = Mix(mixes)

    def forward(self, *args: Tensor) -> Tensor:
        """What the layer puts out; the planted units are seen by who listens to `planted`."""
        output = self.inner(*args)
        self.planted(output)
        return output


class Mix(nn.Module):
    """Sums of rectified units: (B, K), (B, T, K) or (B, K, H, W) to the same with M in place of K."""

    mixes: Tensor

    def __init__(self, mixes: Tensor) -> None:
        super().__init__()
        self.register_buffer("mixes", mixes.float())

    def forward(self, output: Tensor) -> Tensor:
        """Mixes what excites; what a unit is below 0 does not."""
        axis = 1 if output.ndim == 4 else -1
        fires = output.clamp(min=0).movedim(axis, -1)
        return nn.functional.linear(fires, self.mixes.to(fires)).movedim(-1, axis).contiguous()


def planted(target: Target, layer: str, mixes: Tensor) -> Target:
    """A copy of a network with planted units, which are asked for: the units of `<layer>.planted`.

    The network computes what it did, and its own units are those of `<layer>.inner`.

    Args:
        target: The network.
        layer: Whose units are mixed; its maps must have channels first.
        mixes: (M, K) float32; each planted unit is the sum of the layer's rectified units with these weights.

    Raises:
        UserError: An unknown layer, one without a name, or mixes of another number of units.
    """
    layer = target.canonical(layer)
    if not layer:
        raise UserError("Units are planted in a layer with a name; the network's output has none.")
    row = target.layer_table(layers=[layer])[0]
    if mixes.ndim != 2 or mixes.shape[1] != row.units:
        raise UserError(f"Mixes for `{layer}` have shape (M, {row.units}), not {tuple(mixes.shape)}.")
    module = copy.deepcopy(target.module)
    parent, _, name = layer.rpartition(".")
    setattr(module.get_submodule(parent), name, Planted(module.get_submodule(layer), mixes))
    pool = target.layers.get(layer) or row.poolings[0]
    name = f"{target.name}+{NAME}"
    return replace(target, name=name, module=module, layers={f"{layer}.{NAME}": pool}, units=None, digest="")


def sums_of(pairs: Tensor, scale: Tensor) -> Tensor:
    """Mixes (M, K) of two units each, or of one where a pair names the same twice, brought to equal scale.

    Args:
        pairs: (M, 2) int64.
        scale: (K,) by which each unit is divided first, such as its standard deviation.
    """
    mixes = torch.zeros(len(pairs), len(scale))
    mixes.scatter_(1, pairs, 1 / scale[pairs])
    return mixes
