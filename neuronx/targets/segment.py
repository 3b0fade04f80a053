"""The segment of a network between two layers, run on its own, with gradients from the upper layer to the lower one.

What lies before the lower layer is run once for each image; what it gives is the image's features. The segment is
then run on features in any combination, one image as often as one likes. What lies after the upper layer never runs.
`lower_layer` finds the layer before another one, where a segment begins by default.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.grad import conv2d_input
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_map, tree_unflatten

from neuronx.errors import UserError
from neuronx.targets.calling import Inputs, run, to_device_of
from neuronx.targets.dictionary import SUFFIX
from neuronx.targets.layers import first_tensor, swapped
from neuronx.targets.replay import Call, Noted, Wrapper, changed, clone, nan, replayed, wrapped
from neuronx.targets.target import Target

INPUTS = "inputs"
"""Stands for the network's inputs among what the segment reads."""


class Segment:
    """Runs a network from one layer to another. First `trace` a batch, then take `features` and `run`, in any order.

    Of a module that runs several times in a forward pass, the call that is named counts (`act#1`); by default the upper
    layer's last call, and the lower layer's last before that.

    Attributes:
        lower: Name of the lower layer.
        layer: Name of the upper layer; a dictionary's too.
        reads: What the segment reads: names of modules, or "inputs". Mostly the lower layer alone; a shortcut around
            it comes in addition.
        shape: Of the lower layer's output for one image, units first: (K,), (K, T) or (K, H, W).
        upper: Of the upper layer's output for one image: (K,), (T, K) or (K, H, W).
        units: Number of units of the upper layer.
    """

    def __init__(self, target: Target, lower: str, layer: str) -> None:
        """Takes two layers; UserError for an unknown one, or a lower one of a dictionary."""
        self.target, self.lower, self.layer = target, target.canonical(lower), target.canonical(layer)
        self.module = target.replaceable(lower).module
        self.runs = 1
        self.call: Call = (self.module, 0)
        self.reads: tuple[str, ...] = ()
        self.shape: tuple[int, ...] = ()
        self.upper: tuple[int, ...] = ()
        self.units = 0
        self._given: dict[Call, Any] = {}
        self._inputs: Inputs
        self._spec: TreeSpec
        self._leaves: list[Any] = []
        self._batched: list[bool] = []
        self._size = 0

    def trace(self, inputs: Inputs) -> None:
        """Finds out from a batch, two images at best, what the segment reads, and tries it.

        Raises:
            UserError: A layer that never runs, a lower layer that does not run before the upper one, or from which
                nothing reaches it, or operations that cannot be differentiated.
        """
        inputs = to_device_of(self.target.module, inputs)
        self._inputs, self._size = inputs, len(_first(inputs))
        output = self._count(inputs)
        self._given = self._note(inputs)
        everything: dict[Any, Any] = {INPUTS: inputs, **self._given}
        others = [key for key in everything if key != self.call]
        # Mostly nothing but the lower layer is read; then this is seen at once.
        if self._reads(output, everything, others):
            self._keep([key for key in everything if key == self.call or self._reads(output, everything, [key])])
        else:
            self._keep([self.call])
        if not self._agrees(output):
            # It goes other ways each time, or its modules fold images into something else: all of it is run.
            self._given = {}
            self._keep([INPUTS])
            if not self._agrees(output):
                raise UserError(
                    f"{self.target.name} gives other outputs each time that it runs; circuits need the same."
                )
        lower, upper = self.run(self.features(inputs))
        self.shape, self.upper = tuple(self.canonical(lower).shape[1:]), tuple(upper.shape[1:])
        self.units = self.upper[1 if len(self.upper) == 2 else 0]
        self.gradient(upper, lower, torch.ones_like(upper))

    def features(self, inputs: Inputs) -> list[Tensor]:
        """What the segment reads of each of some images: tensors with the images on the first axis."""
        with torch.inference_mode(False), torch.no_grad():
            inputs = tree_map(_usual, inputs)
            kept: dict[Any, Any] = {INPUTS: inputs}
            if self._given:
                kept |= self._note(inputs, self._keys)
            leaves = tree_leaves({key: kept[key] for key in self._keys})
        return [leaf for leaf, batched in zip(leaves, self._batched, strict=True) if batched]

    def run(self, features: list[Tensor], at: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Runs the segment on features of some images.

        Args:
            features: Images on the first axis.
            at: (P,) int64, which of them each row is of; each image goes forward once, however many rows it has. By
                default each has one row.

        Returns:
            The lower layer's output, as the network has it, which takes gradients; and the upper layer's, which
            depends on it, units in the canonical place: (B, K), (B, T, K) or (B, K, H, W).
        """
        if at is not None:
            with wrapped(self.target.module, sharing(at)):
                return self.run([part[at] for part in features])
        with torch.inference_mode(False), torch.enable_grad():
            rows, like = iter(map(_usual, features)), features[0]
            leaves = [
                next(rows) if own else tree_map(partial(_moved, like), leaf)
                for leaf, own in zip(self._leaves, self._batched, strict=True)
            ]
            kept = tree_unflatten(leaves, self._spec)
            return self._run(kept, like)

    def canonical(self, lower: Tensor) -> Tensor:
        """What has the form of the lower layer's output, seen with units on axis 1: (B, K), (B, K, T) or maps."""
        seen: list[Tensor] = []
        self.target.edited(self.lower, lower, seen.append, self._inputs, copy=False)
        return seen[0]

    def gradient(self, upper: Tensor, lower: Tensor, weights: Tensor) -> Tensor:
        """Of the sum of weights times `upper` (or a part of it) with respect to `lower`, both from `run`.

        Raises:
            UserError: No path leads from one to the other, or an operation in place overwrites what is needed.
        """
        path = f"`{self.lower}` to `{self.layer}` of {self.target.name}"
        with torch.inference_mode(False), self._differentiable():
            found = None
            if upper.requires_grad:
                found = torch.autograd.grad(upper, lower, weights, allow_unused=True)[0]
        if found is None:
            raise UserError(f"No path leads from layer {path}, so there is no circuit; name another lower layer.")
        return found

    @contextmanager
    def _differentiable(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            if "in-place" not in str(error) and "inplace" not in str(error):
                raise
            raise UserError(
                f"Between `{self.lower}` and `{self.layer}` of {self.target.name} an operation in place overwrites "
                "what gradients need; write it without (inplace=False), or name another lower layer."
            ) from None

    def _count(self, inputs: Inputs) -> Tensor:
        """Runs the whole network, counts how often both layers run and returns the upper one's output."""
        before: list[int] = []  # for each run of the upper layer, how often the lower layer's module has run
        lower = 0

        def look(name: str, output: Tensor) -> Tensor:
            nonlocal lower
            if name == self.layer:
                before.append(lower)
                return output.clone()
            lower = found.calls[self.lower]
            return output.new_empty(0)

        with torch.no_grad(), self.target.record([self.layer, self.lower], look) as found:
            run(self.target.module, inputs)
        if self.lower == self.layer or not before[-1]:
            raise UserError(f"Layer `{self.lower}` of {self.target.name} does not run before `{self.layer}`.")
        self.runs, self.call = len(before), (self.module, before[-1] - 1)
        return found[self.layer]

    def _note(self, inputs: Inputs, only: Collection[Call] | None = None) -> dict[Call, Any]:
        """Runs the network until the lower layer is over; what the calls gave that are over by then."""

        def stop() -> None:
            raise _Reached

        noted = Noted(self.call, only, stop)
        with torch.no_grad(), wrapped(self.target.module, noted), suppress(_Reached):
            run(self.target.module, inputs)
        return noted.given

    def _run(self, kept: dict[Any, Any], like: Tensor) -> tuple[Tensor, Tensor]:
        """Runs the network from what is kept to the upper layer; all else is blank, for as many images as `like`."""
        blank = partial(_blank, self._size, like)
        taken: list[Tensor] = []

        def entered(output: Any) -> Any:
            """The lower layer's output, now with gradients; a copy, since what comes next may write into it."""
            lower = first_tensor(output)
            if lower is None or not lower.is_floating_point():
                raise UserError(f"Layer `{self.lower}` of {self.target.name} puts out nothing that takes gradients.")
            taken.append(lower.detach().clone().requires_grad_())
            return swapped(output, lower, taken[0].clone())

        def give(call: Call) -> Any:
            if call not in kept:
                return tree_map(blank, self._given[call])
            return entered(kept[call]) if call == self.call else tree_map(clone, kept[call])

        gives = {call: partial(give, call) for call in self._given}
        wrapper = replayed(gives) if gives else changed(self.call, entered)
        left = self.runs

        def look(_: str, output: Tensor) -> Tensor:
            nonlocal left
            left -= 1
            if not left:
                raise _Reached(output)
            return output

        with self.target.record([self.layer], look), wrapped(self.target.module, wrapper), self._differentiable():
            try:
                run(self.target.module, kept[INPUTS] if INPUTS in kept else tree_map(blank, self._inputs))
            except _Reached as reached:
                return taken[0], reached.args[0]
        raise UserError(f"Layer `{self.layer}` of {self.target.name} runs on some images and not on others.")

    def _keep(self, keys: list[Any]) -> None:
        """Settles what is kept of each image, and which parts of that have an axis of images."""
        self._keys = keys
        names = {module: name for name, module in self.target.module.named_modules()}
        self.reads = tuple(key if key == INPUTS else names[key[0]] for key in keys)
        everything: dict[Any, Any] = {INPUTS: self._inputs, **self._given}
        self._leaves, self._spec = tree_flatten({key: everything[key] for key in keys})
        longer = tree_map(lambda x: torch.cat([x, x[:1]]), self._inputs)
        more: dict[Any, Any] = {INPUTS: longer}
        more |= self._note(longer) if self._given else {}
        other = tree_leaves({key: more[key] for key in keys})
        self._batched = [isinstance(a, Tensor) and a.shape != b.shape for a, b in zip(self._leaves, other, strict=True)]

    def _reads(self, output: Tensor, everything: dict[Any, Any], keys: list[Any]) -> bool:
        """Whether the segment reads any of the things before it; if not, NaN in their place changes nothing."""
        try:
            kept = everything | {key: tree_map(nan, everything[key]) for key in keys}
            return not _close(self._run(kept, _first(self._inputs))[1], output)
        except Exception:  # whatever a network does with NaN, or with what cannot be NaN, it reads it
            return True

    def _agrees(self, output: Tensor) -> bool:
        """Whether the segment gives what the network gives, for one image more than the batch has."""
        rows = [*range(self._size), 0]
        try:
            features = [feature[rows] for feature in self.features(self._inputs)]
            return _close(self.run(features)[1], output[rows])
        except Exception:  # whatever a network does when its modules are left out
            return False


class _Reached(Exception):
    """The forward pass has come as far as it is needed."""


def _first(inputs: Inputs) -> Tensor:
    return inputs if isinstance(inputs, Tensor) else inputs[0]


def _usual(x: Any) -> Any:
    """A tensor that may take part in gradients: those made in inference mode may not."""
    return x.clone() if isinstance(x, Tensor) and x.is_inference() else x


def _blank(batch: int, like: Tensor, x: Any) -> Any:
    """Something of the shape for as many images as `like`; never read. What has no axis of images stays."""
    if not isinstance(x, Tensor) or not x.ndim or len(x) != batch:
        return _moved(like, x)
    return torch.empty((len(like), *x.shape[1:]), dtype=x.dtype, device=like.device)


def _moved(like: Tensor, x: Any) -> Any:
    return x.to(like.device) if isinstance(x, Tensor) else x


def _close(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape or not torch.equal(a.isfinite(), b.isfinite()):
        return False
    a, b = a.detach()[b.isfinite()], b[b.isfinite()]
    return not len(b) or bool((a - b).abs().max() <= 1e-4 * b.abs().max().clamp(min=1e-6))


def lower_layer(target: Target, layer: str) -> str:
    """The layer whose channels a layer's circuits lead to by default.

    Among the layers that are over before `layer` begins, in this order: the last of those that the target lists
    (`layers=`); the last of its own kind, a module of the same class with the same parent, then with any parent (layer3
    for ResNet's layer4, layer3.1 for its layer4.0, one fire module for the next); the last module with weights that
    lies in no other (layer4 for fc).

    Raises:
        UserError: An unknown layer, one that never runs, or the first one.
    """
    layer = target.canonical(layer)
    names = {module: name for name, module in target.module.named_modules()}
    listed = {target.canonical(name).removesuffix(SUFFIX) for name in target.layers}
    module, call, _ = target.find(layer)
    begun, ended = _order(target, layer, module, call)
    start = begun.get(module, len(names))  # the network itself, "", begins before all and ends after all
    before = sorted((other for other in ended if ended[other] < start), key=lambda other: ended[other])
    kind = [other for other in before if type(other) is type(module)]
    parent = names[module].rpartition(".")[0]
    for candidates in (
        [other for other in before if names[other] in listed],
        [other for other in kind if names[other].rpartition(".")[0] == parent],
        kind,
        _outermost([other for other in before if any(True for _ in other.parameters())], begun, ended),
    ):
        if candidates:
            return names[candidates[-1]]
    raise UserError(
        f"`{layer}` is the first layer of {target.name}: no layer comes before it that a circuit could lead to."
    )


def _order(
    target: Target, layer: str, last: nn.Module, call: int | None
) -> tuple[dict[nn.Module, int], dict[nn.Module, int]]:
    """When each module last begins and ends in a forward pass, up to a call of one, as one running number."""
    begun: dict[nn.Module, int] = {}
    ended: dict[nn.Module, int] = {}

    def wrapper(module: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            if call is not None and moments.count((last, True)) >= call:
                return forward(*args, **kwargs)
            begun[module] = len(moments)
            moments.append((module, True))
            output = forward(*args, **kwargs)
            ended[module] = len(moments)
            moments.append((module, False))
            return output

        return run

    moments: list[tuple[nn.Module, bool]] = []
    with wrapped(target.module, wrapper):
        target.layer_table(layers=[layer])
    return begun, ended


def _outermost(modules: list[nn.Module], begun: dict[nn.Module, int], ended: dict[nn.Module, int]) -> list[nn.Module]:
    """Those that lie in no other of the list, which is sorted by when they end."""
    kept: list[nn.Module] = []
    for module in modules:
        kept = [other for other in kept if begun[other] < begun[module]] + [module]
    return kept


def sharing(at: Tensor) -> Wrapper:
    """For `wrapped`: rows with equal numbers `at` (P,) are taken to be equal, wherever operations take P rows.

    Convolutions and linear layers go forward once for each image. Going back, the gradient of a unit's own map is zero
    in all other channels, so that the first convolution met needs the kernel of one channel only. Values are those of
    the plain operations, to rounding.
    """
    images, back = at.unique(return_inverse=True)
    order = torch.arange(len(at) - 1, -1, -1, device=at.device)
    first = torch.empty_like(images).scatter_(0, back.flip(0), order)  # of equal rows the first is written last

    def wrapper(module: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
        if type(module) is nn.Conv2d and module.padding_mode == "zeros" and not isinstance(module.padding, str):
            operation: Any = _Convolution
        elif type(module) is nn.Linear:
            operation = _Linear
        else:
            return forward

        def run(x: Tensor) -> Tensor:
            if len(x) != len(at) or not x.requires_grad or torch.is_autocast_enabled(x.device.type):
                return forward(x)
            return operation.apply(x, module, forward, first, back)

        return run

    return wrapper if len(images) < len(at) else lambda _, forward: forward


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, module: Any, forward: Any, first: Tensor, back: Tensor) -> Tensor:
        ctx.module, ctx.shape = module, x.shape
        return forward(x[first])[back]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return gradient @ ctx.module.weight, None, None, None, None


class _Convolution(_Linear):
    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        module = ctx.module
        how = {"stride": module.stride, "padding": module.padding, "dilation": module.dilation}
        used = gradient.abs().amax((2, 3)) > 0
        if module.groups > 1 or int(used.sum(1).max()) > 1:
            return conv2d_input(ctx.shape, module.weight, gradient, groups=module.groups, **how), None, None, None, None
        # One channel a row: a depthwise convolution with a group for each row.
        rows, channel = ctx.shape[0], used.int().argmax(1)
        maps = gradient[torch.arange(rows, device=channel.device), channel]
        kernels = module.weight[channel].contiguous()
        spread = conv2d_input((1, rows * ctx.shape[1], *ctx.shape[2:]), kernels, maps[None], groups=rows, **how)
        return spread.view(ctx.shape), None, None, None, None
