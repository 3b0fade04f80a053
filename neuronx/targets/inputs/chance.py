"""Random numbers that belong to an index, not to a moment: image i draws the same ones in any batch, on any machine.

A counter-based generator. The finaliser of splitmix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number
generators", 2014) scrambles (seed, index, column) in wrapping int64 arithmetic, which is exact everywhere.
"""

import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_FIRST = 0xBF58476D1CE4E5B9 - (1 << 64)
_SECOND = 0x94D049BB133111EB - (1 << 64)


def _shifted(x: Tensor, bits: int) -> Tensor:
    # torch shifts int64 arithmetically; the mask drops the copies of the sign.
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def mix(x: Tensor) -> Tensor:
    """Scrambles int64 words, one to one: every bit of the result depends on every bit of `x`."""
    x = x + _GOLDEN
    x = (x ^ _shifted(x, 30)) * _FIRST
    x = (x ^ _shifted(x, 27)) * _SECOND
    return x ^ _shifted(x, 31)


def uniforms(seed: int, indices: Tensor, columns: int) -> Tensor:
    """Draws `columns` uniform numbers for each index.

    Args:
        seed: Of the stream, in [0, 2^63); streams of different seeds are independent.
        indices: (B,) int64.
        columns: Numbers per index; column j is the same whatever their number.

    Returns:
        (B, columns) float32 in [0, 1), multiples of 2^-24.
    """
    start = mix(mix(torch.full_like(indices, seed)) ^ indices)
    counters = torch.arange(columns, device=indices.device) * _GOLDEN
    words = mix(start[:, None] + counters)
    return _shifted(words, 40).to(torch.float32) * 2.0**-24


def pick(uniform: Tensor, n: int) -> Tensor:
    """Turns uniform numbers into equally likely int64 choices in [0, n)."""
    # The product may round up to n itself when `uniform` is next to 1.
    return (uniform * n).to(torch.int64).clamp(max=n - 1)
