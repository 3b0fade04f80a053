"""Do the named parts of a unit predict it better than one explanation of the whole with as many terms?

Both are simulated by the same judge on test images. To be fair to the whole, it is also simulated with a weight of its
own for each of its terms, fitted to the unit with the judge's scores, as the weight of each part is.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from typing import TYPE_CHECKING, Any

from neuronx.concepts.seen import as_seen_by
from neuronx.errors import UserError
from neuronx.experiments.given import Given
from neuronx.experiments.planting import RECOVERY, plant, recover, summary
from neuronx.methods.clip_dissect.method import ClipDissect
from neuronx.methods.linear.method import LinearExplanations
from neuronx.methods.pure.method import Pure, part_columns, split_target, study
from neuronx.methods.pure.polysemantic import DEFAULT
from neuronx.metrics.correlation import interval, mean_and_sem
from neuronx.options import Count, Natural, Seed
from neuronx.report.inventory import as_text, plain_table
from neuronx.scoring.correlation import Correlation
from neuronx.tables.csv import write_csv
from neuronx.targets.segment import lower_layer
from neuronx.types import Cell, Explanation, Judge, Method, Table, TrainerFactory, Unit, as_found

if TYPE_CHECKING:
    from neuronx.data.probe import Probe
    from neuronx.targets.target import Target

POLYSEMANTIC, FORCED = "split by the test", "whole by the test, split by force"
SPLIT, UNSPLIT, FREE = WAYS = ("split", "unsplit", "unsplit-free")
UNITS = (
    "layer",
    "unit",
    "p",
    "q",
    "polysemantic",
    "parts",
    "terms",
    "split",
    "unsplit",
    "free",
    "by_parts",
    "as_whole",
)
GAINS = (
    *("group", "units", "split", "unsplit", "free"),
    *("gain", "low", "high", "gain_free", "low_free", "high_free"),
)


@dataclass(frozen=True, kw_only=True)
class Splitting:
    """Parts against wholes at the same number of terms: the units of a network, or planted ones with known sources.

    Every unit that can be split is, also those that the test leaves whole; their gains are given apart.

    Attributes:
        judge: Decides which concepts a test image shows.
        terms: Of the explanation of each part.
        planted_in: A layer; None for the units of the layers asked for.
        double: Number of planted units of two sources.
        single: Of one.
        lower: The layer before that of the sources, where units are planted; by default as for its own units.
        seed: Of planting and bootstrap.
    """

    judge: Judge
    terms: Count = 1
    planted_in: str | None = None
    double: Natural = 30
    single: Natural = 30
    lower: str | None = None
    seed: Seed = 0

    def run(self, given: Given) -> str:
        """Scores them; writes `split_units.csv` and `split_gains.csv`, and `planted.csv` of planted units."""
        target, pure = given.one_target(), pure_of(given)
        probe = given.images(target)
        groups: dict[str, Sequence[Unit]] = {}
        text = ""
        if self.planted_in is not None:
            pure = replace(pure, lower=self.lower or pure.lower or lower_layer(target, self.planted_in))
            garden = plant(target, probe, given.trainer, self.planted_in, self.double, self.single, self.seed)
            recovered = recover(
                garden, replace(pure, alpha=DEFAULT if pure.alpha is None else pure.alpha), probe, given.trainer
            )
            given.write(write_csv, "planted.csv", RECOVERY, [recovery.row for recovery in recovered])
            text = shown("Planted units", (("planted", "mean"), list(summary(recovered).items()))) + "\n"
            target = garden.target
            groups = {"planted, two sources": garden.units(True), "planted, one source": garden.units(False)}
        scores = split_scores(pure, target, probe, self.judge, given.trainer, self.terms, forced=True)
        table = gains(scores, groups_by_test(scores, groups), self.seed)
        rows = [
            (one.unit.layer, one.unit.index, one.p, one.q, int(one.polysemantic), *astuple(one)[4:]) for one in scores
        ]
        given.write(write_csv, "split_units.csv", UNITS, rows)
        given.write(write_csv, "split_gains.csv", *table)
        title = f"Correlation on test images: {pure.describes}, {self.terms} terms a part, judge {self.judge.name}"
        return text + shown(title, table)


def shown(title: str, table: Table) -> str:
    """A table as people read it."""
    columns, rows = table
    grid = plain_table(*columns, title=title)
    for row in rows:
        grid.add_row(*(f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row))
    return as_text(grid)


def pure_of(given: Given) -> Pure:
    """The PURE among the methods; UserError where there is none."""
    found = [method for method in given.methods.values() if isinstance(method, Pure)]
    if not found:
        raise UserError("This experiment is about split units: choose explain=pure.")
    return found[0]


@dataclass(frozen=True)
class SplitScore:
    """One unit, split and unsplit: correlations with the unit on test images.

    Attributes:
        unit: The unit.
        p: Of the test that it is polysemantic.
        q: The same, adjusted for the number of units.
        polysemantic: Whether the test would split it.
        parts: Their number.
        terms: Of either explanation.
        split: Of the sum of its parts' predictions.
        unsplit: Of the explanation of the whole.
        free: Of the same terms, each with a weight fitted to the unit as the judge sees it.
        by_parts: In words, split.
        as_whole: In words, unsplit.
    """

    unit: Unit
    p: float
    q: float
    polysemantic: bool
    parts: int
    terms: Count
    split: float
    unsplit: float
    free: float
    by_parts: str = ""
    as_whole: str = ""


def split_scores(
    pure: Pure,
    target: "Target",
    probe: "Probe",
    judge: Judge,
    trainer: TrainerFactory,
    terms: Count = 3,
    *,
    forced: bool = False,
) -> list[SplitScore]:
    """Scores all units that PURE splits, as parts with `terms` terms each and as wholes with as many in all.

    Args:
        pure: Splits and describes.
        target: The network.
        probe: The images.
        judge: Decides which concepts an image shows.
        trainer: Makes trainers.
        terms: Of the explanation of each part.
        forced: Also split units that the test leaves whole.

    Raises:
        UserError: A describer whose number of terms cannot be set, or that is asked for fewer than one.
    """

    def described(network: "Target", units: dict[str, list[int]], terms: int) -> Sequence[Explanation]:
        describer = with_terms(pure.describe[pure.describes], terms)
        return as_found(describer.explain(replace(network, units=units), probe, trainer)).explanations

    findings = study(target, probe, trainer, pure)
    if forced:
        findings = {layer: found.forced for layer, found in findings.items()}
    split = split_target(target, findings, pure)
    parts = {layer: part_columns(split, layer) for layer in split.layers}
    all_parts = {layer: [column for own in units.values() for column in own] for layer, units in parts.items()}
    explained = {SPLIT: described(split, all_parts, terms)}
    whole: list[Explanation] = []
    for k in sorted({len(own) for units in parts.values() for own in units.values()}):
        alike = {layer: [unit for unit in units if len(units[unit]) == k] for layer, units in parts.items()}
        whole += described(target, alike, k * terms)
    explained[UNSPLIT] = whole
    # As parts of their unit, terms get the weights that fit.
    explained[FREE] = [
        Explanation(replace(explanation.unit, part=at), ((concept, 1.0),))
        for explanation in whole
        for at, (concept, _) in enumerate(explanation.terms)
    ]
    rows = (
        Correlation(floors=False, ceiling=False).score(explained, split, probe, as_seen_by(target, judge), trainer).rows
    )
    scores = {(score.method, score.unit): score for score in rows if score.status == "ok"}
    split_units = []
    for layer, found in findings.items():
        said = zip(found.verdicts.p.tolist(), found.verdicts.q.tolist(), found.polysemantic.tolist(), strict=True)
        tested = dict(zip(found.references.units.tolist(), said, strict=True))
        for index, own in parts[layer].items():
            unit, k = Unit(layer, index), len(own)
            if all((way, unit) in scores for way in WAYS):
                p, q, polysemantic = tested[index]
                by_parts, as_whole, free = (scores[way, unit] for way in WAYS)
                values = by_parts.value, as_whole.value, free.value
                in_words = by_parts.explanation, as_whole.explanation
                split_units.append(SplitScore(unit, p, q, polysemantic, k, terms * k, *values, *in_words))
    return split_units


def with_terms(method: Method, terms: int) -> Any:
    """The same method with exactly so many terms in each explanation, where there are enough concepts.

    Raises:
        UserError: The method does not let its number of terms be set, or fewer than one is asked for.
    """
    if terms < 1:
        raise UserError(f"terms={terms}: an explanation needs at least 1.")
    same = copy.copy(method)
    if isinstance(same, LinearExplanations):
        same.max_length, same.tolerance = terms, -1.0  # every term is worth it
    elif isinstance(same, ClipDissect):
        same.n_labels = terms
    else:
        raise UserError(
            f"{type(method).__name__} has no number of terms to set, and parts and wholes are compared at the same: "
            "use describe=le_label, le_clip or clip_dissect."
        )
    return same


def gains(scores: Sequence[SplitScore], groups: Mapping[str, Sequence[Unit]], seed: Seed = 0) -> Table:
    """Means of split and unsplit scores by group of units, and of their differences with 95 % bootstrap intervals.

    `gain` is over the explanation of the whole, `gain_free` over its terms with weights that fit.
    """
    rows: list[list[Cell]] = []
    for name, units in groups.items():
        wanted = set(units)
        own = [score for score in scores if score.unit in wanted]
        if own:
            means = [
                mean_and_sem([getattr(score, field) for score in own])[0] for field in ("split", "unsplit", "free")
            ]
            gain = interval([score.split - score.unsplit for score in own], seed=seed)
            over_free = interval([score.split - score.free for score in own], seed=seed)
            rows.append([name, len(own), *means, *gain, *over_free])
    return GAINS, rows


def groups_by_test(
    scores: Sequence[SplitScore], kinds: Mapping[str, Sequence[Unit]] | None = None
) -> dict[str, list[Unit]]:
    """The units that the test splits and the others, which are split by force; of each kind together, and apart."""
    groups: dict[str, list[Unit]] = {}
    for kind, units in {"": [score.unit for score in scores], **(kinds or {})}.items():
        wanted = set(units)
        if kind:
            groups[kind] = list(units)
        for name, found in ((POLYSEMANTIC, True), (FORCED, False)):
            own = [score.unit for score in scores if score.unit in wanted and score.polysemantic == found]
            groups[f"{kind}, {name}" if kind else name] = own
    return groups
