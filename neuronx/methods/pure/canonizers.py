"""Canonizers for zennit that know no architecture: batch norms merged where they run, sums that share relevance out.

zennit's own and PURE's go by the names and the order of registration in a few classes; where these differ (timm's
BasicBlock), sums double the relevance and nobody is told. Here what runs decides.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from zennit.canonizers import Canonizer, NamedMergeBatchNorm
from zennit.core import stabilize

ADDITIONS = {"add", "__add__", "__radd__"}
IN_PLACE = {"add_", "__iadd__"}


class MergedNorms(NamedMergeBatchNorm):
    """Merges batch norms into the linear operations that they follow, exactly: with an epsilon of 0 afterwards.

    Args:
        name_map: Pairs of names ((linear,), batch norm).
    """

    def register(self, linears: list[nn.Module], batch_norm: nn.Module) -> None:
        """Merges one batch norm."""
        self.epsilon = batch_norm.eps
        super().register(linears, batch_norm)
        batch_norm.eps = 0.0  # type: ignore[assignment]

    def remove(self) -> None:
        """Everything is as it was."""
        super().remove()
        self.batch_norm.eps = self.epsilon


class SharedSums(Canonizer):
    """Sums of two tensors share relevance out by what each contributes (the rule Norm), wherever they are.

    It wraps the network's forward while it is registered: shortcuts of torchvision's and timm's blocks, and of any
    other class, are seen as the additions that they are. Sums with constants or parameters are left alone.
    """

    def apply(self, root_module: nn.Module) -> list[Canonizer]:
        """Registers one copy for the whole network."""
        instance = self.copy()
        instance.register(root_module)
        return [instance]

    def register(self, module: nn.Module) -> None:
        """Wraps the forward."""
        self.module, self.own = module, module.__dict__.get("forward")
        forward: Callable[..., Any] = module.forward

        def run(*args: Any, **kwargs: Any) -> Any:
            with _Additions():
                return forward(*args, **kwargs)

        module.forward = run

    def remove(self) -> None:
        """Unwraps it."""
        if self.own is not None:
            self.module.forward = self.own
        else:
            del self.module.forward


class _Additions(TorchFunctionMode):
    """Replaces additions of two tensors with gradients."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.__name__
        if name in ADDITIONS | IN_PLACE and len(args) == 2 and not kwargs:
            a, b = args
            if all(isinstance(x, Tensor) and x.requires_grad for x in args) and a.shape == b.shape:
                return _Sum.apply(a, b) if name in ADDITIONS else a.copy_(_Sum.apply(a.clone(), b))
        return function(*args, **(kwargs or {}))


class _Sum(torch.autograd.Function):
    """a + b, whose backward pass shares relevance R out as a R / (a + b) and b R / (a + b)."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        return a + b

    @staticmethod
    def backward(ctx: Any, relevance: Tensor) -> tuple[Tensor, Tensor]:
        a, b = ctx.saved_tensors
        share = relevance / stabilize(a + b)
        return a * share, b * share
