"""Image generators as targets: your own, BigGAN-like ones too."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import nn

from neuronx.errors import UserError
from neuronx.options import OptionsOf
from neuronx.targets.calling import Fails, run, to_device_of
from neuronx.targets.custom import called, class_names_of, module_of, target
from neuronx.targets.latents import Latents
from neuronx.targets.target import Target


def load(
    model: str | nn.Module | Callable[..., nn.Module],
    weights: str | Path | None = None,
    latent_dim: int | Sequence[int] | Sequence[Sequence[int]] = 128,
    classes: int | str | Path | Sequence[str] | None = None,
    one_hot: bool = False,
    truncation: float | None = None,
    scale: float = 1.0,
    output_range: tuple[float, float] = (-1.0, 1.0),
    arguments: Mapping[str, Any] | None = None,
    name: str | None = None,
    domain: str = "natural",
    hierarchy: Mapping[str, Sequence[int]] | None = None,
    **options: Annotated[Any, OptionsOf(target)],
) -> Target:
    """Makes a target of an image generator of your own; it is called as `module(z)`, or with classes as `module(z, y)`.

    Args:
        model: As in `neuronx.targets.custom.load`, as are `weights`, `arguments` and `name`.
        weights: Of the module.
        latent_dim: Length of the latent vector; [128, 1, 1] for a tensor of that shape, and [[128], [64, 1, 1]] for
            several, which the module takes in this order, before the class.
        classes: Their number, or their names: `imagenet`, a file with one name a line, or the names; None for none.
        one_hot: The module takes a class as a row of zeros with a single one.
        truncation: Latents beyond plus and minus this are drawn again.
        scale: Factor on the latents.
        output_range: What the module puts out for black and for white.
        arguments: For the callable.
        name: In tables.
        domain: The kind of pictures, "shapes" or "natural", for the judges.
        hierarchy: Superclass -> the classes in it.
        options: `layers`, `pool` and the other options of `neuronx.targets.custom.load`.

    Raises:
        UserError: What cannot be imported or called, weights or latents that do not fit, outputs that are no pictures,
            or a layer that does not exist.
    """
    module = module_of(model, weights, arguments, f"or set target.{name or 'generator'}.weights=FILE")
    names = () if isinstance(classes, int) else class_names_of(classes)
    latents = Latents(
        shapes=_shapes(latent_dim),
        classes=classes if isinstance(classes, int) else len(names),
        one_hot=one_hot,
        truncation=truncation,
        scale=scale,
        output_range=output_range,
        domain=domain,
        class_names=tuple(names),
        hierarchy=hierarchy or {},
    )
    _check(name or called(model), module, latents)
    return target(name or called(model), module, latents, latents=latents, **options)


def _check(name: str, module: nn.Module, latents: Latents) -> None:
    """Makes one picture, to say at once what does not fit."""
    given = latents.draw(torch.zeros(1, dtype=torch.int64), 0)
    try:
        with torch.inference_mode():
            outputs = run(module.eval(), to_device_of(module, given))
    except Fails as error:
        parts = given if isinstance(given, tuple) else (given,)
        raise UserError(
            f"{name} cannot be called with {len(parts)} inputs of shapes {[tuple(one.shape) for one in parts]}; "
            f"set latent_dim, classes and one_hot as it needs them ({str(error).splitlines()[0]})."
        ) from error
    latents.pictures(outputs)


def _shapes(latent_dim: int | Sequence[int] | Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    """`latent_dim` as the shapes of all latent tensors."""
    if isinstance(latent_dim, int):
        return ((latent_dim,),)
    if all(isinstance(side, int) for side in latent_dim):
        return (tuple(latent_dim),)  # type: ignore[arg-type]
    return tuple((shape,) if isinstance(shape, int) else tuple(shape) for shape in latent_dim)
