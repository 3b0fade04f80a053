"""Properties of captions, by which units are put in order: how long they are, what they name, what they are like."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from neuronx.errors import UserError, unknown
from neuronx.methods.milan.vocabulary import tokens
from neuronx.metrics.naming import matching

TAGS = {"nouns": "NOUN", "verbs": "VERB", "adpositions": "ADP", "adjectives": "ADJ"}
"""Parts of speech that can be counted, and what spaCy calls them."""
TAGGER = "en_core_web_sm"

Embed = Callable[[Sequence[str]], Tensor]
"""From phrases to embeddings (., D), such as `Clip.embed_texts`."""


def property_of(captions: Sequence[str], name: str, embed: Embed | None = None) -> Tensor:
    """A property of U captions: (U,) float64.

    Args:
        captions: Sentences.
        name: `length` in words; `names:red|blue`, 1 for a caption that names any of the phrases and else 0;
            `like:TEXT`, the cosine with a text in a text space; `nouns`, `verbs`, `adpositions` or `adjectives`, how
            many there are.
        embed: The text space of `like`.

    Raises:
        UserError: An unknown property; one that needs a text space or spaCy's tagger where there is none.
    """
    kind, _, rest = name.partition(":")
    if kind == "length":
        return torch.tensor([len(tokens(text)) for text in captions], dtype=torch.float64)
    if kind == "names":
        return matching(captions, rest.split("|") if rest else []).double()
    if kind == "like":
        if embed is None or not rest:
            raise UserError(
                f"`{name}` compares captions with a text in the space of a CLIP: write like:TEXT and clip=."
            )
        vectors = F.normalize(embed([rest, *captions]).double(), dim=1)
        return vectors[1:] @ vectors[0]
    if kind in TAGS:
        return torch.tensor([sum(tag == TAGS[kind] for tag in one) for one in _tagged(captions)], dtype=torch.float64)
    raise unknown("property of captions", name, ["length", "names:WORD|WORD", "like:TEXT", *TAGS])


def _tagged(captions: Sequence[str]) -> list[list[str]]:
    """The part of speech of every word."""
    import spacy

    if not spacy.util.is_package(TAGGER):
        raise UserError(
            f"Parts of speech need spaCy's {TAGGER} (python -m spacy download {TAGGER}); without it use `length`, or "
            "count words of your own with names:WORD|WORD."
        )
    tagger = spacy.load(TAGGER, exclude=["parser", "ner", "lemmatizer"])
    return [[word.pos_ for word in text] for text in tagger.pipe(captions)]
