"""The network under study: which layers and units are looked at, recorded, replaced. The only file that sets hooks."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from neuronx.errors import UserError, unknown
from neuronx.targets.dictionary import SUFFIX, Dictionary, substituted
from neuronx.targets.identity import module_digest, prefix_tokens
from neuronx.targets.latents import Inputs, Latents, run, to_device_of
from neuronx.targets.layers import (
    LayerRow,
    Layers,
    UnitSpec,
    first_tensor,
    fitting_poolings,
    layer_names,
    parse_units,
    pooled_layers,
    put,
    swapped,
    unit_axis,
)
from neuronx.targets.preprocess import Preprocess
from neuronx.types import Parts, dotted

SEE = "show=layers lists them all."


class Recorded(dict[str, Tensor]):
    """Layer -> its output in the latest forward pass; `mlp[1]` and `mlp.1` are one name."""

    def __missing__(self, layer: str) -> Tensor:
        if dotted(layer) in self:
            return self[dotted(layer)]
        raise UserError(f"Layer `{layer}` has recorded nothing: it was not asked for, or no forward pass reached it.")


@dataclass(frozen=True, eq=False)
class Target:
    """A network under study, in eval mode and without gradients on its parameters.

    Attributes:
        name: Used in tables and file names.
        module: The network; takes (B, 3, H, W) float32.
        transform: From a picture to its input.
        layers: What is asked for: layer -> pooling (avg, max, first, none, patch). Layer "" is the network's output.
        class_names: Of its outputs, when it classifies.
        units: What is asked for of each layer: layer -> sorted indices; None for all. Whole layers are recorded anyway.
        digest: Hex identity of weights and architecture, taken when the target is made.
        input_size: Side of its square input, where known.
        dictionary: Directions or a sparse autoencoder's encoder, whose latents are the units of `<layer>.dictionary`.
            Where no such layer is asked for, it stands in for the layer that it reads.
        dictionary_layer: The layer that it reads; the first one asked for by default.
        prefix_tokens: Number of tokens before a transformer's patches; counted from the module by default.
        channels: Where 4-D outputs keep their units: `first`, `last`, or `auto` (see `unit_axis`).
        latents: Of an image generator, whose `transform` they are too; None for a network that takes pictures.
        parts: Layer -> virtual units, recorded after its own; `units` may count them on.
    """

    name: str
    module: nn.Module
    transform: Callable[..., Tensor]
    layers: dict[str, str]
    class_names: tuple[str, ...] = ()
    units: dict[str, list[int]] | None = None
    digest: str = ""
    input_size: int | None = None
    dictionary: Dictionary | None = None
    dictionary_layer: str | None = None
    prefix_tokens: int | None = None
    channels: str = "auto"
    latents: Latents | None = None
    parts: Mapping[str, Parts] | None = None

    def __post_init__(self) -> None:
        if self.channels not in ("auto", "first", "last"):
            raise UserError(f"channels={self.channels} of {self.name}: write auto, first or last.")
        self.module.eval().requires_grad_(False)
        layers = pooled_layers(self.layers, "avg")
        if self.dictionary is not None:
            layers = substituted(layers, self.dictionary_layer)
        filled = {
            "layers": layers,
            "class_names": tuple(self.class_names),
            "digest": self.digest or module_digest(self.module),
            "input_size": self.input_size or _side(self.transform),
            "prefix_tokens": prefix_tokens(self.module) if self.prefix_tokens is None else self.prefix_tokens,
        }
        for name, value in filled.items():
            object.__setattr__(self, name, value)
        for layer in layers:
            self._find(layer)

    def select(
        self, layers: Layers | None = None, pool: str | None = None, units: UnitSpec = None, seed: int = 0
    ) -> "Target":
        """The same network with other layers, another pooling for all of them, or only some of the units.

        Args:
            layers: One name, several, or layer -> pooling; the target's own by default.
            pool: For every layer; by default a layer keeps its own, and a new one gets the first layer's.
            units: As `units=` takes them: `0:64`, `[1, 7, 9]`, `random:50` (drawn with `seed`); None for all.
            seed: Of `random`.

        Raises:
            UserError: An unknown layer or pooling, or units that a layer does not have.
        """
        wanted = pooled_layers(self.layers if layers is None else layers, "")
        usual = next(iter(self.layers.values()))
        wanted = {layer: pool or how or self.layers.get(layer, usual) for layer, how in wanted.items()}
        chosen = dataclasses.replace(self, layers=wanted, units=None)
        if units is None:
            return chosen
        indices = {row.name: parse_units(units, row.units, seed) for row in chosen.layer_table(layers=chosen.layers)}
        return dataclasses.replace(chosen, units=indices)

    def canonical(self, layer: str) -> str:
        """The spelling of a layer used in every table: `encoder.mlp[1]` is `encoder.mlp.1`."""
        return dotted(layer)

    @contextmanager
    def record(
        self, layers: Iterable[str], through: Callable[[str, Tensor], Tensor] | None = None, strict: bool = True
    ) -> Iterator[Recorded]:
        """Fills a dict with the layers' outputs at every forward pass of `module` within the context.

        Outputs come with units in the canonical place: (B, K), tokens (B, T, K), maps (B, K, H, W); of a layer that
        runs several times in one pass, the last. They are copies, since later layers may write into the originals.

        Args:
            layers: Names; that of the dictionary too.
            through: Applied to (layer, output) at once instead of copying, such as a pooling; not to return a view.
            strict: False leaves out layers that never run or put out nothing that units can be read from.

        Raises:
            UserError: An unknown layer; or, from the forward pass, a layer that never ran, or class names whose number
                differs from the outputs'.
        """
        names = [dotted(layer) for layer in layers]
        found, handles = Recorded(), []
        take = through or (lambda _, output: output.clone())

        def finish(_: nn.Module, __: Any, output: Any) -> None:
            if strict and (silent := [name for name in names if name not in found]):
                raise UserError(f"Layer `{silent[0]}` of {self.name} never runs in the forward pass. {SEE}")
            self._check_classes(output)

        try:
            handles.append(self.module.register_forward_pre_hook(lambda *_: found.clear()))
            for name in names:
                module, encode = self._find(name)
                hook = partial(self._listen, found, name, encode, take, strict)
                handles.append(module.register_forward_hook(hook))
            handles.append(self.module.register_forward_hook(finish))
            yield found
        finally:
            for handle in handles:
                handle.remove()

    @contextmanager
    def replace(self, layer: str, unit: int, values: Tensor | float) -> Iterator[None]:
        """Within the context, one unit of a layer takes the given values in every forward pass; no other does.

        Args:
            layer: Name.
            unit: Index.
            values: A number, (B,) one for each image, or one for each token (B, T) or place (B, H, W).

        Raises:
            UserError: An unknown layer, a unit that it does not have, or values that do not fit.
        """
        with self.edit(layer, lambda units: put(units, unit, values, f"`{dotted(layer)}` of {self.name}")):
            yield

    @contextmanager
    def edit(self, layer: str, change: Callable[[Tensor], object]) -> Iterator[None]:
        """Within the context, what a layer puts out is changed before later layers see it.

        Args:
            layer: Name, not of a dictionary.
            change: Writes into a copy of the output, units on axis 1: (B, K), tokens (B, K, T), maps (B, K, H, W).
        """
        module = self.replaceable(layer)
        handle = module.register_forward_hook(lambda _, __, output: self.edited(layer, output, change))
        try:
            yield
        finally:
            handle.remove()

    def replaceable(self, layer: str) -> nn.Module:
        """The module that puts out a layer; UserError for an unknown one, or for a dictionary's, which is only read."""
        module, encode = self._find(layer)
        if encode is not None:
            raise UserError(f"Units of a dictionary (`{dotted(layer)}`) can be recorded, not replaced.")
        return module

    def edited(self, layer: str, output: Any, change: Callable[[Tensor], object], copy: bool = True) -> Any:
        """An output of a layer with its units changed as in `edit`; the original stays, unless `copy` is False."""
        old, name = self._tensor(dotted(layer), output), dotted(layer)
        new = old.clone() if copy else old
        axis = unit_axis(old, self._find(layer)[0], name, self.channels, self._square)
        change(new.movedim(axis, 1))
        return swapped(output, old, new) if copy else output

    def layer_table(self, image: Tensor | None = None, layers: Iterable[str] | None = None) -> list[LayerRow]:
        """What the network has, by one forward pass: the rows of `show=layers`, in the order of the module.

        Args:
            image: (1, 3, H, W) float32; a blank one of the network's input size (224 where unknown) by default, and
                latents for a generator.
            layers: Only these; by default all that run and put out a tensor that units can be read from.
        """
        inputs: Inputs | None = image
        if inputs is None and self.latents is not None:
            inputs = self.latents.draw(torch.zeros(1, dtype=torch.int64), 0)
        elif inputs is None:
            inputs = torch.zeros(1, 3, *[self.input_size or 224] * 2)
        names = ["", *layer_names(self.module), *self._dictionaries()] if layers is None else list(layers)
        with self.record(names, lambda _, output: output, strict=layers is not None) as found, torch.inference_mode():
            run(self.module, to_device_of(self.module, inputs))
        shapes = {name: tuple(found[name].shape[1:]) for name in names if name in found or layers is not None}
        return [
            LayerRow(
                name=name,
                kind=type(self._find(name)[1] or self._find(name)[0]).__name__,
                shape=shape,
                units=shape[0] if len(shape) == 3 else shape[-1],
                poolings=fitting_poolings(shape),
            )
            for name, shape in shapes.items()
        ]

    def _listen(
        self,
        found: Recorded,
        name: str,
        encode: Dictionary | None,
        take: Callable[[str, Tensor], Tensor],
        strict: bool,
        module: nn.Module,
        _: Any,
        output: Any,
    ) -> None:
        """The hook of `record`, bound to one layer."""
        try:
            tensor = self._tensor(name, output)
            axis = unit_axis(tensor, module, name, self.channels, self._square)
        except UserError:
            if strict:
                raise
            return
        if tensor.ndim == 4:
            tensor = tensor.movedim(axis, 1)
        found[name] = take(name, tensor if encode is None else encode.to(tensor.device)(tensor))

    def _find(self, layer: str) -> tuple[nn.Module, Dictionary | None]:
        """The module to listen to, and the dictionary that its output goes through."""
        name = dotted(layer)
        if name in self._dictionaries():
            return self._find(name.removesuffix(SUFFIX))[0], self.dictionary
        try:
            return self.module.get_submodule(name), None
        except AttributeError:
            known = [*layer_names(self.module), *self._dictionaries()]
            raise unknown(f"layer of {self.name}", layer, known, SEE) from None

    def _dictionaries(self) -> list[str]:
        return [] if self.dictionary is None else [layer for layer in self.layers if layer.endswith(SUFFIX)]

    def _tensor(self, layer: str, output: Any) -> Tensor:
        tensor = first_tensor(output)
        if tensor is None:
            raise UserError(f"Layer `{layer}` of {self.name} puts out {type(output).__name__}, not a tensor.")
        return tensor

    def _check_classes(self, output: Any) -> None:
        logits = first_tensor(output)
        if self.class_names and logits is not None and logits.ndim == 2 and logits.shape[1] != len(self.class_names):
            raise UserError(
                f"{self.name} has {logits.shape[1]} outputs but {len(self.class_names)} class names; "
                "give the names of this network's classes, one for each output, in order."
            )

    @property
    def _square(self) -> bool:
        return self.input_size is not None


def _side(transform: Any) -> int | None:
    """The side of the pictures that a transform makes, if they are all squares of one size."""
    if not isinstance(transform, Preprocess):
        return None
    if transform.crop is None:
        return transform.resize[0] if isinstance(transform.resize, tuple) and len(set(transform.resize)) == 1 else None
    sides = {transform.crop} if isinstance(transform.crop, int) else set(transform.crop)
    return sides.pop() if len(sides) == 1 else None
