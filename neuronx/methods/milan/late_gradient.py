"""Weights that are used at every step, with a gradient taken once for all steps.

A recurrent layer y_t = x_t W' + b_t has the gradient sum over t of dy_t' x_t for W. Autograd adds T products of a small
batch, each as large as W itself; here it is one product of all steps, which costs a fraction where W is large.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def late_gradient(base: Tensor, weight: Tensor, inputs: list[Tensor]) -> Tensor:
    """Returns `base`, through which `weight` gets the gradient that T steps owe it.

    The steps use `base[t]` as their constant and the detached weight: y_t = addmm(base[t], x_t, weight.detach().T), and
    append each detached x_t to `inputs`, in order.

    Args:
        base: (T, B, out), whatever is added to the products; it needs a gradient, as a bias does.
        weight: (out, in).
        inputs: Empty yet; T tensors (B, in) by the time of the backward pass.
    """
    return _LateGradient.apply(base, weight, inputs)


class _LateGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, base: Tensor, weight: Tensor, inputs: list[Tensor]) -> Tensor:
        ctx.inputs, ctx.dtype = inputs, weight.dtype
        return base.view_as(base)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        inputs = torch.cat(ctx.inputs).to(ctx.dtype)
        return grad, grad.flatten(0, 1).to(ctx.dtype).T @ inputs, None
