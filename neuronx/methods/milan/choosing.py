"""A CLIP chooses among the captions of a beam."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from neuronx.methods.milan.captioner import Captioner, Captions

if TYPE_CHECKING:
    from neuronx.concepts.clip import Clip


def most_similar(captions: Captions, captioner: Captioner, clip: "Clip", images: Tensor) -> tuple[Captions, Tensor]:
    """Of each unit's beam the caption with the largest mean cosine to its exemplars; of equals the first.

    One without words only where there is no other.

    Args:
        captions: With beams of W captions.
        captioner: Who wrote them.
        clip: Whose embeddings are compared.
        images: (U, k, E) embeddings of the exemplars.

    Returns:
        The captions, with their scores in the beam; and the mean cosines (U,).
    """
    beams: Any = captions.beams
    texts = captioner.vocabulary.sentences(beams.tokens.flatten(0, 1))
    distinct = list(dict.fromkeys(texts))
    number = {text: i for i, text in enumerate(distinct)}
    index = torch.tensor([number[text] for text in texts]).view(beams.tokens.shape[:2])
    embedded = clip.embed_texts(distinct, store=False)
    # The mean of cosines is the cosine sum of the mean embedding.
    cosines = (images.float().mean(1).cpu() @ embedded.float().cpu().T).gather(1, index)
    blank = torch.tensor([not text for text in distinct])[index]
    best = cosines.masked_fill(blank, -2).max(1, keepdim=True).indices
    place, scores, similar = (x.gather(1, best)[:, 0] for x in (index, beams.scores.cpu(), cosines))
    tokens = beams.tokens.cpu()[torch.arange(len(best)), best[:, 0]]
    return replace(captions, captions=tuple(distinct[i] for i in place.tolist()), scores=scores, tokens=tokens), similar
