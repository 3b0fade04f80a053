"""Pairs of natural pictures where nobody can draw: alike but for one concept, as far as a judge sees."""

from itertools import chain

import torch
from torch import Tensor

from neuronx.data.probe import Probe
from neuronx.scoring.verification.pictures import Changes

SHOWN, HIDDEN = 0.7, 0.1
"""A picture shows a concept when the judge's probability is above the first, and does not below the second."""
CLOSEST = 40
"""Pairs of a concept."""
MOST = 4000
"""Pictures that are looked through, drawn at random where there are more: all are compared with all."""


def matched(images: Probe, rows: Tensor, scores: Tensor) -> Changes:
    """For each concept its closest pairs: a picture that shows it and the one without it that is nearest in all others.

    Distances are Euclidean in the judge's probabilities of the other concepts. A pair is close when its distance is at
    most the median distance of a picture to its nearest other. Matching cannot invent pictures that are not there: it
    does not tell two concepts apart that go together.

    Args:
        images: The pictures.
        rows: (N,) int64, those that may be used.
        scores: (F, N) probabilities of the concepts in them.
    """
    chosen = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:MOST].sort().values
    rows, scores = rows[chosen], scores[:, chosen]
    # Squared distances over all concepts; the concept in question is taken out below.
    x = scores.T.contiguous()
    square = torch.cdist(x, x).square_()
    nearest = square.clone().fill_diagonal_(torch.inf).amin(1)
    typical = nearest[nearest.isfinite()].median() if len(rows) > 1 else torch.tensor(0.0)
    pairs: list[tuple[Tensor, Tensor]] = []
    about: list[int] = []
    close = 0
    for concept, of in enumerate(scores):
        shows, hides = (of > SHOWN).nonzero().flatten(), (of < HIDDEN).nonzero().flatten()
        if not len(shows) or not len(hides):
            continue
        far = square[shows][:, hides] - (of[shows, None] - of[hides]).square()
        least, which = far.min(1)
        best = least.argsort(stable=True)[:CLOSEST]
        pairs.append((shows[best], hides[which[best]]))
        about += [concept] * len(best)
        close += int((least[best] <= typical).sum())
    members = torch.cat([torch.stack(pair, 1).flatten() for pair in pairs]) if pairs else torch.zeros(0).long()
    group = torch.arange(len(about)).repeat_interleave(2)
    made = torch.tensor(list(chain.from_iterable((a, a) for a in about)), dtype=torch.int64)
    return Changes(images, rows[members], group, group, made, "matched", close)
