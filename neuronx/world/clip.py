"""The small CLIPs of the embedded world: open_clip models with a vocabulary of their own, stored with a card."""

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from neuronx.concepts.clip import Clip
from neuronx.concepts.encoders import Encoder
from neuronx.store.checkpoints import find, read
from neuronx.targets.preprocess import Preprocess
from neuronx.world.pictures.scene import MEANING, reading

if TYPE_CHECKING:
    from open_clip.model import CLIP

CONTEXT = 16
PAD, UNKNOWN = 0, 1
READING = 2
"""Version of the tokenizer; increase it when tokenization changes, so that caches are made anew."""
SILENT = frozenset({"a", "an", "the"})


@dataclass(frozen=True)
class WordTokenizer:
    """Turns phrases into word numbers: words of letters and digits in lower case, without articles.

    A plural or an everyday word is read as the word of the vocabulary that it means (`synonyms.reading`). Other words
    are left out, since nothing was learned of them; where no word is left the phrase is one `UNKNOWN`. The end mark has
    the highest number of all, for open_clip pools the text where the number is highest.

    Attributes:
        words: The vocabulary; word i has the number i + 2.
        context: Length of every row; longer phrases are cut, the end mark is kept.
    """

    words: tuple[str, ...]
    context: int = CONTEXT

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {word: i + 2 for i, word in enumerate(self.words)}

    @property
    def identity(self) -> str:
        """Changes with how texts are read."""
        return f"{READING} {sorted(MEANING.items())}"

    @property
    def size(self) -> int:
        """How many numbers there are: padding, unknown, the words and the end mark."""
        return len(self.words) + 3

    def __call__(self, texts: str | Iterable[str]) -> Tensor:
        """The phrases (B) as word numbers (B, context) int64."""
        texts = [texts] if isinstance(texts, str) else list(texts)
        tokens = torch.full((len(texts), self.context), PAD)
        for row, text in enumerate(texts):
            numbers = self._read(split(text))[: self.context - 1]
            tokens[row, : len(numbers) + 1] = torch.tensor([*numbers, self.size - 1])
        return tokens

    def _read(self, words: list[str]) -> list[int]:
        read = [self._numbers[meant] for word in words if (meant := reading(word, self._numbers)) is not None]
        return read or [UNKNOWN] * bool(words)


def split(text: str) -> list[str]:
    """The words of a phrase as the tokenizer sees them."""
    return [word for word in re.findall(r"[a-z0-9]+", text.lower()) if word not in SILENT]


def vocabulary(phrases: Iterable[str]) -> tuple[str, ...]:
    """All distinct words of the phrases, sorted."""
    return tuple(sorted({word for phrase in phrases for word in split(phrase)}))


def build(embed_dim: int, vision: dict[str, Any], text: dict[str, Any], tokenizer: WordTokenizer) -> "CLIP":
    """An untrained open_clip model whose text tower has the tokenizer's vocabulary and context.

    Args:
        embed_dim: Length of the embeddings.
        vision: open_clip's `vision_cfg`.
        text: open_clip's `text_cfg`, without vocabulary and context.
        tokenizer: Of the text tower.
    """
    from open_clip.model import CLIP

    text = {**text, "vocab_size": tokenizer.size, "context_length": tokenizer.context}
    return CLIP(embed_dim, vision, text, init_logit_bias=-5.0)


def load(path: str | Path) -> Encoder:
    """A trained CLIP of the world.

    Args:
        path: The safetensors file, its card beside it, or the name of a shipped one such as `shapes_judge`.
    """
    state, card = read(path)
    tokenizer = WordTokenizer(tuple(card["words"]), card["context"])
    model = build(card["embed_dim"], card["vision"], card["text"], tokenizer)
    model.load_state_dict(state)
    identity = hashlib.sha256(find(path).read_bytes())
    identity.update(json.dumps([card[key] for key in ("embed_dim", "vision", "text", "words", "context")]).encode())
    transform = Preprocess(mean=card["mean"], std=card["std"])
    return Encoder(model.eval().requires_grad_(False), tokenizer, transform, identity.hexdigest())


@lru_cache(maxsize=4)
def _shared(path: str) -> Encoder:
    return load(path)


@dataclass(frozen=True)
class ShapesClip(Clip):
    """A CLIP of the embedded world; its sigmoid (a, b) is on its card.

    Attributes:
        pretrained: The safetensors file, its card beside it, or the name of a shipped one such as `shapes_judge`.
    """

    model: str = "shapes"
    pretrained: str = "shapes_explainer"
    domain: str = "shapes"

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.name or Path(self.pretrained).stem)
        super().__post_init__()

    @property
    def encoder(self) -> Encoder:
        """The loaded model."""
        return _shared(self.pretrained)

    def known(self) -> Clip:
        """The same CLIP with (a, b) filled in."""
        if self.a is not None:
            return self
        _, card = read(self.pretrained)
        return replace(self, a=card["a"], b=card["b"])
