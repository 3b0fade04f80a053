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
from neuronx.targets.calling import seen_parts
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
    """The names of all parts that can be looked at, the network itself ("") left out."""
    return [name for name, _ in seen_parts(module) if name]


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


def unit_axis(
    output: Tensor,
    part: nn.Module,
    layer: str,
    channels: str = "auto",
    sides: tuple[int, int] | None = None,
    network: nn.Module | None = None,
) -> int:
    """The axis of a layer's output that counts its units.

    (B, K): 1. Tokens (B, T, K): 2. Rows of a one-dimensional convolution (B, K, T): 1. Maps: 1 when channels come
    first, (B, K, H, W), 3 when they come last, (B, H, W, K), as in Swin and inside the blocks of ConvNeXt.
    Convolutions, pools and norms put channels first for certain, linear layers last; others are told by their form.

    Args:
        output: Of the layer.
        part: The module that made it.
        layer: Its name, for the error.
        channels: `first` or `last` where the module does not tell; `auto` takes a map for channels-last where only its
            first two sides have the proportions of the network's input.
        sides: Height and width of what the network received, where that was a picture.
        network: With convolutions in one dimension, what its three-dimensional outputs mean is looked up in it.

    Raises:
        UserError: The output has another number of axes, or its axis of units cannot be told.
    """
    if output.ndim == 2:
        return 1
    if output.ndim not in (3, 4):
        raise UserError(
            f"Layer `{layer}` puts out a tensor of shape {tuple(output.shape)}; units can be read from "
            "(images, units), (images, tokens, units) and (images, units, height, width)."
        )
    last = output.ndim - 1
    if (first := _puts_first(part)) is not None:
        return 1 if first else last
    if output.ndim == 3:
        parts = [] if network is None else list(network.modules())
        if not any(isinstance(other, nn.Conv1d | nn.ConvTranspose1d) for other in parts):
            return last
        if channels == "auto":
            return _axis_of_last_known(output, part, layer, parts)
    if channels == "auto":
        return last if sides is not None and _proportions_last(output.shape[1:], sides) else 1
    return 1 if channels == "first" else last


def input_sides(inputs: Any) -> tuple[int, int] | None:
    """Height and width of the pictures that a network received; None where it received something else."""
    received = first_tensor(inputs)
    if received is None or received.ndim != 4:
        return None
    sides = (
        received.shape[1:3] if received.shape[3] in (1, 3) and received.shape[1] not in (1, 3) else received.shape[2:]
    )
    return sides[0], sides[1]


def _proportions_last(shape: Sequence[int], sides: tuple[int, int]) -> bool:
    """Whether the first two of three sides are those of a map, and the last two are not."""
    a, b, c = shape
    if sides[0] == sides[1]:
        return a == b != c
    return _scaled(a, b, sides) and not _scaled(b, c, sides)


def _scaled(height: int, width: int, sides: tuple[int, int]) -> bool:
    """Whether a map is a picture at one scale, each side rounded up or down."""
    shortest, longest = zip(
        *((side / (part + 1), side / max(part - 1, 0.5)) for part, side in zip((height, width), sides, strict=True)),
        strict=True,
    )
    return max(shortest) < min(longest)


_NORMS_AND_POOLS = (
    nn.modules.batchnorm._NormBase,
    nn.GroupNorm,
    nn.modules.pooling._MaxPoolNd,
    nn.modules.pooling._AvgPoolNd,
    nn.modules.pooling._AdaptiveAvgPoolNd,
    nn.modules.pooling._AdaptiveMaxPoolNd,
)


def _puts_first(part: nn.Module) -> bool | None:
    """Whether a module puts channels first (True) or last (False) for certain; None where it does not tell."""
    if isinstance(part, (nn.modules.conv._ConvNd, *_NORMS_AND_POOLS)):
        return True
    if isinstance(part, nn.Linear) or (type(part) is nn.LayerNorm and len(part.normalized_shape) == 1):
        return False
    return None


def _axis_of_last_known(output: Tensor, part: nn.Module, layer: str, parts: Sequence[nn.Module]) -> int:
    """The axis on which an output (B, T, K) or (B, K, T) has the units of the last module before it that tells them."""
    inner = list(part.modules())
    until = max(parts.index(other) for other in inner) + 1
    for before in reversed(parts[:until]):
        names = ("out_channels", "out_features", "num_features", "normalized_shape")
        units = next(
            (getattr(before, name) for name in names if isinstance(getattr(before, name, None), int | tuple)), 0
        )
        first = _puts_first(before)
        if first is None or not units:
            continue
        units = units if isinstance(units, int) else units[-1]
        usual, other = (1, 2) if first else (2, 1)
        for axis in (usual, other):
            if output.shape[axis] == units:
                return axis
        break
    raise UserError(
        f"Layer `{layer}` puts out {tuple(output.shape[1:])} for an image, and which of these are its units cannot be "
        "told; set channels=first or channels=last for this network."
    )


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
