"""Heat maps: which pixels a unit's activation at its peak comes from, for many pairs of image and unit at once.

By layer-wise relevance propagation, as PURE publishes them (Dreyer et al., CVPR-W 2024): the activation at the peak is
the relevance to begin with, all else of the layer has none, and the composite EpsilonPlusFlat takes it to the pixels.
Or by gradient times pixel, which needs no rules that fit the network.
"""

from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as TF

from neuronx.data.probe import Probe
from neuronx.errors import UserError, unknown
from neuronx.recording.maps import on_grid
from neuronx.targets.calling import run, to_device_of
from neuronx.targets.dictionary import SUFFIX
from neuronx.targets.relevance import Rules, find_rules, need_zennit
from neuronx.targets.target import Target

HEATS = ("auto", "lrp", "gradient")
"""Kinds of heat; `auto` is lrp where zennit is installed and its rules cover the network, gradient elsewhere."""
PAIRS = 32
BLUR = 5
"""Side of the Gaussian that smoothes heat, in pixels, as published."""


def heat_maps(
    target: Target, probe: Probe, layer: str, rows: Tensor, units: Tensor, places: Tensor, heat: str = "auto"
) -> Tensor:
    """Relevance of pixels for units at their peaks, summed over colours, blurred, and without its sign.

    Args:
        target: The network.
        probe: The images.
        layer: Of the units.
        rows: (U, m) int64, images of each unit.
        units: (U,) int64.
        places: (U, m) int64, y * w + x of the peak in the layer's grid.
        heat: `lrp`, `gradient` (times pixel) or `auto`; see `HEATS`.

    Returns:
        (U, m, H, W) float32 of the size of the network's input, not below 0.

    Raises:
        UserError: A network that does not take pictures, or heat that is not finite; as `find_heat` does, too.
    """
    check_heat(heat)
    if target.latents is not None:
        raise UserError(f"{target.name} generates pictures, so no pixel drives its units: take crop=mask.")
    if not rows.numel():
        raise UserError("There are no units to make heat maps of.")
    order = rows.flatten().argsort(stable=True)
    pairs = torch.stack([rows.flatten(), units.repeat_interleave(rows.shape[1]), places.flatten()], 1)[order]
    found: Heat | None = None
    made = []
    for own in pairs.split(PAIRS):
        images, at = own[:, 0].unique(return_inverse=True)
        batch = next(iter(probe.loader(target.transform, images, batch_size=len(images))))
        inputs: Any = to_device_of(target.module, batch[0])
        found = found or find_heat(target, layer, inputs[:1], heat)
        relevance = found(inputs[at], own[:, 1], own[:, 2])
        _check(relevance, target, layer, own)
        made.append(TF.gaussian_blur(relevance[:, None], [BLUR, BLUR]).abs()[:, 0].cpu())
    maps = torch.cat(made)[order.argsort()]
    return maps.view(*rows.shape, *maps.shape[1:])


@dataclass(frozen=True)
class Heat:
    """Makes heat of one layer's units, by rules, or by gradient times pixel where there are none.

    Attributes:
        target: The network.
        layer: Of the units.
        runs: How often it runs in a forward pass; the last time counts.
        rules: From the layer down to the pixels.
    """

    target: Target
    layer: str
    runs: int
    rules: Rules | None = None

    def __call__(self, inputs: Tensor, units: Tensor, places: Tensor) -> Tensor:
        """Of pairs (P,) of an image (P, 3, H, W), a unit and a position in its map: (P, H, W) with signs."""
        applied = self.rules.applied(self.target.module) if self.rules else nullcontext()
        with torch.inference_mode(False), torch.enable_grad(), applied:
            x = inputs.clone().requires_grad_()
            maps = self.maps(x.clone())  # a copy, since the network may write into what it is given
            own = torch.arange(len(x), device=x.device)
            peaks = maps[own, units.to(x.device), places.clamp(min=0).to(x.device)]
            start = peaks.detach() if self.rules else torch.ones_like(peaks)
            gradient = torch.autograd.grad(peaks, x, start)[0]
        return (gradient if self.rules else gradient * x.detach()).sum(1)

    def maps(self, inputs: Tensor) -> Tensor:
        """The layer's output (B, K, positions); what comes after it does not run."""
        left, outputs = self.runs, []

        def stop(_: str, output: Tensor) -> Tensor:
            nonlocal left
            left -= 1
            if not left:
                outputs.append(output.clone())
                raise _Reached
            return output

        with self.target.record([self.layer], stop), suppress(_Reached):
            run(self.target.module, inputs)
        if not outputs:
            raise UserError(f"Layer `{self.layer}` of {self.target.name} runs on some images and not on others.")
        return on_grid(outputs[0], self.target.prefix_tokens or 0).flatten(2)


def find_heat(target: Target, layer: str, inputs: Tensor, heat: str = "auto") -> Heat:
    """Finds out how the network computes a layer: how often it runs, and which rules cover what comes before it.

    Args:
        target: The network.
        layer: Of the units.
        inputs: (B, 3, H, W), an image to try it on.
        heat: See `HEATS`.

    Raises:
        UserError: For `lrp`, a network with operations that the rules do not cover (attention, norms of single images,
            gates), units of a dictionary, or no zennit.
    """
    layer, runs = target.canonical(layer), 0

    def count(_: str, output: Tensor) -> Tensor:
        nonlocal runs
        runs += 1
        return output.clone()

    with torch.no_grad(), target.record([layer], count):
        run(target.module, inputs)
    by_gradient = Heat(target, layer, runs)
    if heat == "gradient":
        return by_gradient
    try:
        need_zennit("heat=lrp")
        if layer.endswith(SUFFIX):
            raise UserError(f"heat=lrp does not cover units of a dictionary (`{layer}`); use heat=gradient.")
        with torch.inference_mode(False), torch.enable_grad():
            x, where = inputs.clone().requires_grad_(), f"{target.name} uses before `{layer}`"
            rules = find_rules(target.module, lambda: by_gradient.maps(x.clone()), where, "heat", flat=True)
        return replace(by_gradient, rules=rules)
    except UserError:
        if heat == "lrp":
            raise
        return by_gradient


def check_heat(heat: str) -> None:
    """UserError for another kind of heat than those of `HEATS`, and for a typed `lrp` without zennit."""
    if heat not in HEATS:
        raise unknown("kind of heat", heat, HEATS)
    if heat == "lrp":
        need_zennit("heat=lrp")


class _Reached(Exception):
    """The forward pass has come as far as it is needed."""


def _check(relevance: Tensor, target: Target, layer: str, pairs: Tensor) -> None:
    odd = (~relevance.isfinite()).flatten(1).any(1).nonzero()
    if len(odd):
        row, unit, _ = pairs[int(odd[0, 0])].tolist()
        raise UserError(
            f"The heat of unit {unit} of `{layer}` on image {row} is NaN or infinite; check the weights and transform "
            f"of {target.name}, or take crop=mask."
        )
