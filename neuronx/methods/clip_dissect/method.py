"""CLIP-Dissect as a method: one word or phrase for each unit."""

import inspect
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import permutations
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neuronx.concepts.formula import quoted
from neuronx.concepts.judged import BATCH, with_support
from neuronx.errors import UserError, unknown
from neuronx.methods.clip_dissect.similarity import SIMILARITIES, labels
from neuronx.options import Count, Natural, NotNegative, TwoOrMore, check
from neuronx.progress import progress
from neuronx.recording.strongest import strongest
from neuronx.types import Activations, Explanation, TrainerFactory

if TYPE_CHECKING:
    from neuronx.concepts.clip import Clip
    from neuronx.concepts.words import Words
    from neuronx.data.probe import Probe
    from neuronx.targets.target import Target


class ClipDissect:
    """Labels each unit with the concept of a word list that is most similar to it (Oikarinen and Weng, ICLR 2023).

    An explanation's one term is the label, with weight 1; its note `similarity` is the label's score, its evidence the
    images of train and val where the unit fires most. A unit that never changes there is inactive: it has no terms. So
    has one to which all concepts are equally similar.
    """

    def __init__(
        self,
        clip: "Clip",
        words: "Words",
        similarity: str = "soft_wpmi",
        n_labels: Count = 1,
        n_evidence: Natural = 15,
        pairs: bool = False,
        pairs_from: TwoOrMore = 100,
        min_support: NotNegative = 0,
        **options: float | None,
    ) -> None:
        """Chooses how to measure similarity.

        Args:
            clip: Sees images and words.
            words: The concepts to choose from.
            similarity: Name of a function in `similarity.py`: soft_wpmi, wpmi, rank_reorder, cos_similarity_cubed,
                cos_similarity.
            n_labels: How many of the best concepts become terms; k of them have weight 1/k each.
            n_evidence: How many images become evidence.
            pairs: Whether pairs of words may become labels too, such as "red star": see `pairs.py`. Takes long.
            pairs_from: How many of a unit's best words are paired.
            min_support: A word takes part when so many train images show it, by the CLIP's probabilities.
            options: Of the similarity function, such as top_k=28; None is its published default.
        """
        if similarity not in SIMILARITIES:
            raise unknown("similarity function", similarity, SIMILARITIES)
        given = {name: value for name, value in options.items() if value is not None}
        known = inspect.signature(SIMILARITIES[similarity]).parameters
        for name, value in given.items():
            if name not in [*known][2:]:
                raise unknown(f"option of {similarity}", name, [*known][2:])
            check(f"explain.clip_dissect.{name}", value, known[name].annotation)
        if n_labels < 1:
            raise UserError(f"explain.clip_dissect.n_labels is {n_labels}; it must be at least 1.")
        if pairs_from < 2:
            raise UserError(f"explain.clip_dissect.pairs_from is {pairs_from}; a pair needs at least 2 words.")
        self.clip, self.words, self.similarity = clip, words, similarity
        self.pairs, self.pairs_from, self.min_support = pairs, pairs_from, min_support
        self.n_labels, self.n_evidence, self.options = n_labels, n_evidence, given

    @property
    def encoders(self) -> tuple[str, ...]:
        """Those of the CLIP."""
        return self.clip.encoders

    def explain(self, target: "Target", probe: "Probe", trainer: TrainerFactory) -> list[Explanation]:
        """Labels the units asked for; the scores depend on all units of a layer, so whole layers are compared.

        Raises:
            UserError: With fewer train and val images than the function's top_k; with activations that are not finite.
        """
        from neuronx.recording.record import record

        rows, names = probe.split("train", "val"), self._names(probe, trainer)
        self._check_number(len(rows), probe.name)
        images = self.clip.embed_images(probe, trainer)[rows]
        cosines = images @ self.clip.embed_texts(names).T
        explanations: list[Explanation] = []
        for layer, recorded in record(target, probe, trainer).items():
            units = target.units_of(layer, len(recorded.units))
            explanations += self.explain_layer(recorded, rows, cosines, names, units, images if self.pairs else None)
        explanations = [replace(explanation, made_by=self.encoders) for explanation in explanations]
        try:
            return with_support(explanations, lambda names: self.clip.judge(names, probe, trainer), probe)
        except UserError:  # a CLIP that nothing calibrates: cosines choose the words, and no probabilities are there
            return explanations

    def _names(self, probe: "Probe", trainer: TrainerFactory) -> tuple[str, ...]:
        """The words that enough train images show."""
        names = self.words.of(probe)
        if not self.min_support:
            return names
        judged = self.clip.judge(names, probe, trainer)
        parts = [judged.scores(rows).double().sum(0) for rows in probe.splits["train"].split(BATCH)]
        mass = torch.stack(parts).sum(0)
        kept = tuple(name for name, enough in zip(names, mass >= self.min_support, strict=True) if enough)
        if not kept:
            raise UserError(
                f"No word is shown by {self.min_support:g} train images (explain.clip_dissect.min_support): take other "
                "words, or lower it."
            )
        return kept

    def explain_layer(
        self,
        recorded: Activations,
        rows: Tensor,
        cosines: Tensor,
        names: tuple[str, ...],
        units: Sequence[int] | None = None,
        images: Tensor | None = None,
    ) -> list[Explanation]:
        """Labels units of one layer.

        Args:
            recorded: The layer's activations on all N images.
            rows: (R,) the images to look at.
            cosines: (R, C) of those images with the concepts.
            names: The C concepts.
            units: Indices of those to label; all by default.
            images: (R, D) embeddings of those images, for labels that are pairs of concepts.
        """
        units = range(len(recorded.units)) if units is None else units
        values = recorded.values[rows]
        low, high = values.amin(0), values.amax(0)
        broken = (~(low.isfinite() & high.isfinite())).nonzero().flatten().tolist()
        if broken:
            raise UserError(
                f"Unit {recorded.units[broken[0]]} has activations that are not finite (NaN or infinite), and so have "
                f"{len(broken) - 1} others: check the network's weights and its preprocessing."
            )
        scores = SIMILARITIES[self.similarity](cosines, values, **self.options)
        chosen = scores.amax(1) > scores.amin(1) if scores.shape[1] > 1 else low < high
        if len(recorded.units) == 1 and not chosen.any() and bool(low < high):
            warnings.warn(
                f"Layer {recorded.layer} has one unit, which {self.similarity} has nothing to compare with: it gets no "
                "label. similarity=cos_similarity_cubed looks at each unit alone.",
                stacklevel=2,
            )
        best = dict(enumerate(labels(scores, names, self.n_labels)))
        if images is not None:
            best |= best_pairs(
                scores,
                names,
                [k for k in units if chosen[k]],
                images,
                values,
                lambda texts: self.clip.embed_texts(texts, store=False),
                self.similarity,
                self.n_labels,
                self.pairs_from,
                **self.options,
            )
        evidence = rows[strongest(values, min(self.n_evidence, len(rows))).T].tolist()
        return [
            Explanation(
                recorded.units[k],
                tuple((quoted(name), 1 / len(best[k])) for name, _ in best[k]),
                evidence=tuple(evidence[k]),
                notes=(("similarity", best[k][0][1]),),
            )
            if chosen[k]
            else Explanation(recorded.units[k], ())
            for k in units
        ]

    def _check_number(self, images: int, source: str) -> None:
        parameters = inspect.signature(SIMILARITIES[self.similarity]).parameters
        if "top_k" in parameters:
            top_k = self.options.get("top_k", parameters["top_k"].default)
            if top_k > images:
                raise UserError(
                    f"{self.similarity} compares the top {top_k} images of each unit and `{source}` has {images} in "
                    f"train and val: give it more images, or set explain.clip_dissect.top_k={max(1, images // 20)}."
                )


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
    n_labels: Count = 1,
    pairs_from: TwoOrMore = 100,
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
    for group in progress(list(grouped(lists)), "labels in pairs"):
        place = {text: row for row, text in enumerate(dict.fromkeys(text for unit in group for text in lists[unit]))}
        texts = embed(list(place))
        for unit in group:
            mine = texts[[place[text] for text in lists[unit]]]
            compared = values if similarity in JOINT else values[:, unit : unit + 1]
            again = SIMILARITIES[similarity](images @ mine.T, compared, **options)
            row = unit if similarity in JOINT else 0
            found[unit] = labels(again[row : row + 1], lists[unit], n_labels)[0]
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
