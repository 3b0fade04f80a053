"""Words: from a description to token ids and back. The tokens are those of spaCy's English tokenizer, in lower case."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from neuronx.errors import UserError

if TYPE_CHECKING:
    from spacy.tokenizer import Tokenizer


class Specials(NamedTuple):
    """Ids of the tokens that are no words; they follow those of the V words."""

    start: int
    stop: int
    pad: int
    unknown: int

    @classmethod
    def after(cls, words: int) -> "Specials":
        """Of a vocabulary of so many words."""
        return cls(words, words + 1, words + 2, words + 3)

    @property
    def size(self) -> int:
        """Number of all ids, n = V + 4."""
        return self.unknown + 1


@dataclass(frozen=True)
class Vocabulary:
    """The words that a captioner knows: word i has id i, the special tokens follow.

    Attributes:
        words: The V words, distinct.
    """

    words: tuple[str, ...]

    def __post_init__(self) -> None:
        repeated = [word for word, count in Counter(self.words).items() if count > 1]
        if repeated or not self.words:
            what = f"has `{repeated[0]}` more than once" if repeated else "has no words"
            raise UserError(f"The vocabulary {what}; it needs distinct words.")

    @classmethod
    def build(cls, descriptions: Iterable[str | Sequence[str]]) -> "Vocabulary":
        """All tokens of the descriptions, the most frequent first; of equally frequent ones the first seen.

        Args:
            descriptions: Of each unit, all of them or the only one. Those of one unit are tokenised as one text.

        Raises:
            UserError: There is no word in them.
        """
        counts: Counter[str] = Counter()
        for unit in descriptions:
            counts.update(tokens(unit if isinstance(unit, str) else " ".join(unit)))
        return cls(tuple(word for word, _ in counts.most_common()))

    @cached_property
    def specials(self) -> Specials:
        """Ids of start, stop, pad and unknown."""
        return Specials.after(len(self.words))

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {word: i for i, word in enumerate(self.words)}

    def index(self, texts: Sequence[str], length: int | None = None) -> Tensor:
        """Ids (B, T) int64 of B texts: their words, then stop, then pad up to the longest.

        Args:
            texts: Anything; words that are not in the vocabulary become `unknown`, a blank text is stop alone.
            length: Keep this many words of a text at most, before stop.
        """
        known, unknown = self._ids, self.specials.unknown
        rows = [[known.get(token, unknown) for token in tokens(text)[:length]] for text in texts]
        ids = torch.full((len(rows), 1 + max(map(len, rows), default=0)), self.specials.pad)
        for i, row in enumerate(rows):
            ids[i, : len(row) + 1] = torch.tensor([*row, self.specials.stop])
        return ids

    def sentence(self, ids: Tensor | Sequence[int]) -> str:
        """The text that one row of ids (T,) stands for, up to the first stop, spelt like a sentence.

        Special tokens are left out, punctuation and hyphens are joined to their words and each sentence begins with a
        capital. No full stop is added; clitics stay apart ("people 's faces").
        """
        ids = ids.tolist() if isinstance(ids, Tensor) else list(ids)
        if self.specials.stop in ids:
            ids = ids[: ids.index(self.specials.stop)]
        text = " ".join(self.words[i] for i in ids if i < len(self.words))
        for mark in ".,;:-":
            text = text.replace(f" {mark}", mark)
        sentences = text.replace("- ", "-").split(".")
        return ". ".join(sentence.strip().capitalize() for sentence in sentences).strip()

    def sentences(self, ids: Tensor) -> tuple[str, ...]:
        """The texts of B rows of ids (B, T)."""
        return tuple(map(self.sentence, ids.tolist()))


def tokens(text: str) -> list[str]:
    """The lower-case tokens of an English text; punctuation and common words stay, white space does not.

    "black-and-white" gives black - and - white, "people's" gives people 's.
    """
    return [token.lower_ for token in _tokenizer()(text) if not token.is_space]


@lru_cache(maxsize=1)
def _tokenizer() -> "Tokenizer":
    import spacy

    return spacy.blank("en").tokenizer
