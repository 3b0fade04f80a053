"""What a layer does at each of its positions, mean over pictures."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from neuronx.data.probe import Probe
from neuronx.errors import Unsuitable
from neuronx.recording.forward_pass import visit_outputs
from neuronx.recording.maps import on_grid
from neuronx.recording.record import identity
from neuronx.store.cache import digest, entry, open_or_draft, packed
from neuronx.store.processes import on_first
from neuronx.types import Target, TrainerFactory


@dataclass(frozen=True)
class MeanMap:
    """Of K units over N pictures.

    Attributes:
        mean: (K, h, w) float64, at each position.
        square: (K,) float64, mean square over positions and pictures.
    """

    mean: Tensor
    square: Tensor

    @property
    def variance(self) -> Tensor:
        """(K,) over positions and pictures."""
        return (self.square - self.mean.mean((1, 2)).square()).clamp(min=0)

    @property
    def by_place(self) -> Tensor:
        """(K,) in [0, 1]: share of the variance that lies between the means of positions; 0 for a constant unit."""
        between = self.mean.flatten(1).var(1, correction=0)
        return torch.where(self.variance > 0, between / self.variance.clamp(min=1e-300), 0).clamp(0, 1)


def mean_maps(target: Target, probe: Probe, trainer: TrainerFactory, rows: Tensor) -> dict[str, MeanMap]:
    """The mean map of every layer of a target over some pictures; from the store where it is there.

    Args:
        target: The network, with its layers.
        probe: The pictures.
        trainer: Makes trainers.
        rows: (N,) of the probe.

    Raises:
        Unsuitable: A layer without positions.
    """
    for layer, pool in target.layers.items():
        if pool == "first":
            raise _nowhere(layer, target)
    runner = trainer()
    more = {"prefix": target.prefix_tokens, "rows": digest(rows.tolist())}
    published, drafts = open_or_draft(
        lambda: {
            layer: entry("mean maps", {**identity(target, layer, probe, runner), **more}) for layer in target.layers
        }
    )
    if drafts:
        sums: dict[str, dict[str, Tensor]] = {layer: {} for layer in drafts}

        def visit(batch: Tensor, outputs: Mapping[str, Tensor]) -> None:
            for layer, own in sums.items():
                maps = _positions(layer, outputs[layer], target)
                for name, total in (("mean", maps.sum(0)), ("square", maps.square().sum(0).mean((1, 2)))):
                    own[name] = own[name] + total if name in own else total

        used = visit_outputs(target, probe, trainer, list(drafts), visit, rows)
        means = {
            layer: {name: used.strategy.reduce(total, reduce_op="sum").cpu() / len(rows) for name, total in own.items()}
            for layer, own in sums.items()
        }
        published |= on_first(lambda: {layer: draft.publish(packed(means[layer])) for layer, draft in drafts.items()})
    return {layer: MeanMap(**published[layer].tensors()) for layer in target.layers}


def _positions(layer: str, output: Tensor, target: Target) -> Tensor:
    """Maps (B, K, h, w) float64. Raises Unsuitable for a layer without positions."""
    if output.ndim == 2:
        raise _nowhere(layer, target)
    return on_grid(output, target.prefix_tokens or 0).double()


def _nowhere(layer: str, target: Target) -> Unsuitable:
    return Unsuitable(
        f"Layer `{layer}` of {target.name} is read where there are no positions (pool={target.layers[layer]}), so its "
        "units fire at no place: take a layer with maps, or tokens with pool=patch."
    )
