"""Two words say more than one: the compositional labels of CLIP-Dissect (Oikarinen and Weng, ICLR 2023, figure 10).

For each unit its best words, all ordered pairs of them ("red", "star": `red star` and `star red`) and the words alone
make a word list of the unit's own, on which it is labelled anew. A pair is text and nothing else: what `red star` means
is up to the CLIP. Among ten thousand texts many fit one unit of a small layer and no other, and those soft_wpmi cannot
tell apart: with lam = 1 its scores end at ln K.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import permutations

from torch import Tensor
from tqdm import tqdm

from neuronx.methods.clip_dissect.similarity import SIMILARITIES, labels

TOGETHER = 2**18
"""Distinct texts whose embeddings are held at a time; a quarter of a million of 512 numbers take half a gigabyte."""

JOINT = ("wpmi", "soft_wpmi")
"""Functions by which a unit's score depends on the other units of its layer."""


def best_pairs(
    scores: Tensor,
    names: Sequence[str],
    units: Sequence[int],
    images: Tensor,
    values: Tensor,
    embed: Callable[[Sequence[str]], Tensor],
    similarity: str,
    n_labels: int = 1,
    pairs_from: int = 100,
    **options: float,
) -> dict[int, tuple[tuple[str, float], ...]]:
    """Labels some units of a layer with pairs of their best concepts, or with one of those concepts alone.

    Equal texts count once. Each distinct text is embedded once for all units that have it. For one unit the similarity
    is computed between m = pairs_from^2 texts and, where it depends on the whole layer, all K units: a product
    (R, D) x (D, m) and, for soft_wpmi, K x top_k x m multiplications, 6 x 10^9 for 64 units of the published options.

    Args:
        scores: (K, C) of all units of the layer with single concepts.
        names: The C concepts.
        units: Indices of those to label.
        images: (R, D) unit embeddings of the images.
        values: (R, K) activations on them.
        embed: From phrases to unit embeddings (., D).
        similarity: Name of the function.
        n_labels: How many labels for each unit.
        pairs_from: How many of a unit's best concepts are paired.
        options: Of the function.

    Returns:
        Unit -> its best labels as (text, score), best first. Scores of two units cannot be compared.
    """
    lists = {unit: candidates(scores[unit], names, pairs_from) for unit in units}
    found = {}
    progress = tqdm(total=len(lists), desc="pairs", delay=5, leave=False, disable=None)
    for group in grouped(lists):
        place = {text: row for row, text in enumerate(dict.fromkeys(text for unit in group for text in lists[unit]))}
        texts = embed(list(place))
        for unit in group:
            mine = texts[[place[text] for text in lists[unit]]]
            compared = values if similarity in JOINT else values[:, unit : unit + 1]
            again = SIMILARITIES[similarity](images @ mine.T, compared, **options)
            row = unit if similarity in JOINT else 0
            found[unit] = labels(again[row : row + 1], lists[unit], n_labels)[0]
            progress.update()
    return found


def candidates(scores: Tensor, names: Sequence[str], pairs_from: int) -> list[str]:
    """All ordered pairs of the best concepts by their scores (C,), then those concepts alone; equal texts once."""
    best = [name for name, _ in labels(scores[None], names, min(pairs_from, len(names)))[0]]
    return list(dict.fromkeys([*(f"{first} {second}" for first, second in permutations(best, 2)), *best]))


def grouped(lists: dict[int, list[str]], most: int = TOGETHER) -> Iterator[list[int]]:
    """Consecutive units whose lists together hold at most `most` distinct texts; one unit at least."""
    group: list[int] = []
    texts: set[str] = set()
    for unit, mine in lists.items():
        if group and len(texts.union(mine)) > most:
            yield group
            group, texts = [], set()
        group.append(unit)
        texts.update(mine)
    if group:
        yield group
