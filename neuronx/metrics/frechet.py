"""How far two sets of pictures are apart, as a feature extractor sees them."""

import torch
from torch import Tensor

from neuronx.errors import UserError


def frechet(a: Tensor, b: Tensor) -> float:
    """Fréchet distance between normal distributions fitted to two sets of features, at least 0.

    |mean a - mean b|^2 + trace(A + B - 2 (A B)^(1/2)) with covariances A and B (Heusel et al., "GANs trained by a two
    time-scale update rule converge to a local Nash equilibrium", 2017). Computed in double precision.

    Args:
        a: (N, D), N at least 2.
        b: (M, D), M at least 2.

    Raises:
        UserError: Sets of other shapes.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise UserError(f"Two sets of features (N, D) of at least two rows are needed, not {a.shape} and {b.shape}.")
    a, b = a.double(), b.double()
    first, second = torch.cov(a.T).view(a.shape[1], -1), torch.cov(b.T).view(a.shape[1], -1)
    values, vectors = torch.linalg.eigh(first)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    # A^(1/2) B A^(1/2) is symmetric and has the eigenvalues of A B.
    shared = torch.linalg.eigvalsh(root @ second @ root).clamp(min=0).sqrt().sum()
    apart = (a.mean(0) - b.mean(0)).square().sum() + first.trace() + second.trace() - 2 * shared
    return max(0.0, apart.item())
