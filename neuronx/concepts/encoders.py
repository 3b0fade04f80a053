"""CLIP encoders: open_clip's models by name and tag, or from a file; loaded once a process, shared by all who ask."""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from neuronx.errors import UserError, unknown
from neuronx.progress import progress
from neuronx.store.cache import digest
from neuronx.store.download import check_reachable, fetch_from_hub
from neuronx.store.given_file import given_file
from neuronx.targets.identity import module_digest
from neuronx.targets.preprocess import Preprocess
from neuronx.targets.weights import fill

if TYPE_CHECKING:
    from neuronx.data.probe import Transform
    from neuronx.targets.target import Target


@dataclass(frozen=True)
class Encoder:
    """A loaded CLIP in eval mode without gradients.

    Attributes:
        model: Of open_clip; has `visual` (the image tower) and `encode_text`.
        tokenizer: From texts to token ids (B, L).
        transform: From a picture to the image tower's input.
        identity: Hex digest of the weights, the architecture and the tokenizer.
    """

    model: Any
    tokenizer: Callable[[list[str]], Tensor]
    transform: "Transform"
    identity: str

    @torch.inference_mode()
    def embed(self, texts: list[str], batch_size: int) -> Tensor:
        """Unit text embeddings (C, D) float32, made in batches of `batch_size`, on a GPU where there is one."""
        device = own_device()
        starts = progress(range(0, len(texts), batch_size), "embedding phrases")
        self.model.to(device)
        try:
            tokens = (self.tokenizer(texts[start : start + batch_size]).to(device) for start in starts)
            parts = [self.model.encode_text(batch).float().cpu() for batch in tokens]
        finally:
            self.model.cpu()
        return nn.functional.normalize(torch.cat(parts), dim=-1)

    def image_target(self, name: str) -> "Target":
        """The image tower as a network under study, whose output (layer "") is the unit embedding."""
        from neuronx.targets.target import Target

        return Target(
            name=name,
            module=ImageTower(self.model.visual).eval(),
            transform=self.transform,
            class_names=(),
            layers={"": "none"},
            digest=self.identity,
        )


def own_device() -> torch.device:
    """This process's GPU, or the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())


class ImageTower(nn.Module):
    """Pictures (B, 3, H, W) to unit embeddings (B, D) float32, whatever the precision of the tower."""

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual = visual

    def forward(self, images: Tensor) -> Tensor:
        """Embeds and normalises."""
        embedded = self.visual(images)
        return nn.functional.normalize(embedded.float(), dim=-1)


@lru_cache(maxsize=4)
def load(model: str, pretrained: str, weights: str | None = None, tokenizer: str | None = None) -> Encoder:
    """Loads a CLIP of open_clip.

    Args:
        model: Name in open_clip, such as "ViT-B-16".
        pretrained: open_clip's tag of the weights, such as "openai"; it decides the preprocessing too. Or a file.
        weights: The file of the tag's weights, where there is no network; by default they are fetched once.
        tokenizer: Folder of the tokenizer's files, likewise, for models whose tokenizer is on the hub (SigLIP).

    Raises:
        UserError: If the name, tag or file does not exist or fit, or the hub cannot be reached.
    """
    import open_clip

    config = open_clip.get_model_config(model)
    if config is None:
        raise unknown("open_clip model", model, open_clip.list_models())
    tag = open_clip.get_pretrained_cfg(model, pretrained) or {}
    words = _tokenizer(model, config["text_cfg"], tokenizer)
    path = _file_of(model, pretrained, tag, weights)
    make = partial(
        open_clip.create_model,
        model,
        # A file alone would get OpenAI's preprocessing and activation, whatever the tag was trained with.
        force_quick_gelu=bool(tag.get("quick_gelu")),
        force_preprocess_cfg={k: tag[k] for k in ("mean", "std", "interpolation", "resize_mode") if k in tag},
        weights_only=True,
    )
    try:
        theirs = weights is not None or not tag
        made = (theirs and _trained(make(load_weights=False, pretrained_text=False), path)) or make(str(path))
    except Exception as error:  # open_clip, torch and safetensors fail in a dozen ways on a wrong file
        raise UserError(f"The weights {path} do not load into {model}: {str(error).strip().splitlines()[0]}") from error
    clip = made.eval().requires_grad_(False)
    return Encoder(clip, words, _transform(clip), digest([module_digest(clip), model, _bytes_of(tokenizer)]))


def _trained(model: Any, path: Path) -> Any:
    """The model with weights as open_clip's training or others wrote them; None where open_clip has to convert them."""
    try:
        return fill(model, path)
    except UserError:
        return None


def _bytes_of(folder: str | None) -> list[str]:
    """Digests of the files in a folder of the user's."""
    files = sorted(path for path in Path(folder).expanduser().iterdir() if path.is_file()) if folder else []
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]


OFFLINE = "judge=labels explain=le_label"
"""Needs no CLIP, and so nothing from a hub."""


def _file_of(model: str, pretrained: str, tag: dict[str, Any], weights: str | None) -> Path:
    import open_clip

    given = weights or (None if tag else pretrained)
    if given is not None:
        path = Path(given).expanduser()
        if path.is_file():
            return given_file(path, "weights file")
        if weights is None:
            raise unknown(f"tag or file of {model}", pretrained, open_clip.list_pretrained_tags_by_model(model))
        raise UserError(f"There is no weights file {path} (looked for from {Path.cwd()}).")
    hint = (
        f"give the weights' file with clip.weights=FILE (judge.weights=FILE), {model} of tag {pretrained}, "
        f"or do without CLIPs: {OFFLINE}"
    )
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
        f"give the folder of the tokenizer's files with clip.tokenizer=DIR (judge.tokenizer=DIR), {source} on the hub, "
        f"or do without CLIPs: {OFFLINE}"
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
