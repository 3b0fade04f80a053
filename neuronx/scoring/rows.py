"""The rows of a score table: each method's explanations, the shuffled and random baselines, and the ridge upper bound.

Whatever is asked of the judge is asked at once: the explanations' concepts, random ones, what the upper bound may use.
"""

import logging
import math
import random
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Generic, TypeVar

import torch
from torch import Tensor

from neuronx.concepts.formula import Formulas, parse, quoted, spoken
from neuronx.errors import UserError, unknown
from neuronx.options import Count, NotNegative, Seed, check_fields
from neuronx.scoring.baselines import randomised, shuffled, wide_list
from neuronx.scoring.predictors import JudgedConcepts, Predictor, SumOfParts, WeightedConcepts, fit_ridge, fit_sum
from neuronx.targets.dictionary import SUFFIX
from neuronx.types import Activations, Explanation, Judge, Score, TrainerFactory, Unit

if TYPE_CHECKING:
    from neuronx.data.probe import Probe
    from neuronx.targets.target import Target

SHUFFLED, RANDOM, CEILING = "shuffled-", "random-", "ceiling"


def is_method(name: str) -> bool:
    """Whether a row of the leaderboard is a real method, neither a baseline nor the upper bound."""
    return name != CEILING and not name.startswith((SHUFFLED, RANDOM))


FEWEST = 10
"""A latent of a dictionary that fires on fewer test images is rare: a correlation with so few says nothing."""

log = logging.getLogger(__name__)

P = TypeVar("P", bound=Predictor, covariant=True)

PARTS = "-parts"
"""Follows the name of a method where the parts of its units are scored as units of their own."""


@dataclass(frozen=True)
class Row:
    """One explanation to be scored.

    Attributes:
        method: Its method, or the baseline or upper bound that it belongs to.
        explanation: Of one unit.
        column: Of the unit in its layer's activations.
        status: ok, inactive, rare, unjudged, untested, or broken for a unit that is NaN or infinite on some image.
    """

    method: str
    explanation: Explanation
    column: int
    status: str


@dataclass(frozen=True)
class MethodRows(Generic[P]):
    """The rows of one method and layer.

    Attributes:
        layer: The layer.
        rows: One a unit, whether it can be scored or not.
        predictor: Of the rows whose status is ok, in order.
    """

    layer: str
    rows: Sequence[Row]
    predictor: P

    def scores(
        self, results: Iterable[tuple[float, float, str]], name: str, target: str, pool: str, judge: str, images: str
    ) -> list[Score]:
        """A score for each row, in a table; those that could not be scored have the value NaN.

        Args:
            results: (value, standard error, status) of the rows whose status is ok, in order.
            name: Of the score.
            target: Name of the network.
            pool: Of the layer.
            judge: Name of the judge.
            images: `<data>/<split>:<n>`.
        """
        scored = iter(results)
        n = int(images.rsplit(":", 1)[1])
        scores = []
        for row in self.rows:
            value, sem, status = next(scored) if row.status == "ok" else (math.nan, math.nan, row.status)
            unit, text = row.explanation.unit, str(row.explanation)
            scores.append(
                Score(target, pool, unit, row.method, name, value, sem, n, status, text, judge=judge, images=images)
            )
        return scores


@dataclass(frozen=True)
class ScoreTable:
    """All that is to be scored, and what the judge sees of every concept in it.

    Attributes:
        methods: Layer by layer, method by method.
        concepts: Used by the predictors.
    """

    methods: Sequence[MethodRows[WeightedConcepts]]
    concepts: JudgedConcepts


@dataclass(frozen=True)
class TableOptions:
    """Options shared by correlation and ablation scoring: baselines, upper bound, batch size.

    Attributes:
        seed: Of the baselines.
        floors: Whether to add rows `shuffled-<method>` and `random-<method>`.
        ceiling: Whether to add the row `ceiling`.
        ceiling_concepts: How many concepts the upper bound may use: first those of the explanations, then random ones
            of the judge's vocabulary, or of the word list where the judge knows any phrase.
        batch_size: Images at a time.
        min_support: A concept that fewer test images show, by the judge's probabilities, tests nothing. At 0 only those
            do not in which the test images do not differ.
    """

    seed: Seed = 0
    floors: bool = True
    ceiling: bool = True
    ceiling_concepts: Count = 2000
    batch_size: Count = 128
    min_support: NotNegative = 0

    def __post_init__(self) -> None:
        check_fields(self, f"sim.{type(self).__name__.lower()}")

    def table(
        self,
        explained: Mapping[str, Sequence[Explanation]],
        recorded: Mapping[str, Activations],
        probe: "Probe",
        judge: Judge,
        trainer: TrainerFactory,
        words: Sequence[str] = (),
    ) -> ScoreTable:
        """Lines up explanations, baselines and the upper bound, which is fitted on train and val.

        `recorded` has the activations of each layer; the other arguments are those of `Scorer.score`.

        Raises:
            UserError: Explanations of an unknown unit, two for one unit, or broken formulas.
        """
        test, fit = probe.split("test"), probe.split("train", "val")
        active = {
            layer: (active_units(one, fit), active_units(one, test), rare_units(one, test))
            for layer, one in recorded.items()
        }
        names = judge.vocabulary(probe) or tuple(words)
        told = with_names(explained, (*names, *probe.class_names))
        given = {layer: explanation_rows(told, one, *active[layer]) for layer, one in recorded.items()}
        own = _concepts(given.values())
        pool = tuple(map(quoted, names))
        broad = self._broad(own, pool or own) if self.ceiling else ()
        # Not for the upper bound, which would have the judge see a thousand phrases more.
        listed = pool or (wide_list(own, probe) if self.floors else ())
        drawn = {layer: random_rows(rows, listed, self.seed) if self.floors else [] for layer, rows in given.items()}
        formulas = Formulas((*own, *broad, *_concepts(drawn.values())))
        concepts = JudgedConcepts(formulas, judge.judge(formulas.atoms, probe, trainer))
        known = formulas.places(concepts.judgement.known)
        mass, differs = concepts.support(test, self.batch_size)
        tests = (differs & (mass >= self.min_support)).tolist()
        tested = {concept for concept, place in known.items() if tests[place]}

        methods: list[MethodRows[WeightedConcepts]] = []
        for layer, rows in given.items():
            judged = mark_untested(tested, mark_unjudged(known, rows))
            status = {(RANDOM + row.method, row.explanation.unit): row.status for row in judged}
            by_chance = [replace(row, status=status[row.method, row.explanation.unit]) for row in drawn[layer]]
            swapped = shuffled_rows(judged, self.seed) if self.floors else []
            methods += _by_method(layer, [*judged, *mark_untested(tested, by_chance), *swapped], known)
        chosen = torch.tensor([known[concept] for concept in broad if concept in known], dtype=torch.long)
        if len(chosen) and recorded:
            train, val = probe.split("train"), probe.split("val")
            fitted = fit_ridge(concepts, chosen, recorded, train, val, self.batch_size)
            for layer, (predictor, penalty) in fitted.items():
                methods.append(_upper_bound(given[layer], recorded[layer], *active[layer], predictor, penalty))
        return ScoreTable(methods, concepts)

    def _broad(self, own: Sequence[str], pool: Sequence[str]) -> list[str]:
        """What the upper bound may use: `ceiling_concepts` of the explanations' concepts and the pool."""
        draw, limit = random.Random(f"{self.seed}/{CEILING}"), self.ceiling_concepts
        if len(own) >= limit:
            return sorted(draw.sample(own, limit))
        others = sorted(set(pool) - set(own))
        return [*own, *sorted(draw.sample(others, min(len(others), limit - len(own))))]


def with_names(explained: Mapping[str, Sequence[Explanation]], names: Sequence[str]) -> dict[str, list[Explanation]]:
    """Explanations in which a concept that is one of some names, such as DO NOT ENTER, stands in quotes."""
    known = frozenset(map(spoken, names))

    def formula(concept: str) -> str:
        return str(parse(concept, known)) if spoken(concept) in known else concept

    return {
        method: [
            replace(one, terms=tuple((formula(concept), weight) for concept, weight in one.terms)) for one in given
        ]
        for method, given in explained.items()
    }


def layers_of(explained: Mapping[str, Sequence[Explanation]], target: "Target") -> dict[str, str]:
    """Layer -> pooling, of the layers that explanations are about; UserError for one that was not asked for."""
    layers = dict.fromkeys(explanation.unit.layer for given in explained.values() for explanation in given)
    for layer in layers:
        if layer not in target.layers:
            raise unknown(f"layer among those asked for of {target.name}", layer, target.layers)
    return {layer: target.layers[layer] for layer in layers}


def active_units(recorded: Activations, rows: Tensor) -> Tensor:
    """Which units (K,) change at all on some images."""
    low = torch.full((len(recorded.units),), torch.inf)
    high = -low
    for part in rows.split(512):
        values = recorded.values[part]
        low, high = torch.minimum(low, values.amin(0)), torch.maximum(high, values.amax(0))
    return low < high


def rare_units(recorded: Activations, rows: Tensor) -> Tensor:
    """Which units (K,), latents of a dictionary, are other than 0 on fewer than `FEWEST` of some images."""
    if not recorded.layer.endswith(SUFFIX):
        return torch.zeros(len(recorded.units), dtype=torch.bool)
    fires = torch.zeros(len(recorded.units), dtype=torch.int64)
    for part in rows.split(512):
        fires += (recorded.values[part] != 0).sum(0)
    return fires < FEWEST


def explanation_rows(
    explained: Mapping[str, Sequence[Explanation]], recorded: Activations, on_fit: Tensor, on_test: Tensor, rare: Tensor
) -> list[Row]:
    """The explanations of one layer, method by method. A part of a unit is scored against the whole unit.

    Args:
        explained: Method -> its explanations, of this and other layers.
        recorded: The layer.
        on_fit: (K,) bool, which units change on train and val.
        on_test: (K,) bool, the same on test.
        rare: (K,) bool, which fire on too few images of test.

    Raises:
        UserError: A unit that the layer does not have, or two explanations of one unit.
    """
    columns = {unit: column for column, unit in enumerate(recorded.units)}
    rows: list[Row] = []
    for method, given in explained.items():
        before: set[Unit] = set()
        for explanation in given:
            unit = explanation.unit
            if unit.layer != recorded.layer:
                continue
            column = columns.get(unit, columns.get(replace(unit, part=None)))
            if column is None:
                raise UserError(
                    f"{method} explains unit {unit}, but the layer has units 0 to {len(recorded.units) - 1}."
                )
            if unit in before:
                raise UserError(f"{method} explains unit {unit} twice; only one explanation a unit can be scored.")
            before.add(unit)
            inactive = not on_test[column] or not (explanation.terms or on_fit[column])
            sound = "inactive" if inactive else "rare" if rare[column] else "ok"
            status = "broken" if column in recorded.broken else sound
            rows.append(Row(method, explanation, column, status))
    return rows


def mark_unjudged(known: Collection[str], rows: Sequence[Row]) -> list[Row]:
    """The rows, those unjudged that have a concept which the judge does not know."""
    return [
        replace(row, status="unjudged")
        if row.status == "ok" and any(concept not in known for concept, _ in row.explanation.terms)
        else row
        for row in rows
    ]


def mark_untested(tested: Collection[str], rows: Sequence[Row]) -> list[Row]:
    """The rows, those untested that have concepts none of which the test images test."""
    return [
        replace(row, status="untested")
        if row.status == "ok"
        and row.explanation.terms
        and not any(concept in tested for concept, _ in row.explanation.terms)
        else row
        for row in rows
    ]


def random_rows(rows: Sequence[Row], pool: Sequence[str], seed: int) -> list[Row]:
    """The baseline `random-<method>`: beside each row one with random concepts; none where the pool has no others."""
    drawn: list[Row] = []
    without: dict[str, list[str]] = {}
    for row in rows:
        method, other = RANDOM + row.method, randomised(row.explanation, pool, f"{seed}/{row.method}")
        if other is None:
            without.setdefault(method, []).append(str(row.explanation.unit))
        else:
            drawn.append(replace(row, method=method, explanation=other))
    for method, units in without.items():
        shown = ", ".join(units[:5]) + (", ..." if len(units) > 5 else "")
        why = "there are no concepts to draw but those of their own explanations"
        log.warning("%s is left out for %d units (%s): %s.", method, len(units), shown, why)
    return drawn


def shuffled_rows(rows: Sequence[Row], seed: int) -> list[Row]:
    """The baseline `shuffled-<method>` of one layer: explanations that can be scored, permuted among their units.

    A method with only one such explanation, or all of the same concepts, has no such baseline.
    """
    baseline: list[Row] = []
    for method in dict.fromkeys(row.method for row in rows):
        own = [row for row in rows if row.method == method]
        sound = [row.explanation for row in own if row.status == "ok"]
        if len(sound) < 2:
            continue
        given = {other.unit: other for other in shuffled(sound, f"{seed}/{method}/{sound[0].unit.layer}")}
        if len(given) < len(sound):
            left = f"left out for {len(sound) - len(given)} of {len(sound)} units" if given else "left out"
            log.warning(
                "%s%s is %s of %s: too many explanations have the same concepts.",
                SHUFFLED, method, left, sound[0].unit.layer or "the output",
            )  # fmt: skip
        for row in own if given else []:
            other = row.explanation if row.status != "ok" else given.get(row.explanation.unit)
            if other is not None:
                baseline.append(replace(row, method=SHUFFLED + method, explanation=other))
    return baseline


def parts_apart(explained: Mapping[str, Sequence[Explanation]]) -> dict[str, list[Explanation]]:
    """Explanations by method, those of parts of units under the method's name and `-parts`."""
    apart: dict[str, list[Explanation]] = {}
    for method, given in explained.items():
        parts = [explanation for explanation in given if explanation.unit.part is not None]
        apart[method] = [explanation for explanation in given if explanation.unit.part is None]
        if parts:
            apart[method + PARTS] = parts
    return apart


def rows_of_sums(
    table: ScoreTable, recorded: Mapping[str, Activations], rows: Tensor, batch_size: Count
) -> list[MethodRows[SumOfParts]]:
    """The units that were explained in parts, as rows of the method; a unit is predicted by the sum of its parts.

    A part cannot be less than nothing, so its prediction is cut at 0; its weight is fitted to the unit. A unit is
    unjudged when one of its parts is; where no part can be scored it is untested or rare when one of them is, broken
    when all are, else inactive. Parts that cannot be scored add nothing.

    Args:
        table: With the rows of parts.
        recorded: Layer -> activations.
        rows: The images to fit on.
        batch_size: Images at a time.
    """
    sums = []
    for method in table.methods:
        if not (method.rows and method.rows[0].method.endswith(PARTS)):
            continue
        parts: dict[Unit, list[Row]] = {}
        for row in method.rows:
            parts.setdefault(_whole(row), []).append(row)
        sound = [_whole(row) for row in method.rows if row.status == "ok"]
        unjudged = {unit for unit, own in parts.items() if any(row.status == "unjudged" for row in own)}
        scored = [unit for unit in dict.fromkeys(sound) if unit not in unjudged]
        # A part of an unjudged unit goes to a place after the last, which is cut off.
        place = {unit: at for at, unit in enumerate(scored)}
        columns = {unit: column for column, unit in enumerate(recorded[method.layer].units)}
        whole = []
        for unit in [*scored, *(unit for unit in parts if unit not in place)]:
            states = {row.status for row in parts[unit]}
            others = "broken" if states == {"broken"} else "inactive"
            others = next((state for state in ("untested", "rare") if state in states), others)
            status = "ok" if unit in place else "unjudged" if unit in unjudged else others
            text = " | ".join(str(row.explanation) for row in parts[unit])
            name = method.rows[0].method.removesuffix(PARTS)
            whole.append(Row(name, Explanation(unit, ((text, 1.0),)), columns[unit], status))
        predictor = fit_sum(
            method.predictor.scaled(),
            torch.tensor([place.get(unit, len(scored)) for unit in sound], dtype=torch.int64),
            torch.tensor([columns[unit] for unit in scored], dtype=torch.int64),
            recorded[method.layer].values,
            table.concepts,
            rows,
            batch_size,
        )
        sums.append(MethodRows(method.layer, whole, predictor))
    return sums


def _whole(row: Row) -> Unit:
    """The unit that a part belongs to."""
    return replace(row.explanation.unit, part=None)


def _concepts(rows: Iterable[Sequence[Row]]) -> tuple[str, ...]:
    """The distinct concepts of the rows of layers, formulas whole, sorted."""
    return tuple(sorted({concept for layer in rows for row in layer for concept, _ in row.explanation.terms}))


def _by_method(layer: str, rows: Sequence[Row], known: Mapping[str, int]) -> list[MethodRows[WeightedConcepts]]:
    """The rows of one layer, sorted by method, with what they predict."""
    methods = []
    for name in dict.fromkeys(row.method for row in rows):
        own = [row for row in rows if row.method == name]
        sound = [row for row in own if row.status == "ok"]
        terms = [row.explanation.terms for row in sound]
        longest = max(map(len, terms), default=0)
        concepts = [[known[concept] for concept, _ in some] + [0] * (longest - len(some)) for some in terms]
        weights = [[weight for _, weight in some] + [0.0] * (longest - len(some)) for some in terms]
        shape = len(sound), longest
        predictor = WeightedConcepts(
            layer,
            columns=torch.tensor([row.column for row in sound], dtype=torch.long),
            concepts=torch.tensor(concepts, dtype=torch.long).view(shape),
            weights=torch.tensor(weights, dtype=torch.float64).view(shape),
            bias=torch.tensor([row.explanation.bias for row in sound], dtype=torch.float64),
        )
        methods.append(MethodRows(layer, own, predictor))
    return methods


def _upper_bound(
    rows: Sequence[Row],
    recorded: Activations,
    on_fit: Tensor,
    on_test: Tensor,
    rare: Tensor,
    predictor: WeightedConcepts,
    penalty: Tensor,
) -> MethodRows[WeightedConcepts]:
    """The upper bound of every unit that any method explains, whole or in parts; a layer's own units come first."""
    units: dict[Unit, int] = {}
    for row in rows:
        unit = row.explanation.unit
        units[replace(unit, part=None)] = row.column if unit.part is None else unit.index
    active = (on_fit & on_test).tolist()
    bound = []
    for unit, column in sorted(units.items()):
        text = f"ridge on {len(predictor.concepts)} concepts, penalty {penalty[column]:g}"
        sound = "inactive" if not active[column] else "rare" if rare[column] else "ok"
        status = "broken" if column in recorded.broken else sound
        bound.append(Row(CEILING, Explanation(unit, ((text, 1.0),)), column, status))
    columns = torch.tensor([row.column for row in bound if row.status == "ok"], dtype=torch.long)
    return MethodRows(predictor.layer, bound, predictor.units(columns))
