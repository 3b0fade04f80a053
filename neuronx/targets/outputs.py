"""What a layer puts out: finding the tensor in it, and the axis along which its units lie."""

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from neuronx.errors import UserError


def first_tensor(output: Any) -> Tensor | None:
    """The first tensor in what a module returned: itself, or of a tuple, mapping or dataclass, searched depth first."""
    if isinstance(output, Tensor):
        return output
    for part in _parts(output):
        found = first_tensor(part)
        if found is not None:
            return found
    return None


def swapped(output: Any, old: Tensor, new: Tensor) -> Any:
    """`output` with the tensor `old`, where `first_tensor` found it, replaced by `new`; the original stays."""
    if output is old:
        return new
    if isinstance(output, Mapping):
        result = copy.copy(output)
        for key, value in output.items():
            result[key] = swapped(value, old, new)  # type: ignore[index]
        return result
    if isinstance(output, tuple | list):
        parts = [swapped(part, old, new) for part in output]
        return type(output)(*parts) if hasattr(output, "_fields") else type(output)(parts)
    if dataclasses.is_dataclass(output) and not isinstance(output, type):
        values = {field.name: getattr(output, field.name) for field in dataclasses.fields(output)}
        return dataclasses.replace(output, **{name: swapped(value, old, new) for name, value in values.items()})
    return output


def unit_axis(output: Tensor, module: nn.Module, layer: str, channels: str, square: bool) -> int:
    """The axis of a layer's output that counts its units.

    (B, K): 1. Tokens (B, T, K): 2. Maps: 1 when channels come first, (B, K, H, W), 3 when they come last, (B, H, W, K),
    as in Swin and inside the blocks of ConvNeXt.

    Args:
        output: Of the layer.
        module: That made it; a Linear puts channels last for certain.
        layer: Its name, for the error.
        channels: `first`, `last`, or `auto`, which takes a map for channels-last when its first two sides are equal
            and the third differs.
        square: Whether the network's input is known to be square; `auto` trusts the sides only then.

    Raises:
        UserError: The output has another number of axes.
    """
    if output.ndim in (2, 3):
        return output.ndim - 1
    if output.ndim != 4:
        raise UserError(
            f"Layer `{layer}` puts out a tensor of shape {tuple(output.shape)}; units can be read from "
            "(images, units), (images, tokens, units) and (images, units, height, width)."
        )
    if channels == "auto":
        a, b, c = output.shape[1:]
        last = isinstance(module, nn.Linear) or (square and a == b != c)
    else:
        last = channels == "last"
    return 3 if last else 1


def put(units: Tensor, unit: int, values: Tensor | float, layer: str) -> None:
    """Writes values into one unit of an output, in place.

    Args:
        units: (B, K), tokens (B, K, T) or maps (B, K, H, W).
        unit: Index.
        values: A number, (B,) one for each image, or one for each token (B, T) or place (B, H, W).
        layer: What the error calls it.

    Raises:
        UserError: A unit that the layer does not have, or values that do not fit.
    """
    if not 0 <= unit < units.shape[1]:
        raise UserError(f"Layer {layer} has units 0 to {units.shape[1] - 1}, not {unit}.")
    place = units.select(1, unit)
    given = torch.as_tensor(values, dtype=place.dtype, device=place.device)
    shape = (-1, *[1] * (place.ndim - 1)) if given.ndim == 1 else given.shape
    try:
        place.copy_(given.view(shape).expand_as(place))
    except RuntimeError as error:
        raise UserError(
            f"Values of shape {tuple(given.shape)} do not fit unit {unit} of {layer}, {tuple(place.shape)}."
        ) from error


def _parts(output: Any) -> list[Any]:
    if isinstance(output, Mapping):
        return list(output.values())
    if isinstance(output, tuple | list):
        return list(output)
    if dataclasses.is_dataclass(output) and not isinstance(output, type):
        return [getattr(output, field.name) for field in dataclasses.fields(output)]
    return []
