"""Units that were explained in parts: the unit's simulation is the sum of its parts'.

A part cannot be less than nothing, so its prediction is cut at 0; how much each part counts is fitted to the unit on
the train and val images by least squares.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from neuronx.concepts.formula import Formulas
from neuronx.scoring.claims import Claim
from neuronx.scoring.panels import Panel
from neuronx.scoring.simulator import Predictor, judged
from neuronx.types import Activations, Explanation, Judgement, Unit

PARTS = "-parts"
"""Follows the name of a method where its parts stand as units of their own."""


@dataclass(frozen=True)
class Sum:
    """Predictions of K units of one layer: bias + sum over the parts of weight times the part's prediction, cut at 0.

    Attributes:
        parts: What predicts the P parts.
        of: (P,) int64, which of the K units each part belongs to.
        columns: (K,) of the units in the layer's activations.
        weights: (P,) float64.
        bias: (K,) float64.
    """

    parts: Predictor
    of: Tensor
    columns: Tensor
    weights: Tensor
    bias: Tensor

    @property
    def layer(self) -> str:
        """Where the units are."""
        return self.parts.layer

    def predict(self, concepts: Tensor) -> Tensor:
        """From concept scores (C, B) float64 to predictions (K, B) float64."""
        shares = self.parts.predict(concepts).clamp(min=0) * self.weights.to(concepts)[:, None]
        bias = self.bias.to(concepts)[:, None].expand(-1, concepts.shape[1]).clone()
        return bias.index_add_(0, self.of.to(concepts.device), shares)


def apart(explained: Mapping[str, Sequence[Explanation]]) -> dict[str, list[Explanation]]:
    """Explanations by method, those of parts of units under the method's name and `-parts`."""
    found: dict[str, list[Explanation]] = {}
    for method, ones in explained.items():
        parts = [one for one in ones if one.unit.part is not None]
        found[method] = [one for one in ones if one.unit.part is None]
        if parts:
            found[method + PARTS] = parts
    return found


def sums(
    panels: Sequence[Panel],
    recorded: Mapping[str, Activations],
    formulas: Formulas,
    judgement: Judgement,
    rows: Tensor,
    batch_size: int = 128,
) -> list[tuple[Panel, Sum]]:
    """The units that were explained in parts, as claims of the method, with what predicts them.

    A unit is unjudged when one of its parts is, and inactive when all of them are; parts that are inactive add nothing.

    Args:
        panels: Among them those of parts.
        recorded: Layer -> activations.
        formulas: The concepts that predictors count.
        judgement: Of their atoms.
        rows: The images to fit on.
        batch_size: Images at a time.
    """
    made = [(one, *_units(one)) for one in panels if one.claims and one.claims[0].method.endswith(PARTS)]
    found = []
    for panel, units, of in made:
        columns = {unit: column for column, unit in enumerate(recorded[panel.layer].units)}
        places = torch.tensor([columns[unit] for unit in units], dtype=torch.int64)
        begun = Sum(panel.predictor, of, places, torch.ones(len(of)).double(), torch.zeros(len(units)).double())
        fitted = _fit(begun, recorded[panel.layer].values, formulas, judgement, rows, batch_size)
        found.append((replace(panel, claims=_claims(panel, columns, units)), fitted))
    return found


def _units(panel: Panel) -> tuple[list[Unit], Tensor]:
    """The units whose parts can be scored, and which of them each such part belongs to."""
    unjudged = {_whole(one) for one in panel.claims if one.status == "unjudged"}
    sound = [_whole(one) for one in panel.claims if one.status == "ok"]
    units = [unit for unit in dict.fromkeys(sound) if unit not in unjudged]
    # A part of an unjudged unit goes to a place after the last, which is cut off.
    place = {unit: at for at, unit in enumerate(units)}
    return units, torch.tensor([place.get(unit, len(units)) for unit in sound], dtype=torch.int64)


def _claims(panel: Panel, columns: Mapping[Unit, int], scored: Sequence[Unit]) -> list[Claim]:
    """A claim for each unit that has parts, in words their explanations one by one; those scored come first."""
    parts: dict[Unit, list[Claim]] = {}
    for one in panel.claims:
        parts.setdefault(_whole(one), []).append(one)
    method = panel.claims[0].method.removesuffix(PARTS)
    made = []
    for unit in [*scored, *(unit for unit in parts if unit not in set(scored))]:
        states = {one.status for one in parts[unit]}
        status = "ok" if unit in scored else "unjudged" if "unjudged" in states else "inactive"
        text = " | ".join(str(one.explanation) for one in parts[unit])
        made.append(Claim(method, Explanation(unit, ((text, 1.0),)), columns[unit], status))
    return made


def _whole(claim: Claim) -> Unit:
    return replace(claim.explanation.unit, part=None)


def _fit(one: Sum, values: Tensor, formulas: Formulas, judgement: Judgement, rows: Tensor, batch_size: int) -> Sum:
    """Weights and bias by least squares, all units at once; parts that predict a constant get a weight of 0."""
    units = len(one.columns)
    # The place of each part among those of its unit.
    by_unit = one.of.argsort(stable=True)
    counts = one.of.bincount(minlength=units + 1)
    order = torch.empty_like(one.of)
    order[by_unit] = torch.arange(len(one.of)) - (counts.cumsum(0) - counts)[one.of[by_unit]]
    width = int(order.max()) + 2 if len(order) else 1
    gram, cross = torch.zeros(units + 1, width, width).double(), torch.zeros(units + 1, width).double()
    for some in rows.split(batch_size):
        concepts = judged(judgement, some, formulas, torch.device("cpu"))
        x = torch.zeros(units + 1, width, len(some)).double()
        x[:, -1] = 1
        x[one.of, order] = one.parts.predict(concepts).clamp(min=0)
        y = torch.zeros(units + 1, len(some)).double()
        y[:units] = values[some][:, one.columns].T.double()
        gram += x @ x.transpose(1, 2)
        cross += (x @ y[:, :, None])[:, :, 0]
    fitted = torch.linalg.pinv(gram, rtol=1e-10, hermitian=True) @ cross[:, :, None]
    weights, bias = fitted[one.of, order, 0], fitted[:units, -1, 0]
    # What belongs to no unit that can be scored goes.
    kept = one.of < units
    parts = replace(
        one.parts,
        columns=one.parts.columns[kept],
        concepts=one.parts.concepts[kept],
        weights=one.parts.weights[kept],
        bias=one.parts.bias[kept],
    )
    return Sum(parts, one.of[kept], one.columns, weights[kept], bias)
