"""Vision networks of Hugging Face's transformers, from the hub or from a folder."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from torch import Tensor

from neuronx.errors import UserError
from neuronx.options import OptionsOf
from neuronx.store.download import check_reachable
from neuronx.targets.custom import target
from neuronx.targets.preprocess import Preprocess
from neuronx.targets.target import Target


def load(
    model: str | Path,
    transform: str | Mapping[str, Any] | Callable[..., Tensor] | None = None,
    classes: str | Path | Sequence[str] | None = None,
    name: str | None = None,
    **options: Annotated[Any, OptionsOf(target)],
) -> Target:
    """Makes a target of an image classifier or a vision backbone.

    Args:
        model: Name on the hub, such as `google/vit-base-patch16-224`, or a folder with the same files.
        transform: As `neuronx.targets.custom.load` takes it; by default what the model's image processor does.
        classes: Names of the outputs; by default those of the model's configuration.
        name: In tables; by default the last part of `model`.
        options: `layers`, `pool` and the other options of `neuronx.targets.custom.load`.

    Raises:
        UserError: No such model or folder, no connection, an image processor that does more than scale, crop and
            normalise, or an unknown layer.
    """
    from transformers import AutoImageProcessor

    module = _pictured(_pretrained(_maker(str(model)), str(model)), str(model))
    if transform is None:
        transform = _transform(_pretrained(AutoImageProcessor, str(model)).to_dict())
    classes = _class_names(module.config) if classes is None else classes
    return target(name or Path(str(model)).name, module, transform, classes, **options)


def _pictured(module: Any, model: str) -> Any:
    """The part of a model that takes pictures: of CLIP and its like, the vision tower.

    Raises:
        UserError: A model of something else.
    """
    tower = module if module.main_input_name == "pixel_values" else getattr(module, "vision_model", None)
    if tower is None:
        raise UserError(f"{model} ({type(module).__name__}) takes {module.main_input_name}, not pictures.")
    return tower


def _maker(model: str) -> Any:
    """The class for the model's kind: a classifier where its configuration names one, else the bare backbone."""
    from transformers import AutoConfig, AutoModel, AutoModelForImageClassification

    kinds = _pretrained(AutoConfig, model).architectures or []
    return AutoModelForImageClassification if any("ImageClassification" in kind for kind in kinds) else AutoModel


def _pretrained(maker: Any, model: str) -> Any:
    """From this machine if all is here, else from the hub if that answers within seconds."""
    from huggingface_hub import constants

    try:
        return maker.from_pretrained(model, local_files_only=True)
    except (OSError, ValueError) as error:
        if Path(model).is_dir():
            raise UserError(f"{model} cannot be loaded: {str(error).strip().splitlines()[0]}") from error
    check_reachable(constants.ENDPOINT, f"set target.transformers.model to a folder with the files of {model}")
    try:
        return maker.from_pretrained(model)
    except (OSError, ValueError) as error:
        raise UserError(f"{model} cannot be fetched: {str(error).strip().splitlines()[0]}") from error


def _class_names(config: Any) -> tuple[str, ...]:
    labels = {int(index): str(label) for index, label in (getattr(config, "id2label", None) or {}).items()}
    names = [label for _, label in sorted(labels.items())]
    # LABEL_0, LABEL_1 stand for names that nobody gave.
    return () if all(name.startswith("LABEL_") for name in names) else tuple(names)


def _transform(processor: Mapping[str, Any]) -> Preprocess:
    """A `Preprocess` that does what an image processor's settings say."""
    size, crop = processor.get("size") or {}, processor.get("crop_size") or {}
    resize: int | tuple[int, int] | None = None
    if processor.get("do_resize", True):
        if "shortest_edge" in size:
            resize = int(size["shortest_edge"])
        elif "height" in size:
            resize = (int(size["height"]), int(size["width"]))
        else:
            raise UserError(f"The image processor's size {dict(size)} is not understood; set `transform`.")
    side = (int(crop["height"]), int(crop["width"])) if processor.get("do_center_crop") and crop else None
    # ConvNeXt: below 384 pixels the crop to `shortest_edge` is `crop_pct` of the scaled picture; above it is squashed.
    if processor.get("crop_pct") and isinstance(resize, int):
        side = (resize, resize)
        resize = int(resize / processor["crop_pct"]) if resize < 384 else side
    normalise = processor.get("do_normalize", True)
    scale = processor.get("rescale_factor", 1 / 255) if processor.get("do_rescale", True) else 1.0
    if abs(scale * 255 - 1) > 1e-6:
        raise UserError(f"The image processor scales by {scale}, not by 1/255; set `transform`.")
    return Preprocess(
        resize=resize,
        crop=side,
        mean=tuple(processor["image_mean"]) if normalise else None,
        std=tuple(processor["image_std"]) if normalise else None,
        interpolation={0: "nearest", 2: "bilinear", 3: "bicubic"}[int(processor.get("resample", 2))],
    )
