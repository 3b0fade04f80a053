"""How good a sparse autoencoder is, on rows that it did not learn from. Pure functions."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from neuronx.targets.encoder import Dictionary


def reconstruction(dictionary: Dictionary, decoder: Mapping[str, Tensor], rows: Tensor) -> dict[str, float]:
    """Explained variance, L0 and dead share.

    The explained variance is 1 - sum |x - x^|^2 / sum |x - mean|^2 over rows; L0 the mean number of latents of a row
    that exceed 0; a latent is dead that exceeds 0 for no row.

    Args:
        dictionary: From rows (n, D) to latents (n, M).
        decoder: W_dec (M, D) and b_dec (D,).
        rows: (R, D).
    """
    mean = rows.double().mean(0)
    error = total = active = 0.0
    fired = torch.zeros(len(decoder["W_dec"]), dtype=torch.bool)
    for part in rows.split(4096):
        latents = dictionary(part)
        found = latents @ decoder["W_dec"] + decoder["b_dec"]
        error += (part - found).double().square().sum().item()
        total += (part.double() - mean).square().sum().item()
        active += (latents > 0).sum().item()
        fired |= (latents > 0).any(0)
    return {
        "explained_variance": 1 - error / total if total else float("nan"),
        "l0": active / len(rows),
        "dead_share": 1 - fired.double().mean().item(),
    }


def monosemanticity(latents: Tensor, embeddings: Tensor) -> Tensor:
    """The MonoSemanticity score of each latent: (M,) float64, NaN for one that differs on fewer than two pictures.

    The mean similarity of all pairs of pictures, each weighted by the product of the latent's activations on them,
    scaled to [0, 1]. Source: Pach et al., *Sparse Autoencoders Learn Monosemantic Features in Vision-Language
    Models*, 2025.

    Args:
        latents: (N, M).
        embeddings: (N, E) of the pictures, by a network that is not the one under study; any length.
    """
    a = latents.double()
    low, high = a.amin(0), a.amax(0)
    a = (a - low) / (high - low)
    e = F.normalize(embeddings.double(), dim=1)
    # The sum over pairs n != m of a_n a_m e_n.e_m is |sum_n a_n e_n|^2 - sum_n a_n^2, for e of length 1.
    own = a.square().sum(0)
    alike, weights = (a.T @ e).square().sum(1) - own, a.sum(0).square() - own
    return torch.where(weights > 0, alike / weights, torch.nan)
