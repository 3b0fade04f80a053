"""Encoders of dictionaries: a layer's output becomes latents, position by position.

One formula covers every published sparse autoencoder. With x a position's D numbers, W (M, D), and n, a chosen:

    e = W (n(x) - s) + b
    z = relu(e), or e, or [e + gate_bias > 0] * relu(exp(r_mag) * e + mag_bias), or tanh(relu(e))
    z = z * scale
    latents = a(z): all of z, its k largest, or what exceeds a threshold; the others are 0

n is nothing; `layer_norm`, (x - mean) / (std + 1e-5) with the unbiased standard deviation; or `constant_norm_rescale`,
x * sqrt(D) / |x|.
"""

from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor, nn

from neuronx.errors import UserError
from neuronx.targets.identity import module_digest

NORMS = ("none", "layer_norm", "constant_norm_rescale")
RECTIFIERS = ("relu", "none", "tanh-relu")
SLICE = 2**26
"""Latents that are in memory at once, 256 MB, where many positions are pooled."""


class Gate(NamedTuple):
    """The gate of a gated autoencoder, (M,) each.

    Attributes:
        bias: Added to e; a latent is 0 unless the sum exceeds 0.
        log_scale: Of e, for the latent's magnitude.
        magnitude_bias: Added to the magnitude.
    """

    bias: Tensor
    log_scale: Tensor
    magnitude_bias: Tensor


class Dictionary(nn.Module):
    """Turns a layer's output into latents, position by position.

    Args:
        weight: (M, D).
        bias: (M,), or None.
        shift: (D,), subtracted from the normalised input, or None.
        rectify: Whether latents are cut at 0; or a name of `RECTIFIERS`.
        threshold: (M,) or (), latents at or below it are 0; None for none.
        k: How many latents count at each position, the largest; None for all.
        norm: What is done to the input first, of `NORMS`.
        scale: (M,), times the latents before k and threshold; None for 1.
        gate: Of a gated autoencoder.

    Raises:
        UserError: An encoder without latents or inputs.
    """

    weight: Tensor
    bias: Tensor
    threshold: Tensor | None
    scale: Tensor | None
    gate_bias: Tensor | None
    log_scale: Tensor
    magnitude_bias: Tensor

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None = None,
        shift: Tensor | None = None,
        rectify: bool | str = True,
        threshold: Tensor | None = None,
        k: int | None = None,
        norm: str = "none",
        scale: Tensor | None = None,
        gate: Gate | None = None,
    ) -> None:
        super().__init__()
        if not weight.numel():
            raise UserError(f"The dictionary is empty: its encoder has the shape {tuple(weight.shape)}.")
        weight = weight.float().contiguous()
        bias = torch.zeros(len(weight)) if bias is None else bias.float()
        if shift is not None:  # weight (x - shift) + bias = weight x + (bias - weight shift)
            bias = bias - weight @ shift.float()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)
        self.register_buffer("threshold", None if threshold is None else threshold.float())
        self.register_buffer("scale", None if scale is None else scale.float())
        for name, value in zip(("gate_bias", "log_scale", "magnitude_bias"), gate or (None,) * 3, strict=True):
            self.register_buffer(name, None if value is None else value.float())
        self.rectify = ("relu" if rectify else "none") if isinstance(rectify, bool) else rectify
        self.k, self.norm = k, norm

    def forward(self, output: Tensor) -> Tensor:
        """(B, D), (B, T, D) or (B, D, H, W) to the same with M in place of D, in the dictionary's precision.

        Raises:
            UserError: The layer has another number of units than the dictionary.
        """
        axis = self._axis(output)
        return self._encoded(output.movedim(axis, -1)).movedim(-1, axis)

    def pooled(self, output: Tensor, how: str) -> Tensor:
        """The latents at all positions, pooled by `how`, avg or max, without having all of them in memory at once.

        Args:
            output: Tokens (B, T, D) or maps (B, D, H, W).
            how: avg or max.

        Returns:
            (B, M) float32.
        """
        rows = output.movedim(self._axis(output), -1).flatten(1, -2)
        positions = rows.shape[1]
        most = max(1, SLICE // len(self.weight))
        together = max(1, most // positions)
        found = []
        for some in rows.split(together):
            parts = (self._encoded(part).float() for part in some.split(most, 1))
            total = torch.stack([part.amax(1) if how == "max" else part.sum(1) for part in parts])
            found.append(total.amax(0) if how == "max" else total.sum(0) / positions)
        return torch.cat(found)

    def _axis(self, output: Tensor) -> int:
        axis = 1 if output.ndim == 4 else -1
        if output.shape[axis] != self.weight.shape[1]:
            raise UserError(
                f"The dictionary reads {self.weight.shape[1]} units, but its layer has {output.shape[axis]}; "
                "set dictionary_layer to the layer that it was made for."
            )
        return axis

    def _encoded(self, x: Tensor) -> Tensor:
        """(..., D) to (..., M)."""
        x = x.to(self.weight.dtype)
        if self.norm == "layer_norm":
            x = x - x.mean(-1, keepdim=True)
            x = x / (x.std(-1, keepdim=True) + 1e-5)
        elif self.norm == "constant_norm_rescale":
            x = x * (x.shape[-1] ** 0.5 / x.norm(dim=-1, keepdim=True))
        latents = nn.functional.linear(x, self.weight, self.bias)
        if self.gate_bias is not None:
            closed = latents <= -self.gate_bias
            latents = (latents * self.log_scale.exp()).add_(self.magnitude_bias).relu_().masked_fill_(closed, 0.0)
        elif self.rectify != "none":
            latents = latents.relu_()
            latents = latents.tanh_() if self.rectify == "tanh-relu" else latents
        if self.scale is not None:
            latents *= self.scale
        if self.threshold is not None:
            latents.masked_fill_(latents <= self.threshold, 0.0)
        if self.k is not None:
            largest, places = latents.topk(self.k)
            latents = latents.zero_().scatter_(-1, places, largest)
        return latents

    def extra_repr(self) -> str:
        """Shape and kind; part of the identity."""
        return f"{tuple(self.weight.shape)}, rectify={self.rectify}, k={self.k}, norm={self.norm}"

    @cached_property
    def digest(self) -> str:
        """Hex identity."""
        return module_digest(self)
