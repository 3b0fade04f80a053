"""Where the strongest pictures of a unit lie in the space of a CLIP: one vector a unit, to be compared with words."""

import torch
from torch import Tensor
from torch.nn import functional as F

from neuronx.progress import progress

AT_A_TIME = 2**22
"""Similarities of top pictures with all pictures that are held at a time."""


def contrasted(images: Tensor, values: Tensor, top: Tensor, gamma: float = 1.0) -> Tensor:
    """What sets the top pictures of a unit apart from the pictures most like them that leave it cold (csp).

    From the embedding e of each top picture, gamma (e . n) n is subtracted, its projection on the most similar picture
    n on which the unit is below its median. What is left is brought to unit length, weighed by the activation and
    summed. Where no picture is below the median, as for a unit that is 0 on most, those at it stand in. Activations
    below 0 weigh nothing; where none is above, all weigh alike.

    Args:
        images: (N, D) unit embeddings of the pictures.
        values: (N, K) activations.
        top: (T, K) int64, the strongest pictures of each unit.
        gamma: Share of the projection that is taken away.

    Returns:
        (K, D) float32, not normalised; 0 where nothing is left.
    """
    found = []
    for units in progress(torch.arange(values.shape[1]).split(max(1, AT_A_TIME // (len(top) * len(images)))), "words"):
        of = values[:, units].T
        median = of.median(1, keepdim=True).values
        cold = of < median
        cold |= ~cold.any(1, keepdim=True) & (of <= median)
        strongest = images[top[:, units].T]  # (k, T, D)
        alike = (strongest @ images.T).masked_fill(~cold[:, None], -torch.inf)
        nearest = images[alike.argmax(2)]
        own = strongest - gamma * (strongest * nearest).sum(2, keepdim=True) * nearest
        weight = of.gather(1, top[:, units].T).clamp(min=0)
        weight = torch.where(weight.sum(1, keepdim=True) > 0, weight, 1.0)
        found.append((F.normalize(own, dim=2) * weight[:, :, None]).sum(1))
    return torch.cat(found)


def centred(images: Tensor, top: Tensor) -> Tensor:
    """Mean embedding of each unit's top pictures (T, K) minus that of all pictures (N, D): (K, D) (SemanticLens)."""
    return torch.stack([images[rows].mean(0) for rows in top.T]) - images.mean(0)


def cosines(directions: Tensor, texts: Tensor) -> Tensor:
    """Cosine of each unit's vector (K, D) with each word's (C, D): (K, C)."""
    return F.normalize(directions, dim=1) @ F.normalize(texts, dim=1).T
