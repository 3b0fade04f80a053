"""The network under study: which layers and units are looked at, recorded, replaced."""

import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from neuronx.errors import UserError, unknown
from neuronx.targets.calling import (
    WRAPPERS,
    Inputs,
    check_weights,
    run,
    run_blank,
    seen_parts,
    to_device_of,
    unwrapped,
)
from neuronx.targets.dictionary import SUFFIX, substituted
from neuronx.targets.encoder import Dictionary
from neuronx.targets.identity import module_digest, prefix_tokens
from neuronx.targets.latents import Latents
from neuronx.targets.layers import (
    LayerRow,
    Layers,
    UnitSpec,
    first_tensor,
    fitting_poolings,
    input_sides,
    layer_names,
    parse_units,
    pooled_layers,
    put,
    swapped,
    unit_axis,
)
from neuronx.targets.preprocess import Preprocess
from neuronx.types import Parts, Unit, dotted

SEE = "show=layers lists them all."
MASKS = ("receptive", "published")
_COUNTING: ContextVar[bool] = ContextVar("counting", default=False)
"""True while calls are counted: the hooks of `record` and `edit` do nothing then."""


class Place(NamedTuple):
    """Where a layer's output comes from.

    Attributes:
        module: The module that puts it out.
        call: Which of its calls in a forward pass, counted from 1; None for the last.
        dictionary: What the output goes through.
    """

    module: nn.Module
    call: int | None = None
    dictionary: Dictionary | None = None


class Recorded(dict[str, Tensor]):
    """Layer -> its output in the latest forward pass; `mlp[1]` and `mlp.1` are one name.

    Attributes:
        calls: Layer -> how often its module has run in that pass.
        sides: Height and width of the pictures that the network received in it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.sides: tuple[int, int] | None = None

    def __missing__(self, layer: str) -> Tensor:
        if dotted(layer) in self:
            return self[dotted(layer)]
        raise UserError(f"Layer `{layer}` has recorded nothing: it was not asked for, or no forward pass reached it.")


@dataclass(frozen=True, eq=False)
class Target:
    """A network under study, in eval mode and without gradients on its parameters.

    Attributes:
        name: Used in tables and file names.
        module: The network; takes (B, C, H, W) in the precision of its weights. What DataParallel or torch.compile
            wraps is taken out.
        transform: From a picture to its input.
        layers: What is asked for: layer -> pooling (avg, max, first, none, patch). Layer "" is the network's output.
            `act#2` is the second call of a module that runs several times in a forward pass, `act` the last.
        class_names: Of its outputs, when it classifies.
        units: What is asked for of each layer: layer -> sorted indices; None for all. Whole layers are recorded anyway.
        digest: Hex identity of weights and architecture, taken when the target is made.
        input_size: Side of its square input, where known.
        dictionary: Directions or a sparse autoencoder's encoder, whose latents are the units of `<layer>.dictionary`.
            Where no such layer is asked for, it stands in for the layer that it reads.
        dictionary_layer: The layer that it reads; the first one asked for by default.
        prefix_tokens: Number of tokens before a transformer's patches; counted from the module by default.
        channels: Where maps and rows keep their units, unless the module tells: `first`, `last`, or `auto` (see
            `unit_axis`).
        masks: How maps are laid over pictures: `receptive`, each position at the centre of its receptive field, or
            `published`, as equal cells.
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
    masks: str = "receptive"
    latents: Latents | None = None
    parts: Mapping[str, Parts] | None = None

    def __post_init__(self) -> None:
        if self.channels not in ("auto", "first", "last"):
            raise UserError(f"channels={self.channels} of {self.name}: write auto, first or last.")
        if self.masks not in MASKS:
            raise unknown("way to lay maps over pictures (masks=)", str(self.masks), MASKS)
        object.__setattr__(self, "module", unwrapped(self.module))
        check_weights(self.module, self.name)
        self.module.eval()
        for weight in self.module.parameters():  # which torch.jit's modules do not do themselves
            weight.requires_grad_(False)
        layers = {self.canonical(layer): how for layer, how in pooled_layers(self.layers, "avg").items()}
        if self.dictionary is not None:
            layers = substituted(layers, self.dictionary_layer and self.canonical(self.dictionary_layer))
        filled = {
            "layers": layers,
            "class_names": tuple(self.class_names),
            "digest": self.digest or module_digest(self.module),
            "input_size": self.input_size or (self.transform.side if isinstance(self.transform, Preprocess) else None),
            "prefix_tokens": prefix_tokens(self.module) if self.prefix_tokens is None else self.prefix_tokens,
        }
        for name, value in filled.items():
            object.__setattr__(self, name, value)
        for layer in layers:
            self.find(layer)

    def select(
        self,
        layers: Layers | None = None,
        pool: str | None = None,
        units: UnitSpec = None,
        seed: int = 0,
        masks: str | None = None,
    ) -> "Target":
        """The same network with other layers, another pooling for all of them, only some of the units, or other masks.

        Args:
            layers: One name, several, or layer -> pooling; the target's own by default.
            pool: For every layer; by default a layer keeps its own, and a new one gets the first layer's.
            units: As `units=` takes them: `0:64`, `[1, 7, 9]`, `random:50` (drawn with `seed`); None for all.
            seed: Of `random`.
            masks: As the attribute; by default it stays.

        Raises:
            UserError: An unknown layer or pooling, or units that a layer does not have.
        """
        wanted = pooled_layers(self.layers if layers is None else layers, "")
        usual = next(iter(self.layers.values()))
        wanted = {layer: pool or how or self.layers.get(layer, usual) for layer, how in wanted.items()}
        chosen = dataclasses.replace(self, layers=wanted, units=None, masks=masks or self.masks)
        if units is None:
            return chosen
        indices = {row.name: parse_units(units, row.units, seed) for row in chosen.layer_table(layers=chosen.layers)}
        return dataclasses.replace(chosen, units=indices)

    def units_of(self, layer: str, total: int) -> list[int]:
        """Indices of the units of a layer that are asked for; all `total` of them where none are named."""
        named = (self.units or {}).get(self.canonical(layer))
        return list(range(total)) if named is None else list(named)

    def asks_for(self, unit: Unit) -> bool:
        """Whether a unit, or the unit that it is a part of, is among those asked for."""
        named = (self.units or {}).get(unit.layer)
        return named is None or unit.index in named

    def canonical(self, layer: str) -> str:
        """The spelling of a layer used in every table: `encoder.mlp[1]` and `module.encoder.mlp.1` are `encoder.mlp.1`.

        `module.` and `_orig_mod.` stand before the names of a network that was wrapped.
        """
        name = dotted(layer)
        while (first := name.partition(".")[0]) in WRAPPERS and first != name and first not in self.module._modules:
            name = name.partition(".")[2]
        return name

    @contextmanager
    def record(
        self,
        layers: Iterable[str],
        through: Callable[[str, Tensor], Tensor] | None = None,
        strict: bool = True,
        encoded: bool = True,
    ) -> Iterator[Recorded]:
        """Fills a dict with the layers' outputs at every forward pass of `module` within the context.

        Outputs come with units in the canonical place: (B, K), tokens (B, T, K), maps (B, K, H, W); of a module that
        runs several times in one pass, the last. They are copies, since later layers may write into the originals.

        Args:
            layers: Names; that of the dictionary too.
            through: Applied to (layer, output) at once instead of copying, such as a pooling; not to return a view. Of
                a module that runs several times it sees every output.
            strict: False leaves out layers that never run or put out nothing that units can be read from.
            encoded: False leaves the outputs of a dictionary's layer as the dictionary reads them.

        Raises:
            UserError: An unknown layer; or, from the forward pass, a layer that never ran or gave complex numbers, or
                class names whose number differs from the outputs'.
        """
        names = [self.canonical(layer) for layer in layers]
        found, handles = Recorded(), []
        take = through or (lambda _, output: output.clone())

        def start(_: nn.Module, args: Any, kwargs: Any) -> None:
            if not _COUNTING.get():
                found.clear()
                found.calls.clear()
                found.sides = input_sides((args, kwargs))

        def finish(_: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            if _COUNTING.get():
                return
            if strict and (silent := [name for name in names if name not in found]):
                raise self._never_runs(silent[0], found.calls[silent[0]], args, kwargs)
            self._check_classes(output)

        try:
            handles.append(self.module.register_forward_pre_hook(start, with_kwargs=True))
            for name in names:
                place = self.find(name) if encoded else self.find(name)._replace(dictionary=None)
                hook = partial(self._listen, found, name, place, take, strict)
                handles.append(place.module.register_forward_hook(hook))
            handles.append(self.module.register_forward_hook(finish, with_kwargs=True))
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
    def edit(self, layer: str, change: Callable[[Tensor], object], call: int | None = None) -> Iterator[None]:
        """Within the context, what a layer puts out is changed before later layers see it.

        Args:
            layer: Name, not of a dictionary. Of a module that runs several times, only the call that is named changes,
                by default the last.
            change: Writes into a copy of the output, units on axis 1: (B, K), tokens (B, K, T), maps (B, K, H, W).
            call: Number of the call, from `call_of`, where it is known; else a first forward pass counts the calls.
        """
        module, named, _ = self.replaceable(layer)
        wanted, done = call or named or (1 if module is self.module else 0), 0
        received: Any = None

        def start(_: nn.Module, args: Any, kwargs: Any) -> None:
            nonlocal wanted, done, received
            if not _COUNTING.get():
                received = args, kwargs
                done, wanted = 0, wanted or self._calls(args, kwargs)[module]

        def apply(_: nn.Module, __: Any, output: Any) -> Any:
            nonlocal done
            if _COUNTING.get():
                return None
            done += 1
            return self.edited(layer, output, change, received) if done == wanted else None

        def finish(_: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            if _COUNTING.get():
                return
            if not 0 < wanted <= done:
                raise self._never_runs(dotted(layer), done, args, kwargs)
            if done > wanted and not named:
                raise UserError(
                    f"The module of layer `{layer}` of {self.name} runs {wanted} times on some images and {done} times "
                    f"on others; name the call, as `{layer}#{wanted}`."
                )

        hooks = [self.module.register_forward_pre_hook(start, with_kwargs=True), module.register_forward_hook(apply)]
        hooks.append(self.module.register_forward_hook(finish, with_kwargs=True))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def find(self, layer: str) -> Place:
        """Where a layer's output comes from; UserError for an unknown layer."""
        name = self.canonical(layer)
        if name in self._dictionaries():
            return self.find(name.removesuffix(SUFFIX))._replace(dictionary=self.dictionary)
        whole, number = re.fullmatch(r"(.*?)(?:#([1-9]\d*))?", name, re.DOTALL).groups()  # type: ignore[union-attr]
        part: nn.Module | None = None
        with suppress(AttributeError, RuntimeError):  # RuntimeError within what torch.jit has compiled
            part = self.module.get_submodule(whole)
        if part is not None and not isinstance(part, torch.jit.ScriptModule):
            return Place(part, int(number) if number else None)
        if len(seen_parts(self.module)) < sum(1 for _ in self.module.modules()):
            raise UserError(
                f"`{layer}` of {self.name} cannot be seen: torch.jit has compiled the network, or that part of it. "
                "Give the network as it was before torch.jit.script or trace, or study its output, layers='[\"\"]'."
            )
        raise unknown(f"layer of {self.name}", layer, [*layer_names(self.module), *self._dictionaries()], SEE)

    def replaceable(self, layer: str) -> Place:
        """The same; UserError also for the layer of a dictionary, which is only read."""
        place = self.find(layer)
        if place.dictionary is not None:
            raise UserError(f"Units of a dictionary (`{dotted(layer)}`) can be recorded, not replaced.")
        return place

    def call_of(self, layer: str, inputs: Inputs) -> int:
        """Which call of its module a layer is, counted from 1, in a forward pass over some inputs."""
        place = self.find(layer)
        args = inputs if isinstance(inputs, tuple) else (inputs,)
        return place.call or max(1, self._calls(args, {})[place.module])

    def edited(
        self, layer: str, output: Any, change: Callable[[Tensor], object], inputs: Any, copy: bool = True
    ) -> Any:
        """An output of a layer with its units changed as in `edit`; the original stays, unless `copy` is False.

        Args:
            layer: Name.
            output: Of the layer.
            change: As in `edit`.
            inputs: What the network received.
            copy: Whether the original stays.
        """
        name = self.canonical(layer)
        old = self._tensor(name, output)
        if old is not first_tensor(output):
            raise UserError(
                f"Units of `{name}` of {self.name} can be recorded, not replaced: it is quantised or sparse."
            )
        new = old.clone() if copy else old
        axis = self._unit_axis(name, old, self.find(layer).module, input_sides(inputs))
        change(new.movedim(axis, 1))
        return swapped(output, old, new) if copy else output

    def layer_table(self, image: Tensor | None = None, layers: Iterable[str] | None = None) -> list[LayerRow]:
        """What the network has, by one forward pass: the rows of `show=layers`, in the order of the module.

        Args:
            image: (B, C, H, W) float32; blank ones of the network's input size by default (224 where unknown, or the
                first usual size that it takes), and latents for a generator.
            layers: Only these; by default all that run and put out a tensor that units can be read from.
        """
        names = ["", *layer_names(self.module), *self._dictionaries()] if layers is None else list(layers)
        shapes: dict[tuple[str, int], tuple[int, ...]] = {}

        def keep(name: str, output: Tensor) -> Tensor:
            if layers is not None or len(output) == images:  # else its first axis does not count the images
                shapes[name, found.calls[name]] = tuple(output.shape[1:])
            return output

        images = 2 if image is None else len(image)  # some networks cannot take a single one
        with self.record(names, keep, strict=layers is not None) as found, torch.inference_mode():
            if image is None:
                self.run_blank(images)
            else:
                run(self.module, to_device_of(self.module, image))
        rows: list[LayerRow] = []
        for name in map(dotted, names):
            own = [(call, shape) for (layer, call), shape in shapes.items() if layer == name]
            if own:
                rows.append(self._row(name, own[-1][1]))
            if layers is None and found.calls[name] > 1 and not name.endswith(SUFFIX):
                rows += [self._row(f"{name}#{call}", shape) for call, shape in own]
        return rows

    def run_blank(self, images: int) -> None:
        """Runs the network on so many blank pictures, or a generator on latents; raises `Fails` if it takes none."""
        if self.latents is not None:
            run(self.module, to_device_of(self.module, self.latents.draw(torch.arange(images), 0)))
        else:
            grey = isinstance(self.transform, Preprocess) and self.transform.grey
            run_blank(self.module, self.name, images, 1 if grey else 3, self.input_size)

    def _row(self, name: str, shape: tuple[int, ...]) -> LayerRow:
        place = self.find(name)
        kind = type(place.dictionary or place.module).__name__
        return LayerRow(name, kind, shape, shape[0] if len(shape) == 3 else shape[-1], fitting_poolings(shape))

    def _calls(self, args: Any, kwargs: Any) -> Counter[nn.Module]:
        """How often each module runs in a forward pass; nothing is recorded or edited meanwhile."""
        calls: Counter[nn.Module] = Counter()
        token = _COUNTING.set(True)
        hooks = [
            part.register_forward_hook(lambda part, *_: calls.update([part])) for _, part in seen_parts(self.module)
        ]
        try:
            with torch.no_grad():
                args, kwargs = tree_map(lambda x: x.clone() if isinstance(x, Tensor) else x, (args, kwargs))
                run(self.module, args, kwargs)
        finally:
            for hook in hooks:
                hook.remove()
            _COUNTING.reset(token)
        return calls

    def _never_runs(self, layer: str, calls: int, args: Any, kwargs: Any) -> UserError:
        if calls:
            return UserError(
                f"There is no `{layer}` in {self.name}: its module runs only {calls} times in a forward pass."
            )
        running = self._calls(args, kwargs)
        names = [name for name, part in seen_parts(self.module) if name and running[part]]
        nearest = str(unknown("layer", layer, names, SEE)).partition("`. ")[2]
        return UserError(f"Layer `{layer}` of {self.name} never runs in the forward pass. {nearest}")

    def _listen(
        self,
        found: Recorded,
        name: str,
        place: Place,
        take: Callable[[str, Tensor], Tensor],
        strict: bool,
        module: nn.Module,
        _: Any,
        output: Any,
    ) -> None:
        """The hook of `record`, bound to one layer."""
        if _COUNTING.get():
            return
        found.calls[name] += 1
        if place.call not in (None, found.calls[name]):
            return
        try:
            tensor = self._tensor(name, output)
            axis = self._unit_axis(name, tensor, module, found.sides)
        except UserError:
            if strict:
                raise
            return
        if tensor.ndim > 2:
            tensor = tensor.movedim(axis, 1 if tensor.ndim == 4 else 2)
        encode = place.dictionary
        found[name] = take(name, tensor if encode is None else encode.to(tensor.device)(tensor))

    def _dictionaries(self) -> list[str]:
        return [] if self.dictionary is None else [layer for layer in self.layers if layer.endswith(SUFFIX)]

    def _tensor(self, layer: str, output: Any) -> Tensor:
        tensor = first_tensor(output)
        if tensor is None:
            raise UserError(f"Layer `{layer}` of {self.name} puts out {type(output).__name__}, not a tensor.")
        if tensor.is_complex():
            raise UserError(
                f"Layer `{layer}` of {self.name} puts out complex numbers, but activations are real: name a layer "
                "before or after it, or add a module that takes the absolute value."
            )
        if tensor.is_nested:
            raise UserError(f"Layer `{layer}` of {self.name} puts out a nested tensor; name another layer.")
        dense = tensor if tensor.layout == torch.strided else tensor.to_dense()
        return dense.dequantize() if dense.is_quantized else dense

    def _check_classes(self, output: Any) -> None:
        logits = first_tensor(output)
        if self.class_names and logits is not None and logits.ndim == 2 and logits.shape[1] != len(self.class_names):
            raise UserError(
                f"{self.name} has {logits.shape[1]} outputs but {len(self.class_names)} class names; "
                "give the names of this network's classes, one for each output, in order."
            )

    def _unit_axis(self, name: str, output: Tensor, part: nn.Module, sides: tuple[int, int] | None) -> int:
        return unit_axis(output, part, name, self.channels, sides, self.module)
