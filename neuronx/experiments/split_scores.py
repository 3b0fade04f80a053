"""Do the named parts of a unit predict it better than one explanation of the whole with as many terms?

Both are simulated by the same judge on test images. To be fair to the whole, it is also simulated with a weight of its
own for each of its terms, fitted to the unit with the judge's scores, as the weight of each part is.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from neuronx.errors import UserError
from neuronx.methods.pure.method import Pure, split_target, study
from neuronx.metrics.bootstrap import interval, mean_and_sem
from neuronx.recording.record import record
from neuronx.scoring.correlation import Correlation
from neuronx.types import Cell, Explanation, Judge, Method, Table, TrainerFactory, Unit, as_found

if TYPE_CHECKING:
    from neuronx.data.probe import Probe
    from neuronx.targets.target import Target

SPLIT, UNSPLIT, FREE = "split", "unsplit", "unsplit-free"


@dataclass(frozen=True)
class SplitScore:
    """One unit, split and unsplit: correlations with the unit on test images.

    Attributes:
        unit: The unit.
        p: Of the test that it is polysemantic.
        parts: Their number.
        terms: Of either explanation.
        split: Of the sum of its parts' predictions.
        unsplit: Of the explanation of the whole.
        free: Of the same terms, each with a weight fitted to the unit as the judge sees it.
        explanations: In words, split and unsplit.
    """

    unit: Unit
    p: float
    parts: int
    terms: int
    split: float
    unsplit: float
    free: float
    explanations: tuple[str, str] = ("", "")


def split_scores(
    pure: Pure,
    target: "Target",
    probe: "Probe",
    judge: Judge,
    trainer: TrainerFactory,
    terms: int = 3,
) -> list[SplitScore]:
    """Scores all units that PURE splits, as parts with `terms` terms each and as wholes with as many in all.

    Args:
        pure: Splits and describes. With `alpha=None` it splits pure units too, which gains nothing if they are pure.
        target: The network.
        probe: The images.
        judge: Who says which concepts an image shows.
        trainer: Makes trainers.
        terms: Of the explanation of each part.

    Raises:
        UserError: A describer whose number of terms cannot be set, or that is asked for fewer than one.
    """
    findings = study(target, probe, trainer, pure)
    split = split_target(target, findings, pure)
    describer = pure.describe[pure.describes]
    parts: dict[Unit, list[int]] = {}
    for recorded in record(split, probe, trainer).values():
        for column, unit in enumerate(recorded.units):
            if unit.part is not None:
                parts.setdefault(replace(unit, part=None), []).append(column)
    columns = {layer: [c for unit, own in parts.items() if unit.layer == layer for c in own] for layer in split.layers}
    split_in_terms = with_terms(describer, terms).explain(replace(split, units=columns), probe, trainer)
    explained = {SPLIT: list(as_found(split_in_terms).explanations), UNSPLIT: []}
    for k in sorted({len(own) for own in parts.values()}):
        alike = {
            layer: [u.index for u, own in parts.items() if u.layer == layer and len(own) == k] for layer in columns
        }
        chosen = replace(target, units=alike)
        explained[UNSPLIT] += as_found(with_terms(describer, k * terms).explain(chosen, probe, trainer)).explanations
    # As parts of their unit, terms get the weights that fit.
    explained[FREE] = [
        Explanation(replace(whole.unit, part=at), ((concept, 1.0),))
        for whole in explained[UNSPLIT]
        for at, (concept, _) in enumerate(whole.terms)
    ]
    simulation = Correlation(floors=False, ceiling=False)
    scores: dict[tuple[str, Unit], Any] = {
        (score.method, score.unit): score for score in simulation.score(explained, split, probe, judge, trainer).rows
    }
    p = {
        Unit(layer, unit): float(chance)
        for layer, found in findings.items()
        for unit, chance in zip(found.references.units.tolist(), found.verdicts.p, strict=True)
    }
    return [
        SplitScore(
            unit=unit,
            p=p[unit],
            parts=len(own),
            terms=terms * len(own),
            split=scores[SPLIT, unit].value,
            unsplit=scores[UNSPLIT, unit].value,
            free=scores[FREE, unit].value,
            explanations=(scores[SPLIT, unit].explanation, scores[UNSPLIT, unit].explanation),
        )
        for unit, own in parts.items()
        if all((method, unit) in scores and scores[method, unit].status == "ok" for method in (SPLIT, UNSPLIT, FREE))
    ]


def with_terms(method: Method, terms: int) -> Any:
    """The same method with exactly so many terms in each explanation, where there are enough concepts.

    Raises:
        UserError: The method does not let its number of terms be set, or fewer than one is asked for.
    """
    if terms < 1:
        raise UserError(f"terms={terms}: an explanation needs at least 1.")
    same: Any = copy.copy(method)
    if hasattr(same, "max_length"):
        same.max_length, same.tolerance = terms, -1.0  # every term is worth it
    elif hasattr(same, "n_labels"):
        same.n_labels = terms
    else:
        raise UserError(
            f"{type(method).__name__} has no number of terms to set, and parts and wholes are compared at the same: "
            "use describe=le_label, le_clip or clip_dissect."
        )
    return same


def gains(scores: Sequence[SplitScore], groups: Mapping[str, Sequence[Unit]], seed: int = 0) -> Table:
    """Means of split and unsplit scores by group of units, and of their differences with 95 % bootstrap intervals.

    Args:
        scores: Of units.
        groups: Name -> units.
        seed: Of the bootstrap.

    Returns:
        Columns and rows; `gain` is over the explanation of the whole, `gain_free` over its terms with weights that fit.
    """
    columns = (
        "group",
        "units",
        "split",
        "unsplit",
        "free",
        "gain",
        "low",
        "high",
        "gain_free",
        "low_free",
        "high_free",
    )
    rows: list[list[Cell]] = []
    for name, units in groups.items():
        mine = [one for one in scores if one.unit in set(units)]
        if not mine:
            continue
        means = [mean_and_sem([getattr(one, field) for one in mine])[0] for field in ("split", "unsplit", "free")]
        gain = interval([one.split - one.unsplit for one in mine], seed=seed)
        over_free = interval([one.split - one.free for one in mine], seed=seed)
        rows.append([name, len(mine), *means, *gain, *over_free])
    return columns, rows


def groups_by_test(scores: Sequence[SplitScore], alpha: float) -> dict[str, list[Unit]]:
    """The units that the test calls polysemantic at a level, and the others."""
    return {
        "polysemantic": [one.unit for one in scores if one.p < alpha],
        "pure": [one.unit for one in scores if one.p >= alpha],
    }
