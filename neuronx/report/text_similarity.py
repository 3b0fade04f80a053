"""How similar units' descriptions are to the names of classes: by exact name, by a text encoder, in a given space."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from neuronx.concepts.labels import spoken
from neuronx.errors import UserError


def similarity_by_name(descriptions: Sequence[str], class_names: Sequence[str]) -> Tensor:
    """1 where a description is the class's name (lower case, "_" as space), else 0: (C, K) float32; NaN for ""."""
    said, names = [spoken(text) for text in descriptions], [spoken(name) for name in class_names]
    same = torch.tensor([[float(text == name) for text in said] for name in names])
    same[:, [not text for text in said]] = torch.nan
    return same


def similarity_of_texts(
    embed: Callable[[Sequence[str]], Tensor], descriptions: Sequence[str], class_names: Sequence[str]
) -> Tensor:
    """Cosines of class names and descriptions in a text space: (C, K) float32; NaN for a description "".

    Args:
        embed: From phrases to embeddings (., D), such as `Clip.embed_texts`. Each distinct phrase is asked for once.
        descriptions: Of the K units.
        class_names: Of the C classes.
    """
    texts = list(dict.fromkeys([*class_names, *(text for text in descriptions if text)]))
    return similarity_in_space(texts, embed(texts), descriptions, class_names)


def similarity_in_space(
    names: Sequence[str], embeddings: Tensor, descriptions: Sequence[str], class_names: Sequence[str]
) -> Tensor:
    """Cosines of class names and descriptions that stand among the names of given embeddings: (C, K) float32.

    Args:
        names: Of M phrases, compared in lower case, "_" as space; of equal names the first counts.
        embeddings: (M, D).
        descriptions: Of the K units; columns of those that have no embedding are NaN.
        class_names: Of the C classes.

    Raises:
        UserError: A class without an embedding.
    """
    index = {spoken(name): place for place, name in reversed([*enumerate(names)])}
    if missing := [name for name in class_names if spoken(name) not in index]:
        raise UserError(f"There is no text embedding of the class `{missing[0]}`, nor of {len(missing) - 1} others.")
    unit = F.normalize(embeddings.float(), dim=1)
    places = torch.tensor([index.get(spoken(text), -1) for text in descriptions])
    cosines = unit[[index[spoken(name)] for name in class_names]] @ unit[places.clamp(min=0)].T
    cosines[:, places < 0] = torch.nan
    return cosines
