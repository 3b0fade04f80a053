"""The five similarity functions of CLIP-Dissect (Oikarinen and Weng, ICLR 2023, section 3 and appendix A.2).

Each is `f(P, T, **options) -> S`. P (N, C) holds the cosines of N images and C concepts in a CLIP, T (N, K) the pooled
activations of K units on the same images, S (K, C) float32 says how well each concept describes each unit; higher is
better, and only scores of one call can be compared. The defaults are the published ones. In all five:

* a constant unit has no order, so its row is 0, and it takes no part in the prior of the others;
* equal activations are ordered by image row, lowest first, so that results are the same on every machine;
* `memory_mb` bounds the working memory beyond P, T, one copy of T and S; results do not depend on it.

They raise UserError where P and T do not fit together, something is not finite, or there are too few images.
"""

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from neuronx.errors import UserError
from neuronx.options import Count, NotNegative, Positive, Share
from neuronx.progress import progress
from neuronx.recording.strongest import strongest
from neuronx.recording.tally import ordered

_TILE = 128  # concepts in one tile: a tile of some hundred units stays in a core's own cache


def cos_similarity(P: Tensor, T: Tensor, *, memory_mb: Count = 512) -> Tensor:
    """Cosine of the columns of P and T over the images, not centred: S in [-1, 1]. A column of zeros gives 0."""
    live = _check(P, T)
    units = F.normalize(T.float(), dim=0)
    S = torch.empty(T.shape[1], P.shape[1], device=P.device)
    for block in _blocks(P.shape[1], 8 * len(P), memory_mb):
        S[:, block] = units.T @ F.normalize(P[:, block].float(), dim=0)
    return _silence(S, live)


def cos_similarity_cubed(P: Tensor, T: Tensor, *, min_norm: Positive = 1e-3, memory_mb: Count = 512) -> Tensor:
    """Cosine of centred and cubed columns, which listens to the extreme images: S in [-1, 1].

    Norms below `min_norm` count as `min_norm`; with few images the cubed cosines of a CLIP are that small.
    """
    live = _check(P, T)
    units = _cubed(T, min_norm)
    S = torch.empty(T.shape[1], P.shape[1], device=P.device)
    for block in _blocks(P.shape[1], 16 * len(P), memory_mb):
        S[:, block] = units.T @ _cubed(P[:, block], min_norm)
    return _silence(S, live)


def rank_reorder(
    P: Tensor,
    T: Tensor,
    *,
    p: Positive = 3,
    top_fraction: Share = 0.05,
    scale_p: NotNegative = 0.5,
    memory_mb: Count = 512,
) -> Tensor:
    """How little the top activations change when the concept orders their images: S = -(e / b) / m^scale_p.

    Over the n = floor(top_fraction N) images where the unit fires most: e is the mean of |t - t'|^p, with t the
    activations in descending order and t' the same activations in the order in which the concept puts the images; b is
    the expectation of e over random orders, (1/n^2) sum over i, j of |t_i - t_j|^p, where the published code draws five
    of them; m is the mean cosine of the concept. A mean cosine below 1e-3 counts as 1e-3, so that a concept that a CLIP
    puts opposite to the images stays comparable. Images with equal cosines are put in the worst order. A unit that is
    constant over its top images gets a row of 0.
    """
    live = _check(P, T)
    n = int(len(P) * top_fraction)
    if n < 2:
        raise UserError(
            f"rank_reorder looks at the top {top_fraction:g} of the images, which is {n} of {len(P)}; "
            "at least 2 are needed: give it more images or a larger top_fraction."
        )
    rows = strongest(T, n, memory_mb).T.contiguous()
    top = T.T.float().gather(1, rows)
    top -= top[:, -1:].clone()  # changes no difference, and floats that are not negative sort like their bits
    pairs = _blocks(len(top), 8 * n * n, min(memory_mb, 4))
    chance = torch.cat([(top[k, :, None] - top[k, None]).abs_().pow_(p).mean((1, 2)) for k in pairs])

    change = torch.empty(P.shape[1], T.shape[1], device=P.device)
    mean = torch.empty(T.shape[1], P.shape[1], device=P.device)
    tails = top.view(torch.int32).long()
    blocks = list(_blocks(P.shape[1], 32 * len(P) + 24 * n, memory_mb // 2, 2 * _TILE))
    for block in progress(blocks, "comparing concepts with units"):
        cosines = P[:, block].float().contiguous()
        mean[:, block] = F.embedding_bag(rows, cosines, mode="sum") / n
        # One 64-bit key an image: the concept's order in the upper half, the activation itself in the lower, so that
        # one sort of the keys leaves the activations in the concept's order, with nothing to look up afterwards.
        keys = ordered(-cosines.T.contiguous() + 0.0) << 32
        for few in _blocks(len(keys), 1, memory_mb, 16):
            some = keys[few]
            for units in _blocks(len(top), 24 * n * len(some), memory_mb // 2, max(1, 2**17 // (n * len(some)))):
                chosen = rows[units].flatten().expand(len(some), -1)
                mine = _sort(some.gather(1, chosen).view(len(some), -1, n).bitwise_or_(tails[units]))
                moved = mine.view(torch.float32)[..., _LOW::2]
                change[block, units][few] = (moved - top[units]).abs_().pow_(p).mean(-1)
    S = -(change.T / chance[:, None]) / mean.clamp_(min=1e-3).pow_(scale_p)
    return _silence(S, live & (chance > 0))


def wpmi(
    P: Tensor,
    T: Tensor,
    *,
    top_k: Count = 28,
    a: Positive = 2,
    lam: NotNegative = 0.6,
    min_prob: NotNegative = 1e-7,
    memory_mb: Count = 512,
) -> Tensor:
    """Weighted pointwise mutual information of a concept and the unit's `top_k` images.

    With Q the softmax of a P over the concepts, L[k, c] = sum over the top images of ln(Q + min_prob) and
    prior[c] = ln of the mean of exp(L) over the units: S = L - lam prior. The score of a unit therefore depends on the
    units and the concepts that it is compared with.
    """
    live = _check(P, T, top_k)
    images, places = _distinct(strongest(T, top_k, memory_mb))
    partition = _log_partition(P, images, a, memory_mb)
    L = torch.empty(T.shape[1], P.shape[1], device=P.device)
    for block in _blocks(P.shape[1], 12 * len(images) + 4 * T.shape[1], memory_mb, _TILE):
        Q = (a * P[:, block].index_select(0, images).float()).sub_(partition).exp_()
        L[:, block] = F.embedding_bag(places.T.contiguous(), Q.add_(min_prob).log_(), mode="sum")
    return _silence(_less_prior(L, live, lam), live)


def soft_wpmi(
    P: Tensor,
    T: Tensor,
    *,
    top_k: Count = 100,
    a: Positive = 10,
    lam: NotNegative = 1,
    p_start: Share = 0.998,
    p_end: Share = 0.97,
    min_prob: NotNegative = 1e-7,
    memory_mb: Count = 512,
) -> Tensor:
    """WPMI whose top images belong to the unit's concept only with a probability: the default of CLIP-Dissect.

    The j-th of the `top_k` images belongs with probability w_j = p_start - (j / top_k) (p_start - p_end), so that
    L[k, c] = sum over j of ln(1 + w_j (Q - 1) + min_prob); the rest as in `wpmi`. With lam = 1 a layer of one unit
    scores 0 everywhere.
    """
    if not 0 <= p_end <= p_start <= 1:
        raise UserError(f"soft_wpmi needs 0 <= p_end <= p_start <= 1, not p_start={p_start:g}, p_end={p_end:g}.")
    live = _check(P, T, top_k)
    images, places = _distinct(strongest(T, top_k, memory_mb))
    partition = _log_partition(P, images, a, memory_mb)
    # ln(1 - w + min_prob + w Q) = ln(1 - w + min_prob) + ln(1 + ratio Q). The first part is the same for all units and
    # concepts. Of the second we take the logarithm of products, of as many factors as cannot overflow.
    w = p_start - torch.arange(top_k, dtype=torch.float64) / top_k * (p_start - p_end)
    ratio = (w / (1 - w + min_prob)).tolist()
    factors = max(1, int(math.log(torch.finfo(torch.float32).max) / math.log1p(max(ratio) + 1e-9)))
    L = torch.empty(T.shape[1], P.shape[1], device=P.device)
    for block in _blocks(P.shape[1], 12 * len(images) + 12 * T.shape[1], memory_mb, _TILE):
        Q = (a * P[:, block].index_select(0, images).float()).sub_(partition).exp_()
        total = torch.zeros(T.shape[1], Q.shape[1], device=P.device)
        product, chosen = torch.ones_like(total), torch.empty_like(total)
        for j in range(top_k):
            torch.index_select(Q, 0, places[j], out=chosen)
            product.addcmul_(product, chosen, value=ratio[j])
            if (j + 1) % factors == 0 or j == top_k - 1:
                total += product.log_()
                product.fill_(1)
        L[:, block] = total
    shared = float((1 - w + min_prob).log().sum())
    return _silence(_less_prior(L, live, lam).add_((1 - lam) * shared), live)


SIMILARITIES: dict[str, Callable[..., Tensor]] = {
    f.__name__: f for f in (cos_similarity, cos_similarity_cubed, rank_reorder, wpmi, soft_wpmi)
}


def labels(scores: Tensor, names: Sequence[str], k: int = 1) -> list[tuple[tuple[str, float], ...]]:
    """The k best concepts of each unit as (name, score), best first; of equal scores the first concept.

    Args:
        scores: (K, C), as a similarity function gives them.
        names: The C concepts.
        k: How many; all where there are fewer.
    """
    k = min(k, len(names))
    best = (-scores).sort(dim=1, stable=True).indices[:, :k] if k > 1 else scores.argmax(1, keepdim=True)
    values = scores.gather(1, best).tolist()
    return [
        tuple((names[c], value) for c, value in zip(row, line, strict=True))
        for row, line in zip(best.tolist(), values, strict=True)
    ]


_LOW = 0 if torch.tensor([1], dtype=torch.int64).view(torch.int32)[0] == 1 else 1  # where the lower half of a long is


def _check(P: Tensor, T: Tensor, top_k: int = 1) -> Tensor:
    """Which units (K,) change at all, once the arguments are seen to be right."""
    if P.ndim != 2 or T.ndim != 2 or len(P) != len(T) or not P.numel() or not T.numel():
        raise UserError(
            f"A similarity needs cosines (N, C) and activations (N, K) of the same images, not {tuple(P.shape)} and "
            f"{tuple(T.shape)}."
        )
    low, high = T.amin(0), T.amax(0)  # NaN comes through both, an infinity through one
    broken = ~(low.isfinite() & high.isfinite())
    if broken.any():
        raise UserError(f"The activations of unit {int(broken.nonzero()[0])} are not all finite (NaN or infinite).")
    if not (P.amin(0).isfinite() & P.amax(0).isfinite()).all():
        raise UserError("The cosines are not all finite (NaN or infinite).")
    if not 1 <= top_k <= len(P):
        raise UserError(
            f"top_k is {top_k} and there are {len(P)} images: give more images, or a top_k between 1 and {len(P)}."
        )
    return low != high


def _silence(S: Tensor, live: Tensor) -> Tensor:
    S[~live] = 0
    return S


def _blocks(count: int, bytes_each: int, memory_mb: int, widest: int = 2**31) -> Iterator[slice]:
    """Slices of 0..count-1 that keep `bytes_each` a column within the memory."""
    size = max(1, min(widest, memory_mb * 2**20 // max(1, bytes_each)))
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def _cubed(x: Tensor, min_norm: float) -> Tensor:
    x = x.float()
    x = (x - x.mean(0)).pow_(3)
    return x.div_(x.norm(dim=0).clamp_(min=min_norm))


def _sort(keys: Tensor) -> Tensor:
    """Sorts along the last dimension; NumPy's sort without indices is ten times as fast as torch's on a CPU."""
    if keys.is_cuda:
        return keys.sort(dim=-1).values
    keys.numpy().sort(axis=-1)
    return keys


def _distinct(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The distinct rows (M,), sorted, and where among them each is; only they need probabilities."""
    images, places = rows.unique(return_inverse=True)
    return images, places


def _log_partition(P: Tensor, images: Tensor, a: float, memory_mb: int) -> Tensor:
    """Logarithm of the sum over all concepts of exp(a P), for some images: (M, 1)."""
    parts = [
        (a * P.index_select(0, images[block]).float()).logsumexp(1, keepdim=True)
        for block in _blocks(len(images), 16 * P.shape[1], memory_mb, 512)
    ]
    return torch.cat(parts)


def _less_prior(L: Tensor, live: Tensor, lam: float) -> Tensor:
    """L - lam ln(mean over the live units of exp(L)), tile by tile and in place."""
    count = int(live.sum())
    if count:
        for block in _blocks(L.shape[1], 1, 1, 4 * _TILE):
            L[:, block] -= lam * (L[live, block].logsumexp(0) - math.log(count))
    return L
