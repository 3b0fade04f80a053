"""What captions must beat: one constant caption for all units, and what was said of the most similar training unit."""

from collections import Counter
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from neuronx.errors import UserError
from neuronx.metrics.captions import (
    ORDER,
    References,
    bleu_of,
    normalised,
    words,
)

DEPICTIONS = "depictions"
"""The constant that scores better on MILANNOTATIONS than any method, under text similarity (Bai et al., 2024)."""

Run = tuple[str, ...]


def constant_captions(candidates: Iterable[str], references: References) -> dict[str, str]:
    """The constants to show beside any scores: name -> caption.

    Args:
        candidates: Captions of training units.
        references: Of the training units, by which the best of them is chosen.
    """
    best = best_constant(candidates, references)
    return {f'always "{DEPICTIONS}"': DEPICTIONS, f'always "{best}"': best}


def best_constant(candidates: Iterable[str], references: References) -> str:
    """The caption that has the largest BLEU-4 when it is given to every unit; of equals the first.

    Exact, and one pass: a run of words that a caption has c times matches, in all units together, as often as units
    have it at least once, plus those that have it twice, and so on up to c.

    Args:
        candidates: Captions, at least one.
        references: Of U units; units without any do not count.

    Raises:
        UserError: No candidates, or no references.
    """
    texts = list(dict.fromkeys(map(normalised, candidates)))
    known = [[words(normalised(text)) for text in given] for given in references if given]
    if not texts or not known:
        raise UserError("A constant caption is chosen among captions by what people said of units; there are none.")
    having: Counter[tuple[Run, int]] = Counter()
    for given in known:
        most: Counter[Run] = Counter()
        for one in given:
            most |= _runs(one)
        having.update((run, times) for run, count in most.items() for times in range(1, count + 1))
    lengths = [sorted(map(len, given)) for given in known]
    closest: dict[int, int] = {}

    def value(text: str) -> float:
        said = words(text)
        matches, runs = torch.zeros(ORDER), torch.zeros(ORDER)
        for run, count in _runs(said).items():
            matches[len(run) - 1] += sum(having[run, times] for times in range(1, count + 1))
            runs[len(run) - 1] += count * len(known)
        n = len(said)
        if n not in closest:
            closest[n] = sum(min(given, key=lambda length: abs(length - n)) for given in lengths)
        return bleu_of(matches, runs, n * len(known), closest[n])[-1]

    return max(texts, key=value)


def _runs(said: Sequence[str]) -> Counter[Run]:
    """How often each run of 1 to 4 words is there."""
    return Counter(tuple(said[i : i + n]) for n in range(1, ORDER + 1) for i in range(len(said) - n + 1))


def nearest_units(features: Tensor, training: Tensor) -> Tensor:
    """The training unit that is most similar to each unit: (U,) int64.

    Similar is the cosine of mean features, seen from the mean of all training units; of equals the first.

    Args:
        features: (U, D), or (U, k, D) of exemplars, whose mean counts.
        training: (T, D) or (T, k, D).

    Raises:
        UserError: No training units, or other features.
    """
    if not len(training) or features.shape[1:] != training.shape[1:]:
        raise UserError(f"Features {tuple(features.shape)} have no neighbours among {tuple(training.shape)}.")
    mine, theirs = (x.float().mean(1) if x.ndim == 3 else x.float() for x in (features, training))
    centre = theirs.mean(0)
    return (F.normalize(mine - centre, dim=1) @ F.normalize(theirs - centre, dim=1).T).argmax(1)
