"""Heat maps: which pixels a unit's activation at its peak comes from, for many pairs of image and unit at once."""

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as TF

from neuronx.data.probe import Probe
from neuronx.errors import UserError
from neuronx.latents import run, to_device_of
from neuronx.recording.maps import on_grid
from neuronx.targets.target import Target

PAIRS = 32
BLUR = 5
"""Side of the Gaussian that smoothes heat, in pixels, as published."""


def heat_maps(target: Target, probe: Probe, layer: str, rows: Tensor, units: Tensor, places: Tensor) -> Tensor:
    """Gradient times pixel of units at their peaks, summed over colours, blurred, and without its sign.

    The publication has relevance by LRP here; gradients need no rules that fit the network, and reach as far.

    Args:
        target: The network.
        probe: The images.
        layer: Of the units.
        rows: (U, m) int64, images of each unit.
        units: (U,) int64.
        places: (U, m) int64, y * w + x of the peak in the layer's grid.

    Returns:
        (U, m, H, W) float32 of the size of the network's input, not below 0.

    Raises:
        UserError: A network that does not take pictures.
    """
    if target.latents is not None:
        raise UserError(f"{target.name} generates pictures, so no pixel drives its units: take crop=mask.")
    order = rows.flatten().argsort(stable=True)
    pairs = torch.stack([rows.flatten(), units.repeat_interleave(rows.shape[1]), places.flatten()], 1)[order]
    found: Tensor | None = None
    for some, own in zip(order.split(PAIRS), pairs.split(PAIRS), strict=True):
        images, at = own[:, 0].unique(return_inverse=True)
        inputs = next(iter(probe.loader(target.transform, images, batch_size=len(images))))[0]
        heat = _heat(target, layer, to_device_of(target.module, inputs)[at], own[:, 1], own[:, 2])
        found = torch.zeros(len(order), *heat.shape[1:]) if found is None else found
        found[some] = heat
    if found is None:
        raise UserError("There are no units to make heat maps of.")
    return found.view(*rows.shape, *found.shape[1:])


def _heat(target: Target, layer: str, inputs: Tensor, units: Tensor, places: Tensor) -> Tensor:
    """Of pairs (P,): inputs (P, 3, H, W) to heat (P, H, W)."""
    with torch.inference_mode(False), torch.enable_grad():
        x = inputs.clone().requires_grad_()
        with target.record([layer], lambda _, output: output.clone()) as seen:
            run(target.module, x.clone())
        grid = on_grid(seen[layer], target.prefix_tokens or 0).flatten(2)
        own = torch.arange(len(x), device=x.device)
        peaks = grid[own, units.to(x.device), places.clamp(min=0).to(x.device)]
        gradient = torch.autograd.grad(peaks.sum(), x)[0]
    heat = (gradient * x.detach()).sum(1, keepdim=True)
    return TF.gaussian_blur(heat, [BLUR, BLUR]).abs()[:, 0].cpu()
