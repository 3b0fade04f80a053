"""Layers: their names, the units wanted in them, and what they put out: the tensor in it, and its axis of units."""

import copy
import dataclasses
import logging
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from neuronx.errors import UserError
from neuronx.types import dotted

log = logging.getLogger(__name__)

Layers = str | Sequence[str] | Mapping[str, str]
"""One layer, several, or layer -> pooling."""

UnitSpec = str | int | Sequence[int] | None
"""`0:64`, `7`, `[1, 7, 9]`, `random:50`, or None for all units."""

POOLINGS = ("avg", "max", "first", "none", "patch")


@dataclass(frozen=True)
class LayerRow:
    """One row of `show=layers`.

    Attributes:
        name: As written in `layers=`.
        kind: Class of the module.
        shape: Of its output for one image, without the batch axis, units in the canonical place.
        units: How many units it has.
        poolings: Those that make sense for it.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    units: int
    poolings: tuple[str, ...]


def layer_names(module: nn.Module) -> list[str]:
    """Every name that `get_submodule` answers to, the network itself ("") left out."""
    return [name for name, _ in module.named_modules() if name]


def pooled_layers(layers: Layers, pool: str) -> dict[str, str]:
    """Canonical layer -> pooling, from any spelling of `layers`.

    Args:
        layers: What was asked for.
        pool: For layers without a pooling of their own; "" leaves it open.

    Raises:
        UserError: A pooling that does not exist, or no layer at all.
    """
    names = [layers] if isinstance(layers, str) else list(layers)
    own = layers if isinstance(layers, Mapping) else {}
    if not names:
        raise UserError("No layer is asked for; name at least one, as layers=layer4 (show=layers lists them).")
    wanted = {dotted(name): own.get(name) or pool for name in names}
    for layer, how in wanted.items():
        if how and how not in POOLINGS:
            raise UserError(f"Layer `{layer}`: there is no pooling `{how}`; there are {', '.join(POOLINGS)}.")
    return wanted


def fitting_poolings(shape: Sequence[int]) -> tuple[str, ...]:
    """The poolings that make sense for an output of this shape, the batch axis left out."""
    if len(shape) == 1:
        return ("none",)
    return ("avg", "max") if len(shape) == 3 else ("avg", "max", "first", "patch")


def parse_units(spec: UnitSpec, count: int, seed: int = 0) -> list[int]:
    """The sorted indices of the units that `units=` asks for, in a layer of `count` units.

    Args:
        spec: `a:b` as Python slices it (`0:64`, `:10`, `-5:`), one index, a list of indices, `random:n` (n distinct
            units, drawn with `seed`), or None for all.
        count: Number of units of the layer.
        seed: Of `random`.

    Raises:
        UserError: Not one of these, an index that the layer does not have, one given twice, or no unit at all.
    """
    wrong = UserError(f"units={spec} is not understood; write 0:64, [1,7,9], or random:50.")
    if spec is None:
        return list(range(count))
    if isinstance(spec, str) and (match := re.fullmatch(r"random:(\d+)", spec)):
        chosen = sorted(random.Random(seed).sample(range(count), min(int(match[1]), count)))
        if int(match[1]) > count:
            log.warning("units=%s: a layer has %d units, and all of them are taken.", spec, count)
    elif isinstance(spec, str) and (match := re.fullmatch(r"(-?\d*):(-?\d*)", spec)):
        first, last = (int(end) if end else None for end in match.groups())
        chosen = list(range(count))[first:last]
        if chosen and max(-(first or 0), last or 0) > count:
            log.warning("units=%s: a layer has %d units; %d to %d are taken.", spec, count, chosen[0], chosen[-1])
    elif isinstance(spec, str) and re.fullmatch(r"\d+(,\d+)*", spec.replace(" ", "").strip("[]")):
        return parse_units([int(part) for part in spec.strip("[] ").split(",")], count)
    elif isinstance(spec, int) and not isinstance(spec, bool):
        return parse_units([spec], count)
    elif isinstance(spec, Sequence) and not isinstance(spec, str):
        if not all(isinstance(index, int) and not isinstance(index, bool) for index in spec):
            raise wrong
        chosen = sorted(spec)
        if outside := [index for index in chosen if not 0 <= index < count]:
            raise UserError(f"units={spec}: there is no unit {outside[0]}; the layer has units 0 to {count - 1}.")
        if len(set(chosen)) < len(chosen):
            raise UserError(f"units={spec}: a unit is named twice.")
    else:
        raise wrong
    if not chosen:
        raise UserError(f"units={spec} leaves no unit of a layer that has {count}.")
    return chosen


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
