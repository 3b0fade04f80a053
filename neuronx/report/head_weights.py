"""Compares the weights of a linear head with the units' descriptions (CLIP-Dissect, figure 5 and appendix A.6).

A head that classifies by pooled units has a weight for each unit and class. If descriptions are right, large weights
join units and classes of similar meaning, and the description of the unit that contributes most to a prediction names
the predicted class. Descriptions are compared with names of classes by equality, or by cosine in a text space.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from neuronx.concepts.formula import spoken
from neuronx.errors import UserError
from neuronx.metrics.correlation import moments, pearson
from neuronx.types import Explanation

LARGEST = 10
"""How many of the largest weights are named."""

ROWS = 2**24
"""How many contributions are held at a time."""


@dataclass(frozen=True)
class Link:
    """One weight of a head: from a unit to a class."""

    weight: float
    unit: int
    description: str
    class_name: str
    similarity: float


@dataclass(frozen=True)
class HeadAlignment:
    """How similar units' descriptions are to the classes that they have large weights for.

    Attributes:
        sizes: Numbers of weights, 4, 16, ... and all of them.
        similarity: For each, the mean similarity of description and class over that many of the largest weights.
        pearson: Correlation of weight and similarity over all weights, in [-1, 1]; NaN where similarity is constant.
        links: The largest weights, largest first.
        n_units: How many units have a description that can be compared; only they count.
    """

    sizes: tuple[int, ...]
    similarity: tuple[float, ...]
    pearson: float
    links: tuple[Link, ...]
    n_units: int


@dataclass(frozen=True)
class NamedByUnit:
    """The class of N images that the description of one unit names.

    Attributes:
        predicted: (N,) int64, the class that the network predicts.
        unit: (N,) int64, the unit that contributes most to it, among those with a description.
        named: (N,) int64, the class most similar to that unit's description; -1 where none is more similar than others.
        equal_to_label: Share of images whose named class is their label; NaN without labels.
        equal_to_prediction: Share of images whose named class is the predicted one.
        chance: What `equal_to_prediction` would be if any unit with a description were asked instead.
        accuracy: Share of images that the network classifies rightly; NaN without labels.
    """

    predicted: Tensor
    unit: Tensor
    named: Tensor
    equal_to_label: float
    equal_to_prediction: float
    chance: float
    accuracy: float


def align_weights(
    weight: Tensor, similarity: Tensor, descriptions: Sequence[str], class_names: Sequence[str]
) -> HeadAlignment:
    """Mean similarity over the largest weights of a head; of equal weights the lower class and unit come first.

    Args:
        weight: (C, K).
        similarity: (C, K) of class names and descriptions; columns of NaN for units without a description.
        descriptions: Of the K units.
        class_names: Of the C classes.

    Raises:
        UserError: Shapes that do not fit together, or no unit with a description.
    """
    units = _described(weight, similarity, descriptions, class_names)
    weights, similar = weight[:, units].double().flatten(), similarity[:, units].double().flatten()
    order = weights.argsort(descending=True, stable=True)
    running = similar[order].cumsum(0)
    sizes = [4**power for power in range(1, 32) if 4**power < len(order)] + [len(order)]
    links = []
    for place in order[:LARGEST].tolist():
        row, unit = place // len(units), int(units[place % len(units)])
        links.append(
            Link(float(weights[place]), unit, descriptions[unit], class_names[row], float(similarity[row, unit]))
        )
    means = tuple(float(running[size - 1] / size) for size in sizes)
    return HeadAlignment(
        tuple(sizes), means, float(pearson(moments(weights[None], similar[None]))[0]), tuple(links), len(units)
    )


def name_by_unit(
    weight: Tensor,
    bias: Tensor,
    activations: Tensor,
    similarity: Tensor,
    descriptions: Sequence[str],
    class_names: Sequence[str],
    labels: Tensor | None = None,
) -> NamedByUnit:
    """Predicts the class of each image from the description of the unit that contributes most to the prediction.

    The contribution of unit k to the predicted class y is W[y, k] a[k].

    Args:
        weight: (C, K).
        bias: (C,).
        activations: (N, K), pooled as the head takes them.
        similarity: (C, K), as in `align_weights`.
        descriptions: Of the K units.
        class_names: Of the C classes.
        labels: (N,) int64, where they are known.

    Raises:
        UserError: As `align_weights`; activations, bias or labels that do not fit.
    """
    units = _described(weight, similarity, descriptions, class_names)
    if activations.ndim != 2 or activations.shape[1] != weight.shape[1] or bias.shape != weight.shape[:1]:
        raise UserError(
            f"A head with weights {tuple(weight.shape)} takes activations (images, {weight.shape[1]}) and a bias "
            f"({weight.shape[0]},), not {tuple(activations.shape)} and {tuple(bias.shape)}."
        )
    predicted, best = [], []
    for rows in activations.float().split(max(1, ROWS // (weight.shape[1] + weight.shape[0]))):
        predicted.append((rows @ weight.T.float() + bias.float()).argmax(1))
        best.append(units[(weight.float()[predicted[-1]] * rows)[:, units].argmax(1)])
    guess, unit = torch.cat(predicted), torch.cat(best)
    nearest = similarity.nan_to_num(-torch.inf).argmax(0)
    nearest[similarity.amax(0) == similarity.amin(0)] = -1
    named = nearest[unit]
    # How many units name each class: what to expect of a unit drawn at random.
    share = torch.bincount(nearest[units] + 1, minlength=len(class_names) + 1)[1:] / len(units)
    return NamedByUnit(
        predicted=guess,
        unit=unit,
        named=named,
        equal_to_label=_share(named, labels),
        equal_to_prediction=_share(named, guess),
        chance=float(share[guess].double().mean()),
        accuracy=_share(guess, labels),
    )


def similarity_by_name(descriptions: Sequence[str], class_names: Sequence[str]) -> Tensor:
    """1 where a description is the class's name (lower case, "_" as space), else 0: (C, K) float32; NaN for ""."""
    said, names = [spoken(text) for text in descriptions], [spoken(name) for name in class_names]
    same = torch.tensor([[float(text == name) for text in said] for name in names])
    same[:, [not text for text in said]] = torch.nan
    return same


def similarity_of_texts(
    embed: Callable[[Sequence[str]], Tensor], descriptions: Sequence[str], class_names: Sequence[str]
) -> Tensor:
    """Cosines of class names and descriptions in a text space: (C, K) float32; NaN for a description "".

    Args:
        embed: From phrases to embeddings (., D), such as `Clip.embed_texts`. Each distinct phrase is asked for once.
        descriptions: Of the K units.
        class_names: Of the C classes.
    """
    texts = list(dict.fromkeys([*class_names, *(text for text in descriptions if text)]))
    return similarity_in_space(texts, embed(texts), descriptions, class_names)


def similarity_in_space(
    names: Sequence[str], embeddings: Tensor, descriptions: Sequence[str], class_names: Sequence[str]
) -> Tensor:
    """Cosines of class names and descriptions that stand among the names of given embeddings: (C, K) float32.

    Args:
        names: Of M phrases, compared in lower case, "_" as space; of equal names the first counts.
        embeddings: (M, D).
        descriptions: Of the K units; columns of those that have no embedding are NaN.
        class_names: Of the C classes.

    Raises:
        UserError: A class without an embedding.
    """
    index = {spoken(name): place for place, name in reversed([*enumerate(names)])}
    if missing := [name for name in class_names if spoken(name) not in index]:
        raise UserError(f"There is no text embedding of the class `{missing[0]}`, nor of {len(missing) - 1} others.")
    unit = F.normalize(embeddings.float(), dim=1)
    places = torch.tensor([index.get(spoken(text), -1) for text in descriptions])
    cosines = unit[[index[spoken(name)] for name in class_names]] @ unit[places.clamp(min=0)].T
    cosines[:, places < 0] = torch.nan
    return cosines


def description(explanation: Explanation) -> str:
    """What stands for an explanation where one phrase is needed: its first term; nothing for an inactive unit."""
    return explanation.terms[0][0] if explanation.terms else ""


def _described(weight: Tensor, similarity: Tensor, descriptions: Sequence[str], class_names: Sequence[str]) -> Tensor:
    """Indices of the units that can be compared, (U,) int64."""
    if weight.ndim != 2 or not weight.shape == similarity.shape == (len(class_names), len(descriptions)):
        raise UserError(
            f"A head of {len(class_names)} classes and {len(descriptions)} units needs weights and similarities of "
            f"that shape, not {tuple(weight.shape)} and {tuple(similarity.shape)}."
        )
    units = (~similarity.isnan().any(0)).nonzero().flatten()
    if not len(units):
        raise UserError("No unit has a description that can be compared with the names of the classes.")
    return units


def _share(a: Tensor, b: Tensor | None) -> float:
    if b is None:
        return math.nan
    if a.shape != b.shape:
        raise UserError(f"There are {len(b)} labels for {len(a)} images.")
    return float((a == b).double().mean())
