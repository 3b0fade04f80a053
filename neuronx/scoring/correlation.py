"""`sim=correlation`: the score of an explanation is how well its simulation correlates with the unit on test images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from neuronx.metrics.bootstrap import correlation_sem
from neuronx.recording.record import record
from neuronx.scoring.panels import Beside, asked_for, rows_of_table
from neuronx.scoring.simulator import Predicts, Simulator
from neuronx.scoring.sums import apart, sums
from neuronx.types import Activations, Explanation, Judge, Score, Scores, TrainerFactory

if TYPE_CHECKING:
    from neuronx.data.probe import Probe
    from neuronx.targets.target import Target


@dataclass(frozen=True)
class Correlation(Beside):
    """Simulates explanations on the test images and correlates them with the units, beside floors and a ceiling.

    A unit is inactive when it never changes on the test images, or its explanation is empty and it never changes on
    train and val; it is unjudged when its explanation has an atom that the judge does not know. Neither has a score. An
    empty explanation of any other unit predicts a constant and scores 0. Options are those of `Beside`.

    A unit that is explained in parts is predicted by their sum (`sums`); the parts themselves, scored as units that the
    network might have, have rows of their own, `<method>-parts`.
    """

    def score(
        self,
        explained: Mapping[str, Sequence[Explanation]],
        target: "Target",
        probe: "Probe",
        judge: Judge,
        trainer: TrainerFactory,
        words: Sequence[str] = (),
    ) -> Scores:
        """Scores the explanations of several methods, of any layers of the target.

        Args:
            explained: Method -> its explanations.
            target: The network.
            probe: The images; test images give the scores, train and val fit the ceiling.
            judge: Who says which concepts an image shows.
            trainer: Makes trainers.
            words: What the random floor and the ceiling draw from where the judge has no vocabulary; the explanations'
                own concepts by default.

        Raises:
            UserError: Explanations of an unknown layer or unit, two for one unit, or broken formulas; activations that
                are not finite.
        """
        recorded = record(target, probe, trainer, layers=asked_for(explained, target))
        return self.score_recorded(explained, recorded, target.name, probe, judge, trainer, words)

    def score_recorded(
        self,
        explained: Mapping[str, Sequence[Explanation]],
        recorded: Mapping[str, Activations],
        target: str,
        probe: "Probe",
        judge: Judge,
        trainer: TrainerFactory,
        words: Sequence[str] = (),
    ) -> Scores:
        """Scores as `score` does, from activations by layer; `target` is the network's name."""
        test = probe.split("test")
        made = self.panels(apart(explained), recorded, probe, judge, trainer, words)
        values = {layer: one.values for layer, one in recorded.items()}
        fit = probe.split("train", "val")
        summed = sums(made.panels, recorded, made.formulas, made.judgement, fit, self.batch_size)
        panels = [*made.panels, *(panel for panel, _ in summed)]
        predictors: list[Predicts] = [*(one.predictor for one in made.panels), *(predictor for _, predictor in summed)]
        simulator = Simulator(predictors, made.formulas, made.judgement, values, test, self.batch_size)
        trainer().test(simulator, verbose=False)
        images = f"{probe.name}/test:{len(test)}"
        rows: list[Score] = []
        for panel, r in zip(panels, simulator.correlations, strict=True):
            found = zip(r.tolist(), correlation_sem(r, len(test)).tolist(), ["ok"] * len(r), strict=True)
            pool = recorded[panel.layer].pool
            rows += rows_of_table(panel, found, "correlation", target, pool, judge.name, images)
        return Scores(rows)
