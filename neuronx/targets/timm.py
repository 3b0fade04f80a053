"""Networks of timm."""

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from types import ModuleType
from typing import Annotated, Any

from torch import Tensor

from neuronx.errors import UserError, unknown
from neuronx.options import OptionsOf
from neuronx.store.download import fetch_from_hub
from neuronx.store.given_file import given_file
from neuronx.targets.custom import target
from neuronx.targets.preprocess import Preprocess
from neuronx.targets.target import Target
from neuronx.targets.weights import fill, load_weights, plain_tensors_only, weights_file


def library() -> ModuleType:
    """timm, imported without W&B, which only its training script logs to: .6 s of every start."""
    absent = "wandb" not in sys.modules
    if absent:
        sys.modules["wandb"] = None  # type: ignore[assignment]  # an import then fails, as where it is not installed
    try:
        import timm
    finally:
        if absent:
            del sys.modules["wandb"]
    return timm


def load(
    model: str,
    weights: str | Path = "DEFAULT",
    transform: str | Mapping[str, Any] | Callable[..., Tensor] | None = None,
    classes: str | Path | Sequence[str] | None = None,
    arguments: Mapping[str, Any] | None = None,
    name: str | None = None,
    **options: Annotated[Any, OptionsOf(target)],
) -> Target:
    """Makes a target of a network of timm.

    Args:
        model: Its name with the tag of its weights, such as `resnet50.a1_in1k`.
        weights: `DEFAULT` for those of the tag, fetched on first use; a file or URL of your own; or `random`.
        transform: As `neuronx.targets.custom.load` takes it; by default the one that timm gives with the weights.
        classes: Names of the outputs, such as `imagenet`; none by default.
        arguments: Of the network, such as `{num_classes: 10}`.
        name: In tables; the model's by default.
        options: `layers`, `pool` and the other options of `neuronx.targets.custom.load`.

    Raises:
        UserError: An unknown network, weights that cannot be fetched or do not fit, an unknown layer.
    """
    timm = library()
    if not timm.is_model(model):
        raise unknown("network of timm", model, timm.list_models())
    settings: dict[str, Any] = dict(arguments or {})
    if str(weights) in ("random", "DEFAULT"):
        if str(weights) == "DEFAULT":
            file = given_file(_fetched(model, name or "timm"), "weights file")
            settings |= {"pretrained": True, "pretrained_cfg_overlay": {"file": str(file)}}
        module = _made(model, settings, weights, arguments)
    else:
        file = given_file(weights_file(weights), "weights file")
        module = _made(model, settings, weights, arguments)
        try:
            fill(module, file)
        except UserError as error:
            # timm knows the names that some networks had before, and adapts a head or a grid of positions.
            try:
                overlay = {"file": str(file)} if file.suffix == ".npz" else {"state_dict": load_weights(file)}
                module = _made(model, settings | {"pretrained": True, "pretrained_cfg_overlay": overlay}, weights, {})
            except UserError:
                raise error from None
    for given in ("file", "state_dict"):  # where the weights lay is no part of the network's identity
        module.pretrained_cfg.pop(given, None)
    if transform is None:
        transform = _transform(timm.data.resolve_model_data_config(module))
    return target(name or model, module, transform, classes, **options)


def _made(model: str, settings: Mapping[str, Any], weights: str | Path, arguments: Mapping[str, Any] | None) -> Any:
    try:
        with plain_tensors_only():
            return library().create_model(model, **settings)
    except (RuntimeError, OSError, ValueError, TypeError, KeyError, UnpicklingError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"{model} cannot be made with weights={weights}, arguments={dict(arguments or {})}: {reason}"
        ) from error


def _fetched(model: str, key: str) -> Path:
    from timm.models import get_pretrained_cfg

    config = get_pretrained_cfg(model)
    hint = f"set target.{key}.weights=FILE"
    if config is not None and config.hf_hub_id:
        repository = config.hf_hub_id if config.hf_hub_id != "timm/" else f"timm/{model}"
        preferred = config.hf_hub_filename or "model.safetensors"
        return fetch_from_hub(repository, [preferred, "pytorch_model.bin"], hint)
    if config is not None and config.url:
        return weights_file(str(config.url), f"or {hint}")
    raise UserError(
        f"timm has no weights for {model}; name a tag that has (timm.list_pretrained()), or weights=random."
    )


def _transform(config: Mapping[str, Any]) -> Preprocess:
    """As timm evaluates: scale so that the crop is `crop_pct` of the short side, or squash, then crop."""
    side = config["input_size"][-1]
    scaled = math.floor(side / config["crop_pct"])
    squash = config.get("crop_mode") == "squash"
    return Preprocess(
        resize=(scaled, scaled) if squash else scaled,
        crop=side,
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation=config["interpolation"],
    )
