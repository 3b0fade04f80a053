"""open_clip's models, from the hub or from files, with the preprocessing that their tag was trained with."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from neuronx.errors import UserError, unknown
from neuronx.store.download import check_reachable, fetch_from_hub
from neuronx.targets.preprocess import Preprocess


def load(
    model: str, pretrained: str, weights: str | None, tokenizer: str | None
) -> tuple[Any, Callable[[list[str]], Tensor], Callable[..., Tensor]]:
    """The model in eval mode, its tokenizer and its transform; see `encoders.load` for the arguments."""
    import open_clip

    config = open_clip.get_model_config(model)
    if config is None:
        raise unknown("open_clip model", model, open_clip.list_models())
    tag = open_clip.get_pretrained_cfg(model, pretrained) or {}
    words = _tokenizer(model, config["text_cfg"], tokenizer)
    path = _weights(model, pretrained, tag, weights)
    try:
        made = open_clip.create_model(
            model,
            str(path),
            # A file alone would get OpenAI's preprocessing and activation, whatever the tag was trained with.
            force_quick_gelu=bool(tag.get("quick_gelu")),
            force_preprocess_cfg={k: tag[k] for k in ("mean", "std", "interpolation", "resize_mode") if k in tag},
            weights_only=True,
        )
    except Exception as error:  # open_clip, torch and safetensors fail in a dozen ways on a wrong file
        raise UserError(f"The weights {path} do not load into {model}: {str(error).strip().splitlines()[0]}") from error
    return made.eval().requires_grad_(False), words, _transform(made)


def _weights(model: str, pretrained: str, tag: dict[str, Any], weights: str | None) -> Path:
    import open_clip

    given = weights or (None if tag else pretrained)
    if given is not None:
        path = Path(given).expanduser()
        if path.is_file():
            return path
        if weights is None:
            raise unknown(f"tag or file of {model}", pretrained, open_clip.list_pretrained_tags_by_model(model))
        raise UserError(f"There is no weights file {path} (looked for from {Path.cwd()}).")
    hint = f"give the weights' file with clip.weights=FILE (judge.weights=FILE), {model} of tag {pretrained}"
    if not tag.get("hf_hub"):
        check_reachable(tag["url"], hint)
        return Path(open_clip.download_pretrained(tag))
    repository, _, name = tag["hf_hub"].rpartition("/")
    name = name or "open_clip_pytorch_model.bin"
    safe = {"open_clip_pytorch_model.bin": "open_clip_model.safetensors"}
    return fetch_from_hub(repository, [safe.get(name, f"{Path(name).stem}.safetensors"), name], hint)


def _tokenizer(model: str, text: dict[str, Any], folder: str | None) -> Callable[[list[str]], Tensor]:
    """The model's tokenizer; those that come from the hub are looked for on this machine first."""
    import open_clip
    from open_clip.tokenizer import DEFAULT_CONTEXT_LENGTH, HFTokenizer

    source = folder or text.get("hf_tokenizer_name")
    if not source:
        return open_clip.get_tokenizer(model)
    options = {
        "context_length": text.get("context_length", DEFAULT_CONTEXT_LENGTH),
        "tokenizer_mode": text.get("tokenizer_mode"),
        **text.get("tokenizer_kwargs", {}),
    }
    try:
        return HFTokenizer(str(source), **options, local_files_only=True)
    except (OSError, ValueError) as error:
        if folder:
            raise UserError(f"{folder} holds no tokenizer: {str(error).strip().splitlines()[0]}") from error
    from huggingface_hub import constants

    hint = (
        f"give the folder of the tokenizer's files with clip.tokenizer=DIR (judge.tokenizer=DIR), {source} on the hub"
    )
    check_reachable(constants.ENDPOINT, hint)
    try:
        return HFTokenizer(str(source), **options)
    except (OSError, ValueError) as error:
        raise UserError(f"The tokenizer {source} cannot be fetched: {hint}.") from error


def _transform(model: Any) -> Callable[..., Tensor]:
    """open_clip's transform for inference, as a `Preprocess` where that can say the same."""
    from open_clip.transform import PreprocessCfg, image_transform_v2

    how = PreprocessCfg(**model.visual.preprocess_cfg)
    size = (how.size, how.size) if isinstance(how.size, int) else (how.size[0], how.size[1])
    rest = (tuple(how.mean), tuple(how.std), how.interpolation)
    if how.resize_mode == "squash":
        return Preprocess(size, None, *rest)
    if how.resize_mode == "shortest" and size[0] == size[1]:
        return Preprocess(size[0], size, *rest)
    return image_transform_v2(how, is_train=False)
