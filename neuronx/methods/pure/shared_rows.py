"""Convolutions and linear layers on batches in which many rows are one image: forward once for each image.

Going back, the gradient of a unit's own map is zero in all other channels, so that the first convolution met needs the
kernel of one channel only. Values are those of the plain operations, to rounding.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.grad import conv2d_input

from neuronx.targets.replay import Wrapper


def sharing(at: Tensor) -> Wrapper:
    """For `wrapped`: rows with equal numbers `at` (P,) are taken to be equal, wherever operations take P rows."""
    images, back = at.unique(return_inverse=True)
    order = torch.arange(len(at) - 1, -1, -1, device=at.device)
    first = torch.empty_like(images).scatter_(0, back.flip(0), order)  # of equal rows the first is written last

    def wrapper(module: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
        if type(module) is nn.Conv2d and module.padding_mode == "zeros" and not isinstance(module.padding, str):
            operation: Any = _Convolution
        elif type(module) is nn.Linear:
            operation = _Linear
        else:
            return forward

        def run(x: Tensor) -> Tensor:
            if len(x) != len(at) or not x.requires_grad or torch.is_autocast_enabled(x.device.type):
                return forward(x)
            return operation.apply(x, module, forward, first, back)

        return run

    return wrapper if len(images) < len(at) else lambda _, forward: forward


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, module: Any, forward: Any, first: Tensor, back: Tensor) -> Tensor:
        ctx.module, ctx.shape = module, x.shape
        return forward(x[first])[back]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return gradient @ ctx.module.weight, None, None, None, None


class _Convolution(_Linear):
    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        module = ctx.module
        how = {"stride": module.stride, "padding": module.padding, "dilation": module.dilation}
        used = gradient.abs().amax((2, 3)) > 0
        if module.groups > 1 or int(used.sum(1).max()) > 1:
            return conv2d_input(ctx.shape, module.weight, gradient, groups=module.groups, **how), None, None, None, None
        # One channel a row: a depthwise convolution with a group for each row.
        rows, channel = ctx.shape[0], used.int().argmax(1)
        maps = gradient[torch.arange(rows, device=channel.device), channel]
        kernels = module.weight[channel].contiguous()
        spread = conv2d_input((1, rows * ctx.shape[1], *ctx.shape[2:]), kernels, maps[None], groups=rows, **how)
        return spread.view(ctx.shape), None, None, None, None
