"""CLIP encoders: open_clip models by name and tag, or from a file; loaded once a process, shared by all who ask."""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from neuronx.store.cache import digest
from neuronx.targets.identity import module_digest

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
        device = _device()
        starts = tqdm(range(0, len(texts), batch_size), "phrases", disable=None if len(texts) > batch_size else True)
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


def _device() -> torch.device:
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
    from neuronx.concepts import open_clip_models

    clip, words, transform = open_clip_models.load(model, pretrained, weights, tokenizer)
    return Encoder(clip, words, transform, digest([module_digest(clip), model, _bytes_of(tokenizer)]))


def _bytes_of(folder: str | None) -> list[str]:
    """Digests of the files in a folder of the user's."""
    files = sorted(path for path in Path(folder).expanduser().iterdir() if path.is_file()) if folder else []
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
