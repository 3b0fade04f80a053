"""The closed form of gradient times activation for the direct inputs of a unit's last linear operation.

With h that operation's input, w its kernel, y = w * h its output, A the unit's map and g = dA/dy the slope of what
follows (batch norm, ReLU, an added shortcut): R_j = sum_p max(A(p), 0) g(p) (w_kj * h_j)(p). Nothing is differentiated
for a pair. The circuit is another, shallower one than a stage's.

Where a shortcut is added, the vector has one entry more, the last: R_skip = sum_p max(A(p), 0) s(p), s what it adds.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.grad import conv2d_input

from neuronx.errors import UserError
from neuronx.methods.pure.gradient import position_weights
from neuronx.targets.calling import Inputs, run, to_device_of
from neuronx.targets.replay import wrapped
from neuronx.targets.target import Target
from neuronx.types import Plain

Linear = nn.Linear | nn.Conv2d


@dataclass(frozen=True)
class _Call:
    """A linear operation as it ran.

    Attributes:
        module: The operation.
        given: Its input.
        output: Its output, to which gradients lead.
        handed: The copy of it that the network went on with.
    """

    module: Linear
    given: Tensor
    output: Tensor
    handed: Tensor


class Adjacent:
    """The closed form, for one layer.

    Args:
        target: The network.
        layer: Of the units: a linear operation (Linear, Conv2d), or what ends with one and then only with what acts on
            each position of each unit by itself.
        positions: See `position_weights`.
    """

    def __init__(self, target: Target, layer: str, positions: str) -> None:
        self.target, self.layer, self.positions = target, layer, positions
        self.linear: Linear
        self.shift: Tensor
        self.shortcut = False
        self.width = self.units = 0

    @property
    def lower(self) -> str:
        """Whose inputs the lower channels are."""
        return f"inputs of the last linear operation of {self.layer}"

    @property
    def key(self) -> Plain:
        """What the relevance depends on besides the layers, for keys of the store."""
        return {"rule": "adjacent", "positions": self.positions}

    @property
    def reads(self) -> Plain:
        """What the features of an image are made of, for keys of the store."""
        return "inputs, activations, slopes, shortcut"

    def trace(self, inputs: Inputs) -> None:
        """Finds the operation, in two passes of two images.

        Raises:
            UserError: The layer does not end with one linear operation, or with one that has no closed form here.
        """
        output, calls, _ = self._run(inputs, None)
        self.linear = self._last(output, calls).module
        if isinstance(self.linear, nn.Conv2d) and (
            self.linear.padding_mode != "zeros" or self.linear.padding == "same"
        ):
            raise UserError(
                f"The padding of the last convolution of `{self.layer}` has no closed form; use rule=gradient."
            )
        output, calls, norms = self._run(inputs, self.linear)
        call = next(call for call in reversed(calls) if call.module is self.linear)
        others = [other.output for other in calls if other.module is not self.linear]
        self.units = self.linear.weight.shape[0]
        self.shift = torch.zeros(self.units, 1)
        for norm in (norm for norm, given in norms if given is call.handed):
            self.shift = _shift(norm)[:, None]
        # With gradients cut at the operation, whatever else the layer depends on has come by a shortcut.
        self.shortcut = bool(others) and _any(
            torch.autograd.grad(output.sum(), others, retain_graph=True, allow_unused=True)
        )
        inputs_of_unit = call.given.shape[1 if isinstance(self.linear, nn.Conv2d) else -1]
        self.width = inputs_of_unit + self.shortcut
        if self.shortcut:
            self._check_slopes(*self.features(inputs)[1:3])

    def features(self, inputs: Inputs) -> list[Tensor]:
        """Of some images: the operation's inputs, then activations, slopes and shortcut, (B, K, positions) each."""
        output, calls, _ = self._run(inputs, self.linear, everything=False)
        call = calls[-1]
        slope = torch.autograd.grad(output.sum(), call.output)[0]
        activations, slopes = _canonical(output.detach()), _of(self.linear, slope)
        found = [call.given, activations, slopes]
        if self.shortcut:
            found.append(activations - slopes * _of(self.linear, call.output.detach()) - self.shift.to(slopes))
        return found

    def relevance(self, features: list[Tensor], at: Tensor, units: Tensor) -> Tensor:
        """R (P, C') float32 of pairs: features of B images, and for each pair its image `at` (P,) and its unit (P,).

        The shortcut's entry is last.
        """
        given, (activations, slopes, *shortcut) = features[0][at], (part[at, units] for part in features[1:])
        weights = position_weights(activations, self.positions)
        found = self._through(given, units, weights * slopes)
        if shortcut:
            found = torch.cat([found, (weights * shortcut[0]).sum(1, keepdim=True)], 1)
        return found.float()

    def _through(self, given: Tensor, units: Tensor, weights: Tensor) -> Tensor:
        """Sum over positions p of weights (P, positions) times (w_kj * h_j)(p), for each input j: (P, C')."""
        kernels = self.linear.weight[units]
        if isinstance(self.linear, nn.Linear):
            inputs = _of(self.linear, given)
            return kernels * torch.einsum("njp,np->nj", inputs, weights)
        own = given.shape[1] // self.linear.groups
        first = units // (self.units // self.linear.groups) * own
        channels = first[:, None] + torch.arange(own, device=units.device)
        pairs = torch.arange(len(units), device=units.device)[:, None]
        inputs = given[pairs, channels] if self.linear.groups > 1 else given
        # One group a pair: a depthwise convolution, backwards.
        spread = conv2d_input(
            (1, len(units) * own, *given.shape[2:]),
            kernels,
            weights.view(1, len(units), *_size(self.linear, given)),
            stride=self.linear.stride,
            padding=0 if self.linear.padding == "valid" else self.linear.padding,
            dilation=self.linear.dilation,
            groups=len(units),
        )
        found = (spread.view_as(inputs) * inputs).flatten(2).sum(2)
        if self.linear.groups == 1:
            return found
        return found.new_zeros(len(units), given.shape[1]).scatter_(1, channels, found)

    def _run(
        self, inputs: Inputs, cut: Linear | None, everything: bool = True
    ) -> tuple[Tensor, list[_Call], list[tuple[nn.Module, Any]]]:
        """Runs the network up to the layer: its output, its linear operations as they ran, and inputs of batch norms.

        Args:
            inputs: Of some images.
            cut: An operation beyond which no gradient goes.
            everything: False for the operation that is cut only.
        """
        calls: list[_Call] = []
        norms: list[tuple[nn.Module, Any]] = []

        def wrapper(module: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
            def norm(*args: Any) -> Any:
                norms.append((module, args[0]))
                return forward(*args)

            def linear(given: Tensor) -> Tensor:
                output = forward(given)
                output = output.detach() if module is cut else output
                output = output if output.requires_grad else output.requires_grad_()
                kept = given.detach().clone() if module is cut else given
                calls.append(_Call(module, kept, output, output.clone()))  # type: ignore[arg-type]
                return calls[-1].handed

            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                return norm
            return linear if isinstance(module, Linear) and (everything or module is cut) else forward

        def stop(_: str, output: Tensor) -> Tensor:
            raise _Reached(output)

        network = self.target.module
        with torch.inference_mode(False), torch.enable_grad():
            inputs = to_device_of(network, inputs if isinstance(inputs, tuple) else inputs.clone())
            with self.target.record([self.layer], stop), wrapped(network, wrapper):
                try:
                    run(network, inputs)
                except _Reached as reached:
                    return reached.args[0], calls, norms
        raise UserError(f"Layer `{self.layer}` of {self.target.name} never runs in the forward pass.")

    def _last(self, output: Tensor, calls: list[_Call]) -> _Call:
        """The operation to which every position of every unit is linked by itself; of several, the deepest."""
        activations = _canonical(output)
        same = [call for call in calls if _of(call.module, call.output).shape == activations.shape]
        outputs = [call.output for call in same]
        found = []
        if same and activations.requires_grad:
            noise = torch.rand(activations.shape, generator=torch.Generator().manual_seed(0)).to(activations)
            slopes = torch.autograd.grad(activations.sum(), outputs, retain_graph=True, allow_unused=True)
            mixed = torch.autograd.grad(activations, outputs, noise, retain_graph=True, allow_unused=True)
            for call, slope, under_noise in zip(same, slopes, mixed, strict=True):
                if slope is None:
                    continue
                if torch.allclose(_of(call.module, under_noise), noise * _of(call.module, slope), atol=1e-5):
                    found.append(call)
        if not found:
            raise UserError(
                f"Layer `{self.layer}` of {self.target.name} does not end with one linear operation, so there is no "
                "closed form; use rule=gradient."
            )
        return max(found, key=lambda call: _depth(call, calls))

    def _check_slopes(self, activations: Tensor, slopes: Tensor) -> None:
        steepest = slopes.abs().amax((0, 2), keepdim=True)
        if bool(((activations > 0) & ((slopes.abs() - steepest).abs() > 1e-4 * steepest)).any()):
            raise UserError(
                f"`{self.layer}` bends after its shortcut is added, other than by a ReLU; use rule=gradient."
            )


class _Reached(Exception):
    """The forward pass has come as far as it is needed."""


def _canonical(output: Tensor) -> Tensor:
    """A layer's output (B, K), (B, T, K) or (B, K, H, W) as (B, K, positions)."""
    return output.transpose(1, 2) if output.ndim == 3 else output.flatten(2) if output.ndim == 4 else output[..., None]


def _of(module: Linear, x: Tensor) -> Tensor:
    """Inputs or outputs of an operation as (B, K, positions)."""
    if isinstance(module, nn.Conv2d):
        return x.flatten(2)
    return x.movedim(-1, 1).flatten(2) if x.ndim > 2 else x[..., None]


def _size(convolution: nn.Conv2d, given: Tensor) -> list[int]:
    """Height and width of its output."""
    padding = (0, 0) if isinstance(convolution.padding, str) else convolution.padding
    return [
        (side + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
        for side, pad, dilation, kernel, stride in zip(
            given.shape[2:], padding, convolution.dilation, convolution.kernel_size, convolution.stride, strict=True
        )
    ]


def _shift(norm: Any) -> Tensor:
    """What a batch norm (K,) makes of zero."""
    scale = (norm.running_var + norm.eps).rsqrt() * (1 if norm.weight is None else norm.weight)
    return (0 if norm.bias is None else norm.bias) - norm.running_mean * scale


def _depth(call: _Call, calls: list[_Call]) -> int:
    """How many linear operations an operation's input depends on."""
    outputs = [other.output for other in calls if other is not call]
    if not call.given.requires_grad or not outputs:
        return 0
    found = torch.autograd.grad(call.given.sum(), outputs, retain_graph=True, allow_unused=True)
    return sum(gradient is not None for gradient in found)


def _any(gradients: tuple[Tensor | None, ...]) -> bool:
    return any(gradient is not None for gradient in gradients)
