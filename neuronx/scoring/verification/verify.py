"""`sim=verify`: explanations tried on pictures that are made, or found, to test them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from neuronx.concepts.formula import parse
from neuronx.errors import UserError
from neuronx.metrics.correlation import mean_and_sem
from neuronx.options import Count, Share
from neuronx.recording.record import record
from neuronx.scoring.predictors import Predictor, WeightedConcepts
from neuronx.scoring.rows import CEILING, MethodRows, TableOptions, is_method, layers_of, parts_apart
from neuronx.scoring.verification.loop import extremes, loop_scores, percentiles, separation
from neuronx.scoring.verification.matched import matched
from neuronx.scoring.verification.pairs import PairScores, auroc, flips, own_flips
from neuronx.scoring.verification.pictures import Changes, Drawer, TextToImage, generated
from neuronx.scoring.verification.trial import Trial, Tried, trial_of
from neuronx.types import Cell, Explanation, Judge, Score, Scores, TrainerFactory

if TYPE_CHECKING:
    from neuronx.data.probe import Probe
    from neuronx.targets.target import Target

PAIRS, VERIFICATION, LOOP = "pairs.csv", "verification.csv", "loop.csv"
FEWEST = 19
"""Other explanations that a verdict needs: of fewer, one in twenty cannot be told."""
VERIFIED = 0.95
"""Share of the layer's other explanations that a verified one is above."""
PAIR_COLUMNS = (
    "target", "layer", "method", "pairs", "others", "auroc", "signs", "big_signs", "verified", "n_units", "n_untested",
    "groups", "pictures", "close", "kind", "judge",
)  # fmt: skip
LOOP_COLUMNS = (
    "target", "layer", "method", "top", "low", "ranked_top", "ranked_low", "n_units", "n_untested", "pool", "retrieved",
    "judge",
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

    `loop`: of a pool of unseen pictures the judge retrieves those for which the explanation predicts most and least.
    `loop_top` is 1 when the unit's mean response to them is above its 95th percentile on the test pictures, `loop_low`
    when it is below its 5th, else 0; the ceiling is what the unit's own extreme pictures of the pool reach. The top
    says little of one broad word, the low end little of rectified units.

    `drawn`: CoSy's AUC and MAD of pictures drawn of the heaviest concept against the test pictures, signed by its
    weight. They reward narrow words.

    Attributes:
        measures: pairs, loop and drawn, or some of them.
        drawer: Draws pictures of the probe's kind; without it, or for other pictures, pictures are matched.
        generator: Makes a picture of a text; `drawn` shows its pictures in place of the drawer's.
        pool: Pictures that no method saw; by default drawn ones, or the test pictures where nobody can draw.
        pool_size: How many are drawn for the pool.
        retrieved: Pictures of the pool at each end of the predictions.
        scenes: Of the bank.
        own_scenes: Pairs of each concept that the bank hardly changes, or for which pictures are matched.
        flip: A group changes a concept when the judge's probabilities in it differ by at least this much.
        least_groups: The bank tests a concept that it changes in so many groups.
        ceiling: As of correlation.
    """

    measures: Sequence[Literal["pairs", "loop", "drawn"]] = ("pairs", "loop", "drawn")
    drawer: Drawer | None = None
    generator: TextToImage | None = None
    pool: "Probe | None" = None
    pool_size: Count = 5000
    retrieved: Count = 20
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
            Beside scores, the tables `pairs.csv` and `loop.csv`, one row a method and layer, and `verification.csv`,
            one a unit.

        Raises:
            UserError: As `Correlation.score`, or a pool of too few pictures or of another kind.
        """
        recorded = record(target, probe, trainer, layers=layers_of(explained, target))
        table = self.table(parts_apart(explained), recorded, probe, judge, trainer, words)
        trial = trial_of(table, target, probe, recorded, judge, trainer, self.batch_size)
        done = {"pairs": self._pairs, "loop": self._loop, "drawn": self._drawn}
        found = [done[measure](trial) for measure in self.measures]
        tables = {name: table for one in found for name, table in one.tables.items()}
        return Scores([row for one in found for row in one.rows], tables)

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
            status = trial.status(method, for_all, tried.concepts)
            pictures = [len(bank.group)] * len(status)
            for k in (trial.tested(method, tests_own) & ~trial.tested(method, for_all)).nonzero().flatten().tolist():
                assert own is not None
                n, found = own.pairs_of(place, k, tests_own)
                pairs.take(k, found)
                status[k], pictures[k] = "unjudged" if status[k] == "unjudged" else "ok", n
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

    def _loop(self, trial: Trial) -> Scores:
        """The scores `loop_top` and `loop_low`, and their table."""
        pool, rows = self._pool(trial)
        concepts = trial.concepts(pool)
        shown = concepts.all_scores(rows, self.batch_size)
        tests = shown.amax(1) - shown.amin(1) >= self.flip
        predicted, natural = trial.predict(concepts, rows), trial.probe.split("test")
        responses = {layer: values[rows].T.double() for layer, values in trial.responses(pool).items()}
        images = f"{pool.name}/pool:{len(rows)}"
        scores: list[Score] = []
        table: list[Sequence[Cell]] = []
        for method, prediction in zip(trial.methods, predicted, strict=True):
            columns, recorded = method.predictor.columns, trial.recorded[method.layer]
            real, seen = responses[method.layer][columns], recorded.values[natural][:, columns].T
            found = loop_scores(prediction, real, seen, self.retrieved, self.seed)
            status = trial.status(method, tests, concepts)
            where = trial.target.name, recorded.pool, trial.judge.name, images
            for name, passes in (("loop_top", found.top), ("loop_low", found.low)):
                scores += method.scores(_results(passes.double(), status), name, where[0], *where[1:])
            sound = torch.tensor([said == "ok" for said in status], dtype=torch.bool)
            if is_method(method.rows[0].method):
                parts = found.top, found.low, found.beats_top >= VERIFIED, found.beats_low >= VERIFIED
                means = [mean_and_sem(part[sound].double().numpy())[0] for part in parts]
                counts = int(sound.sum()), _untested(method, status), len(rows), self.retrieved
                table.append((where[0], method.layer, method.rows[0].method, *means, *counts, trial.judge.name))
        scores += self._own_extremes(trial, responses, natural, images)
        return Scores(scores, {LOOP: (LOOP_COLUMNS, table)})

    def _pool(self, trial: Trial) -> tuple["Probe", Tensor]:
        """Pictures that no method saw, and which of them."""
        if self.pool is not None:
            pool, rows = self.pool, torch.arange(len(self.pool))
        elif self.drawer is not None and self.drawer.domain == trial.probe.domain:
            pool = self.drawer.pool(self.pool_size)
            rows = torch.arange(len(pool))
        else:
            pool, rows = trial.probe, trial.probe.split("test")
        if pool.domain != trial.probe.domain:
            raise UserError(f"sim.verify.pool has {pool.domain} pictures, and those studied are {trial.probe.domain}.")
        if len(rows) < 5 * self.retrieved:
            raise UserError(
                f"sim=verify retrieves {self.retrieved} pictures of a pool of {len(rows)}, too few to choose from: "
                "give more (sim.verify.pool), take fewer (sim.verify.retrieved), or sim.verify.measures=[pairs]."
            )
        return pool, rows

    def _own_extremes(self, trial: Trial, responses: Mapping[str, Tensor], natural: Tensor, images: str) -> list[Score]:
        """The ceiling: what the pictures of the pool to which a unit itself responds most and least reach."""
        scores: list[Score] = []
        for layer, recorded in trial.recorded.items():
            units = {
                row.explanation.unit: row.column
                for method in trial.methods
                if method.layer == layer
                for row in method.rows
                if row.explanation.unit.part is None and row.status != "broken"
            }
            columns = torch.tensor([units[unit] for unit in sorted(units)], dtype=torch.int64)
            real, (high, low) = responses[layer][columns], percentiles(recorded.values[natural][:, columns].T)
            top, least = (real.gather(1, chosen).mean(1) for chosen in extremes(real, self.retrieved, self.seed))
            for name, passes in (("loop_top", top > high), ("loop_low", least < low)):
                n, text = int(images.rsplit(":", 1)[1]), f"its own {self.retrieved} extreme pictures"
                for unit, value in zip(sorted(units), passes.double().tolist(), strict=True):
                    where = trial.target.name, recorded.pool, unit, CEILING, name, value, math.nan, n, "ok", text
                    scores.append(Score(*where, judge=trial.judge.name, images=images))
        return scores

    def _drawn(self, trial: Trial) -> Scores:
        """The scores `drawn_auc` and `drawn_mad`; none where nobody can draw."""
        drawer = self.drawer if self.drawer is not None and self.drawer.domain == trial.probe.domain else None
        if self.generator is None and drawer is None:
            return Scores([])
        # A unit that is explained by a sum of parts has no concept of its own.
        methods = [method for method in trial.methods if isinstance(method.predictor, WeightedConcepts)]
        rows = [row for method in methods for row in method.rows]
        concepts = sorted({heaviest(row.explanation) for row in rows if row.explanation.terms})
        texts = [affirmed(concept) for concept in concepts]
        if self.generator is not None and texts:
            images = generated(self.generator, texts, self.own_scenes, trial.probe.domain)
            about = torch.arange(len(texts)).repeat_interleave(self.own_scenes)
        elif drawer is not None:
            images, about = drawer.shows(texts, self.own_scenes)
        else:
            return Scores([])
        responses, natural = trial.responses(images) if len(about) else {}, trial.probe.split("test")
        scores: list[Score] = []
        for method in methods:
            recorded = trial.recorded[method.layer]
            results: list[list[tuple[float, float, str]]] = [[], []]
            for row in method.rows:
                if row.status != "ok":
                    continue
                concept = heaviest(row.explanation) if row.explanation.terms else ""
                own = about == concepts.index(concept) if concept else about < 0
                if not own.any():
                    results = [[*found, (math.nan, math.nan, "untested")] for found in results]
                    continue
                weight = dict(row.explanation.terms)[concept]
                drawn = responses[method.layer][own, row.column][None]
                pair = separation(drawn, recorded.values[natural][:, row.column][None])
                for found, value in zip(results, _signed(*pair, weight), strict=True):
                    found.append((value, math.nan, "inactive" if math.isnan(value) else "ok"))
            name = f"{images.name}/drawn:{self.own_scenes}"
            where = trial.target.name, recorded.pool, trial.judge.name, name
            for score, found in zip(("drawn_auc", "drawn_mad"), results, strict=True):
                scores += method.scores(found, score, *where)
        return Scores(scores)

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
        names = [affirmed(trial.formulas.texts[place]) for place in places.tolist()]
        made = self.drawer.contrasts(names, self.own_scenes)
        return Tried(trial, replace(made, about=places[made.about])) if len(made.rows) else None


def affirmed(concept: str) -> str:
    """What a concept says that there is, such as `red star` of `red AND star AND NOT large`."""
    return " ".join(parse(concept).affirmed())


def heaviest(explanation: Explanation) -> str:
    """The concept of the largest weight, whatever its sign, of an explanation that has any."""
    return max(explanation.terms, key=lambda term: abs(term[1]))[0]


def _signed(area: Tensor, mad: Tensor, weight: float) -> tuple[float, float]:
    """AUC and MAD of a concept with a weight: of a negative one, how far the unit is below."""
    return (float(area), float(mad)) if weight > 0 else (1 - float(area), -float(mad))


def _untested(method: MethodRows[Predictor], status: Sequence[str]) -> int:
    """How many explanations neither the test pictures nor those made to test them say anything of."""
    return sum(row.status == "untested" for row in method.rows) + list(status).count("untested")


def _results(values: Tensor, status: Sequence[str]) -> list[tuple[float, float, str]]:
    """Value, no standard error, and status of each explanation."""
    pairs = zip(values.tolist(), status, strict=True)
    return [(value if said == "ok" else math.nan, math.nan, said) for value, said in pairs]


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
    counts = int(sound.sum()), _untested(method, status), len(bank.group.unique()), len(bank.group), bank.close
    where = trial.target.name, method.layer, method.rows[0].method
    return (*where, own, other, auroc(pairs.own, others), signs, big, verified, *counts, bank.kind, trial.judge.name)
