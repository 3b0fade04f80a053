"""Calling a network: in its own precision, where hooks see its parts, and with its own errors said in one line."""

import inspect
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import FrameType, MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_map

from neuronx.errors import UserError, first_line, line_of

Inputs = Tensor | tuple[Tensor, ...]
"""What a network is called with: one tensor, or several in the order of its arguments."""

SIDES = (224, 32, 28, 64, 96, 128, 256, 299, 384, 512)
"""Sides of the pictures that networks usually take."""

WRAPPERS = ("module", "_orig_mod")
"""What DataParallel and torch.compile call the network that they wrap; their names of layers begin so."""

_HERE = Path(__file__).resolve()
_NEURONX = _HERE.parents[1]


class Fails(UserError):
    """What a network raises when it is called."""


def run(module: nn.Module, inputs: Inputs, named: Mapping[str, Any] = MappingProxyType({})) -> Any:
    """Calls a network with one input or several, cast to the precision of its weights; and with named ones.

    Raises:
        Fails: The network raises something: its message, the layer and the line of its code.
    """
    given = tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,)
    precision = precision_of(module)
    given = tree_map(lambda x: x.to(precision) if isinstance(x, Tensor) and x.is_floating_point() else x, given)
    try:
        with _eager():
            return module(*given, **named)
    except UserError:
        raise
    except Exception as error:
        if _is_ours(error):
            raise
        raise Fails(_failure(module, given, error)) from error


def run_blank(module: nn.Module, name: str, images: int, channels: int = 3, side: int | None = None) -> None:
    """Calls a network with blank pictures.

    Args:
        module: The network.
        name: For the message.
        images: How many.
        channels: Of the pictures, where no convolution tells.
        side: Of the pictures; where that is unknown, the first usual one that the network takes.

    Raises:
        Fails: It takes none of them.
    """
    channels, failure = input_channels(module) or channels, None
    for size in (side,) if side else SIDES:
        try:
            run(module, to_device_of(module, torch.zeros(images, channels, size, size)))
            return
        except Fails as error:
            failure = failure or error
    hint = "" if side else " The size of its pictures is not known: set input_size, or resize in transform."
    raise Fails(f"{name} does not take blank pictures. {failure}{hint}") from failure


def precision_of(module: nn.Module) -> torch.dtype:
    """That of the first parameter in half, bfloat16, single or double precision; float32 where there is none."""
    kinds = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    return next((weight.dtype for weight in module.parameters() if weight.dtype in kinds), torch.float32)


def to_device_of(module: nn.Module, inputs: Inputs) -> Inputs:
    """The inputs where the network is; left alone where it has no parameters."""
    first = next(module.parameters(), None)
    if first is None:
        return inputs
    return tuple(one.to(first.device) for one in inputs) if isinstance(inputs, tuple) else inputs.to(first.device)


def unwrapped(module: nn.Module) -> nn.Module:
    """The network within DataParallel, DistributedDataParallel and torch.compile, through which hooks do not see."""
    while isinstance(module, DataParallel | DistributedDataParallel) or "_orig_mod" in module._modules:
        module = module.get_submodule("_orig_mod" if "_orig_mod" in module._modules else "module")
    return Scripted(module) if isinstance(module, torch.jit.ScriptModule) else module


class Scripted(nn.Module):
    """A network that torch.jit has compiled, which takes no hooks itself: its output can be recorded, no other layer.

    Args:
        network: The compiled one.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: Tensor) -> Any:
        """What the network gives."""
        return self.network(*inputs)


def seen_parts(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """Names and modules of all parts that take hooks, the network itself first: those of torch.jit do not."""
    return [(name, part) for name, part in module.named_modules() if not isinstance(part, torch.jit.ScriptModule)]


def input_channels(module: nn.Module) -> int | None:
    """Channels of the pictures that a network takes: those of its first convolution; None where it has none."""
    first = next((part for part in module.modules() if isinstance(part, nn.Conv2d)), None)
    return first.in_channels or None if first is not None else None


def check_weights(module: nn.Module, name: str) -> None:
    """Raises UserError where layers are lazy and have no weights yet."""
    for part, weight in [*module.named_parameters(), *module.named_buffers()]:
        if is_lazy(weight):
            raise UserError(f"{name}: `{part}` is lazy, without values yet: run one batch through the network first.")


def check_forward(module: nn.Module, name: str, inputs: int = 1) -> None:
    """Raises UserError where a network cannot be called with so many inputs."""
    if type(module).forward is nn.Module.forward and "forward" not in vars(module):
        raise UserError(f"{name} is a {type(module).__name__}, which has no forward: give the network that uses it.")
    try:
        signature = inspect.signature(module.forward)
    except (TypeError, ValueError):  # of compiled code
        return
    try:
        signature.bind(*range(inputs))
    except TypeError:
        named = [one for one in signature.parameters.values() if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]
        needed = ", ".join(one.name for one in named if one.default is one.empty)
        given = "a picture alone" if inputs == 1 else f"{inputs} inputs"
        raise UserError(
            f"The forward of {name} needs {needed or 'nothing'}, but is called with {given}: give a module whose "
            f"forward takes {'the picture' if inputs == 1 else 'these'} and calls the network with all it needs."
        ) from None


def _eager() -> AbstractContextManager[Any]:
    """Within it what torch.compile has compiled runs as it was written, where hooks see its parts."""
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


def _frames(error: BaseException) -> Iterator[FrameType]:
    """The calls that led to an error, the innermost last; that of `run` is left out."""
    trace = error.__traceback__
    while trace is not None:
        if Path(trace.tb_frame.f_code.co_filename) != _HERE:
            yield trace.tb_frame
        trace = trace.tb_next


def _is_ours(error: BaseException) -> bool:
    """Whether an error comes out of a hook or wrapper of neuronx rather than out of the network."""
    ours = False
    for frame in _frames(error):
        if isinstance(frame.f_locals.get("self"), nn.Module) and frame.f_code.co_name == "forward":
            ours = False
        elif _NEURONX in Path(frame.f_code.co_filename).parents:
            ours = True
    return ours


def _failure(module: nn.Module, given: tuple[Any, ...], error: Exception) -> str:
    """What a network raised, at which layer and in which line of its code."""
    names, layer = {part: name for name, part in module.named_modules()}, ""
    for frame in _frames(error):
        part = frame.f_locals.get("self")
        if isinstance(part, nn.Module) and part in names:
            layer = names[part]
    shapes = " and ".join(str(tuple(one.shape)) for one in given if isinstance(one, Tensor))
    where = f"layer `{layer}` of {type(module).__name__}" if layer else type(module).__name__
    said = f"On inputs of shape {shapes}, {where} raises: {first_line(error)}{line_of(error)}."
    channels, pictures = input_channels(module), given[0]
    if not isinstance(pictures, Tensor) or pictures.ndim != 4 or channels in (None, pictures.shape[1]):
        return said
    takes = f"{type(module).__name__} takes pictures of {channels} channels, but is given {pictures.shape[1]}"
    hint = ""
    if pictures.shape[1] == 3 and channels != 1:
        hint = "; other pictures than RGB and grey come from Python, as a float tensor (N, channels, H, W)"
    return f"{takes}{hint}. {said}"
