"""`sim=verify`: explanations tried on pictures that are made, or found, to test them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neuronx.concepts.formula import parse
from neuronx.metrics.correlation import mean_and_sem
from neuronx.options import Count, Share
from neuronx.recording.record import record
from neuronx.scoring.predictors import Predictor, WeightedConcepts
from neuronx.scoring.rows import MethodRows, TableOptions, is_method, layers_of, parts_apart
from neuronx.scoring.verification.matched import matched
from neuronx.scoring.verification.pairs import PairScores, auroc, flips, own_flips
from neuronx.scoring.verification.pictures import Changes, Drawer
from neuronx.scoring.verification.trial import Trial, Tried, trial_of
from neuronx.types import Cell, Explanation, Judge, Score, Scores, TrainerFactory

if TYPE_CHECKING:
    from neuronx.data.probe import Probe
    from neuronx.targets.target import Target

PAIRS, VERIFICATION = "pairs.csv", "verification.csv"
FEWEST = 19
"""Other explanations that a verdict needs: of fewer, one in twenty cannot be told."""
VERIFIED = 0.95
"""Share of the layer's other explanations that a verified one is above."""
PAIR_COLUMNS = (
    "target", "layer", "method", "pairs", "others", "auroc", "signs", "big_signs", "verified", "n_units", "n_untested",
    "groups", "pictures", "close", "kind", "judge",
)  # fmt: skip
UNIT_COLUMNS = (
    "target", "layer", "unit", "part", "method", "pairs", "beaten", "verified", "signs", "big_signs", "pictures",
    "judge",
)  # fmt: skip


@dataclass(frozen=True)
class Verify(TableOptions):
    """Tries explanations on pictures that are made to test them, and says of each unit whether it is verified.

    `pairs`: a bank of pictures in which one attribute of a scene changes at a time, the same for all units and methods.
    The score is the correlation of predicted and real change within the groups of one scene and attribute. A unit is
    verified when its explanation is above 95 % of the layer's other explanations on it. Explanations whose concepts the
    bank hardly changes are tried on pairs of their own, in which their concept becomes false; those that cannot be
    drawn are untested. Where nobody can draw, test pictures are matched: each that shows the concept with the most
    similar one that does not.

    Attributes:
        drawer: Draws pictures of the probe's kind; without it, or for other pictures, pictures are matched.
        scenes: Of the bank.
        own_scenes: Pairs of each concept that the bank hardly changes, or for which pictures are matched.
        flip: A group changes a concept when the judge's probabilities in it differ by at least this much.
        least_groups: The bank tests a concept that it changes in so many groups.
        ceiling: As of correlation.
    """

    drawer: Drawer | None = None
    scenes: Count = 60
    own_scenes: Count = 8
    flip: Share = 0.5
    least_groups: Count = 5
    ceiling: bool = False

    def score(
        self,
        explained: Mapping[str, Sequence[Explanation]],
        target: "Target",
        probe: "Probe",
        judge: Judge,
        trainer: TrainerFactory,
        words: Sequence[str] = (),
    ) -> Scores:
        """Tries explanations of several methods, of any layers of the target, as `Scorer.score` says.

        Returns:
            Beside scores, the tables `pairs.csv`, one row a method and layer, and `verification.csv`, one a unit.

        Raises:
            UserError: As `Correlation.score`.
        """
        recorded = record(target, probe, trainer, layers=layers_of(explained, target))
        table = self.table(parts_apart(explained), recorded, probe, judge, trainer, words)
        trial = trial_of(table, target, probe, recorded, judge, trainer, self.batch_size)
        return self._pairs(trial)

    def _pairs(self, trial: Trial) -> Scores:
        """The scores `pairs`, and both tables."""
        bank = self._bank(trial)
        tried = Tried(trial, bank)
        for_all = torch.zeros(len(tried.scores), dtype=torch.bool)
        if bank.kind == "drawn":
            for_all = flips(tried.scores, bank.group, self.flip) >= self.least_groups
        own = tried if bank.kind == "matched" else self._contrasts(trial, for_all)
        tests_own = torch.zeros_like(for_all)
        if own is not None:
            made = own.changes
            tests_own = own_flips(own.scores, made.group, made.about, self.flip) >= self.least_groups
        scores: list[Score] = []
        tables: dict[str, list[Sequence[Cell]]] = {PAIRS: [], VERIFICATION: []}
        for place, method in enumerate(trial.methods):
            pairs = tried.pairs(place)
            status = ["ok" if sound else "untested" for sound in trial.tested(method, for_all)]
            pictures = [len(bank.group)] * len(status)
            for k in (trial.tested(method, tests_own) & ~trial.tested(method, for_all)).nonzero().flatten().tolist():
                assert own is not None
                n, found = own.pairs_of(place, k, tests_own)
                pairs.take(k, found)
                status[k], pictures[k] = "ok", n
            for k in trial.unknown(method, tried.concepts).nonzero().flatten().tolist():
                status[k] = "unjudged"
            for k in (pairs.own.isnan()).nonzero().flatten().tolist():
                status[k] = "inactive" if status[k] == "ok" else status[k]
            pairs.own[torch.tensor([said != "ok" for said in status], dtype=torch.bool)] = torch.nan
            name = f"{bank.images.name}/{bank.kind}:{len(bank.group)}"
            results = zip(pairs.own.tolist(), pairs.sem.tolist(), status, strict=True)
            pool = trial.recorded[method.layer].pool
            scores += method.scores(results, "pairs", trial.target.name, pool, trial.judge.name, name)
            if is_method(method.rows[0].method):
                tables[VERIFICATION] += _unit_rows(trial, method, pairs, status, pictures)
                tables[PAIRS].append(_method_row(trial, method, pairs, status, bank))
        return Scores(
            scores, {PAIRS: (PAIR_COLUMNS, tables[PAIRS]), VERIFICATION: (UNIT_COLUMNS, tables[VERIFICATION])}
        )

    def _bank(self, trial: Trial) -> Changes:
        """Drawn changes for all, or matched pictures of every concept."""
        if self.drawer is not None and self.drawer.domain == trial.probe.domain:
            return self.drawer.bank(self.scenes)
        rows = trial.probe.split("test")
        return matched(trial.probe, rows, trial.concepts(trial.probe).all_scores(rows, self.batch_size))

    def _contrasts(self, trial: Trial, tests: Tensor) -> Tried | None:
        """Pairs of the concepts of explanations that the bank does not test, by (F,) bool; None if there are none."""
        assert self.drawer is not None
        wanted = torch.zeros_like(tests)
        for method in trial.methods:
            # Random concepts of the floors need no pictures of their own.
            if isinstance(method.predictor, WeightedConcepts) and is_method(method.rows[0].method):
                wanted[method.predictor.concepts[~trial.tested(method, tests)].flatten()] = True
        places = wanted.nonzero().flatten()
        names = [" ".join(parse(trial.formulas.texts[place]).affirmed()) for place in places.tolist()]
        made = self.drawer.contrasts(names, self.own_scenes)
        return Tried(trial, replace(made, about=places[made.about])) if len(made.rows) else None


def _sound(pairs: PairScores) -> Tensor:
    """Which units (K,) have a score."""
    return ~pairs.own.isnan()


def _verified(pairs: PairScores) -> list[bool | None]:
    """Whether each explanation is above 95 % of the others; None where there are too few others, or no score."""
    enough = (~pairs.others.isnan()).sum(0) >= FEWEST
    verdict = zip(enough.tolist(), _sound(pairs).tolist(), pairs.beaten.tolist(), strict=True)
    return [share >= VERIFIED if told and sound else None for told, sound, share in verdict]


def _unit_rows(
    trial: Trial, method: MethodRows[Predictor], pairs: PairScores, status: Sequence[str], pictures: Sequence[int]
) -> list[Sequence[Cell]]:
    """Rows of `verification.csv`."""
    rows = [row for row in method.rows if row.status == "ok"]
    found: list[Sequence[Cell]] = []
    values = (pairs.own, pairs.beaten, pairs.signs, pairs.big)
    told = zip(rows, status, _verified(pairs), pictures, *(value.tolist() for value in values), strict=True)
    for row, said, verified, n, own, beats, signs, big in told:
        unit, name = row.explanation.unit, "untested" if said == "untested" else ""
        verdict = name or {True: "yes", False: "no", None: ""}[verified]
        numbers = (own, beats, verdict, signs, big) if said == "ok" else (None, None, verdict, None, None)
        found.append((trial.target.name, unit.layer, unit.index, unit.part, row.method, *numbers, n, trial.judge.name))
    return found


def _method_row(
    trial: Trial, method: MethodRows[Predictor], pairs: PairScores, status: Sequence[str], bank: Changes
) -> Sequence[Cell]:
    """A row of `pairs.csv`."""
    sound = _sound(pairs)
    others = pairs.others[:, sound]
    verdicts = [float(told) for told in _verified(pairs) if told is not None]
    means = [
        mean_and_sem(part[~part.isnan()].numpy())[0]
        for part in (pairs.own, others.flatten(), pairs.signs[sound], pairs.big[sound], torch.tensor(verdicts))
    ]
    own, other, signs, big, verified = means
    counts = int(sound.sum()), status.count("untested"), len(bank.group.unique()), len(bank.group), bank.close
    where = trial.target.name, method.layer, method.rows[0].method
    return (*where, own, other, auroc(pairs.own, others), signs, big, verified, *counts, bank.kind, trial.judge.name)
