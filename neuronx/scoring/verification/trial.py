"""Explanations on trial: what they predict on new pictures, through the judge, and what the units do there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neuronx.concepts.clip import Clip
from neuronx.concepts.formula import Formulas
from neuronx.concepts.judged import JudgedConcepts
from neuronx.data.probe import Probe
from neuronx.recording.record import record, without_parts
from neuronx.scoring.predictors import Predictor, WeightedConcepts
from neuronx.scoring.rows import PARTS, MethodRows, ScoreTable, rows_of_sums
from neuronx.scoring.verification.pairs import PairScores, pair_scores
from neuronx.scoring.verification.pictures import Changes
from neuronx.types import Activations, Judge, TrainerFactory

if TYPE_CHECKING:
    from neuronx.targets.target import Target


@dataclass(frozen=True)
class Trial:
    """What is tried.

    Attributes:
        target: The network.
        probe: The images that it is studied on.
        recorded: Layer -> activations there.
        judge: Decides which concepts a picture shows; calibrated on the probe.
        trainer: Makes trainers.
        formulas: The F concepts of all explanations.
        methods: The rows of each method and layer, floors among them.
        batch_size: Images at a time.
    """

    target: "Target"
    probe: Probe
    recorded: Mapping[str, Activations]
    judge: Judge
    trainer: TrainerFactory
    formulas: Formulas
    methods: Sequence[MethodRows[Predictor]]
    batch_size: int

    def concepts(self, images: Probe) -> JudgedConcepts:
        """The concepts as the judge sees them in other pictures."""
        return JudgedConcepts(self.formulas, self.judge.judge(self.formulas.atoms, images, self.trainer))

    def responses(self, images: Probe) -> dict[str, Tensor]:
        """Layer -> activations (N, K) on other pictures; of whole units, which come before parts."""
        if images is self.probe:
            return {layer: one.values for layer, one in self.recorded.items()}
        layers = {layer: one.pool for layer, one in self.recorded.items()}
        found = record(without_parts(self.target), images, self.trainer, layers)
        return {layer: one.values for layer, one in found.items()}

    def predict(self, concepts: JudgedConcepts, rows: Tensor) -> list[Tensor]:
        """What each method predicts on some pictures: (K, N) float64."""
        found: list[list[Tensor]] = [[] for _ in self.methods]
        for _, scores in concepts.batches(rows, self.batch_size):
            for parts, method in zip(found, self.methods, strict=True):
                parts.append(method.predictor.predict(scores))
        return [torch.cat(parts, 1) for parts in found]

    def tested(self, method: MethodRows[Predictor], by: Tensor) -> Tensor:
        """Which explanations (K,) of a method use a concept that some pictures test, by (F,) bool; sums all do."""
        predictor = method.predictor
        if not isinstance(predictor, WeightedConcepts):
            return torch.ones(len(predictor.columns), dtype=torch.bool)
        if not predictor.concepts.shape[1]:
            return torch.zeros(len(predictor.columns), dtype=torch.bool)
        return (by[predictor.concepts] & (predictor.weights != 0)).any(1)

    def unknown(self, method: MethodRows[Predictor], concepts: JudgedConcepts) -> Tensor:
        """Which explanations (K,) of a method use a concept that the judge does not know in these pictures."""
        known = torch.zeros(len(self.formulas), dtype=torch.bool)
        known[list(self.formulas.places(concepts.judgement.known).values())] = True
        if isinstance(method.predictor, WeightedConcepts):
            return self.tested(method, ~known)
        return torch.zeros(len(method.predictor.columns), dtype=torch.bool)

    def status(self, method: MethodRows[Predictor], by: Tensor, concepts: JudgedConcepts) -> list[str]:
        """Of each explanation of a method on other pictures: ok, untested (see `tested`) or unjudged."""
        pairs = zip(self.tested(method, by).tolist(), self.unknown(method, concepts).tolist(), strict=True)
        return ["unjudged" if unknown else "ok" if tested else "untested" for tested, unknown in pairs]


def trial_of(
    table: ScoreTable,
    target: "Target",
    probe: Probe,
    recorded: Mapping[str, Activations],
    judge: Judge,
    trainer: TrainerFactory,
    batch_size: int,
) -> Trial:
    """Puts a table of explanations on trial; units that are explained in parts are predicted by the sum of these."""
    sums = rows_of_sums(table, recorded, probe.split("train", "val"), batch_size)
    whole = [method for method in table.methods if method.rows and not method.rows[0].method.endswith(PARTS)]
    # Pictures made to test say nothing of how often a concept is seen: the probe calibrates.
    calibrated = judge.calibrate(probe, trainer) if isinstance(judge, Clip) else judge
    methods: list[MethodRows[Predictor]] = [*whole, *sums]
    return Trial(target, probe, recorded, calibrated, trainer, table.concepts.formulas, methods, batch_size)


class Tried:
    """Explanations tried on groups of pictures.

    Attributes:
        trial: What is tried.
        changes: The groups of N pictures.
        concepts: As the judge sees them there.
        scores: (F, N) float32 of the concepts.
    """

    def __init__(self, trial: Trial, changes: Changes) -> None:
        self.trial, self.changes = trial, changes
        self.concepts = trial.concepts(changes.images)
        self.scores = self.concepts.all_scores(changes.rows, trial.batch_size)

    @cached_property
    def _predicted(self) -> list[Tensor]:
        return self.trial.predict(self.concepts, self.changes.rows)

    @cached_property
    def _responses(self) -> dict[str, Tensor]:
        found = self.trial.responses(self.changes.images)
        return {layer: values[self.changes.rows].T.double() for layer, values in found.items()}

    def pairs(self, place: int) -> PairScores:
        """What all groups say of the explanations of a method, by its place in the trial."""
        predictor, changes = self.trial.methods[place].predictor, self.changes
        real = self._responses[predictor.layer][predictor.columns]
        return pair_scores(self._predicted[place], real, torch.arange(len(real)), changes.group, changes.scene)

    def pairs_of(self, place: int, k: int, tests: Tensor) -> tuple[int, PairScores]:
        """What the groups that were made for the concepts of one explanation say of it, and of how many pictures.

        Args:
            place: Of the method in the trial.
            k: Which of its explanations.
            tests: (F,) bool, the concepts whose groups count.
        """
        predictor, changes = self.trial.methods[place].predictor, self.changes
        assert isinstance(predictor, WeightedConcepts)
        own = predictor.concepts[k][predictor.weights[k] != 0]
        chosen = torch.isin(changes.about, own[tests[own]])
        real = self._responses[predictor.layer][predictor.columns[k : k + 1]][:, chosen]
        group = changes.group[chosen].unique(return_inverse=True)[1]
        predicted = self._predicted[place][:, chosen]
        return len(group), pair_scores(predicted, real, torch.tensor([k]), group, changes.scene[chosen])
