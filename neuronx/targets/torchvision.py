"""Networks of torchvision, with its weights or with yours."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor

from neuronx.errors import UserError, unknown
from neuronx.options import OptionsOf
from neuronx.store.cache import data_root
from neuronx.store.download import fetch
from neuronx.targets.custom import make, target
from neuronx.targets.preprocess import Preprocess
from neuronx.targets.target import Target
from neuronx.targets.weights import environment, fill, hash_in, plain_tensors_only, weights_file


def load(
    model: str,
    weights: str | Path = "DEFAULT",
    transform: str | Mapping[str, Any] | Callable[..., Tensor] | None = None,
    classes: str | Path | Sequence[str] | None = None,
    arguments: Mapping[str, Any] | None = None,
    name: str | None = None,
    **options: Annotated[Any, OptionsOf(target)],
) -> Target:
    """Makes a target of a network of torchvision.

    Args:
        model: Its name, such as `resnet50`.
        weights: One of torchvision's names (`IMAGENET1K_V1`, `DEFAULT`), fetched on first use and checked; a file or
            URL of your own; or `random`.
        transform: As `neuronx.targets.custom.load` takes it; by default the one that the weights were evaluated with,
            and `imagenet` for a file of your own.
        classes: Names of the outputs; by default those that come with the weights.
        arguments: Of the network, such as `{num_classes: 365}`.
        name: In tables; the model's by default.
        options: `layers`, `pool` and the other options of `neuronx.targets.custom.load`.

    Raises:
        UserError: An unknown network, weights that do not exist, cannot be fetched or do not fit, an unknown layer.
    """
    from torchvision.models import get_model_builder, list_models

    if model not in list_models():
        raise unknown("network of torchvision", model, list_models())
    given, published = dict(arguments or {}), _published(model, str(weights))
    if published is not None:
        with _cached(published.url, name or "torchvision"), plain_tensors_only():
            module = make(get_model_builder(model), {"weights": published, **given}, model)
        transform = _transform(published.transforms()) if transform is None else transform
        classes = published.meta.get("categories", ()) if classes is None else classes
    else:
        module = make(get_model_builder(model), {"weights": None, **given}, model)
        if str(weights) != "random":
            fill(module, weights_file(weights, f"or set target.{name or 'torchvision'}.weights=FILE"))
    return target(name or model, module, transform or "imagenet", classes, **options)


def _published(model: str, weights: str) -> Any:
    """The record that torchvision has of the weights, or None for `random` and for a file."""
    from torchvision.models import get_model_weights

    known = get_model_weights(model)
    if weights in known.__members__:
        return known[weights]
    if weights == "random" or "/" in weights or Path(weights).is_file():
        return None
    raise unknown(
        f"weights of {model}", weights, [*known.__members__, "random"], "A file or URL of your own will do too."
    )


def _cached(url: str, key: str) -> AbstractContextManager[None]:
    """Brings the weights to where torchvision looks: torch's own cache if they are there, else the folder of data."""
    file = url.rsplit("/", 1)[-1]
    if (Path(torch.hub.get_dir()) / "checkpoints" / file).is_file():
        return nullcontext()
    home = environment(TORCH_HOME=str(data_root() / "torch"))
    with environment(TORCH_HOME=str(data_root() / "torch")):
        place = Path(torch.hub.get_dir()) / "checkpoints" / file
    fetch(url, place, sha256=hash_in(file), hint=f"or set target.{key}.weights=FILE")
    return home


def _transform(preset: Any) -> Preprocess:
    """A `Preprocess` that does what torchvision's preset for classification does."""
    for field in ("resize_size", "crop_size", "mean", "std", "interpolation"):
        if not hasattr(preset, field):
            raise UserError(f"The transform {type(preset).__name__} is not one for classification; set `transform`.")
    resize, crop = list(preset.resize_size), list(preset.crop_size)
    return Preprocess(
        resize=resize[0] if len(resize) == 1 else (resize[0], resize[1]),
        crop=crop[0] if len(crop) == 1 else (crop[0], crop[1]),
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        interpolation=preset.interpolation.value,
    )
