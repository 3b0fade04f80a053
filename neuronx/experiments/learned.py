"""The experiments that train captioners, as things to run: each writes its files and returns its table."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from neuronx.errors import UserError
from neuronx.experiments import splits as split
from neuronx.experiments.figures import outcomes_figure
from neuronx.experiments.generalisation import (
    Captions,
    Describe,
    Outcome,
    baselines,
    generalisation,
    outcome_table,
    write_outcomes,
)
from neuronx.experiments.given import Given
from neuronx.experiments.labels import compare_labels
from neuronx.experiments.truth import naming_of, naming_table
from neuronx.methods.milan.captioner import Captioner
from neuronx.methods.milan.describer import encoder_of
from neuronx.methods.milan.features import Features, features_of
from neuronx.methods.milan.training.annotations import Annotations
from neuronx.methods.milan.training.milan import Lesson
from neuronx.metrics.bert_score import BertScore
from neuronx.milannotations.dataset import Milannotations, join
from neuronx.types import Explanation, TrainerFactory, as_found

UNITS = 64
"""Captioned at a time."""


@dataclass(frozen=True, kw_only=True)
class Learning:
    """What experiments have in common that train captioners.

    Attributes:
        source: Where annotated units come from.
        lesson: How a captioner is trained; its seed is the trial's.
        encoder: As `neuronx.methods.milan.describer.encoder_of` takes it.
        models: Keys of the annotated units.
        trials: Captioners of other seeds for each split.
        bert: To score by BERTScore too.
    """

    source: Annotations
    lesson: Lesson
    encoder: Any = "shapes_resnet"
    models: Sequence[str] = ("base", "dino_vits8/imagenet")
    trials: int = 1
    bert: BertScore | None = None

    def units(self, trainer: TrainerFactory) -> Milannotations:
        """All units of the models."""
        return join([self.source.load(name, trainer) for name in self.models])

    def fit(self, units: Milannotations, features: Features, given: Given) -> Callable[[Sequence[int], int], Describe]:
        """Trains a captioner on some of the units, as `generalisation` asks for it."""

        def trained(training: Sequence[int], seed: int) -> Describe:
            captioner, _ = replace(self.lesson, seed=seed).fit(
                features, units.annotations, given.trainer, given.folder / "captioner", torch.tensor(training)
            )
            return lambda asked: written(captioner, features, torch.tensor(asked))

        return trained


def written(captioner: Captioner, features: Features, units: Tensor) -> Captions:
    """Captions of some units by PMI (rerank) and by likelihood alone (greedy, as MILAN's baseline is)."""
    ways: dict[str, dict[str, Any]] = {
        "pmi": {"strategy": "rerank"},
        "likelihood": {"strategy": "greedy", "pmi": False},
    }
    if captioner.language_model is None:
        del ways["pmi"]
    return {
        way: [text for block in units.split(UNITS) for text in captioner(features[block], **options).captions]
        for way, options in ways.items()
    }


def told(outcomes: Sequence[Outcome], truth: Sequence[Sequence[str]], name: str, given: Given) -> str:
    """Writes outcomes as `<name>.csv`, draws them and returns their tables."""
    named = naming_of(outcomes, truth)
    given.write(write_outcomes, f"{name}.csv", outcomes)
    given.draw(outcomes_figure(outcomes, named), f"{name}.html")
    return outcome_table(outcomes) + naming_table(named)


@dataclass(frozen=True, kw_only=True)
class Generalisation(Learning):
    """How far captioners carry to units of other networks, architectures, data and tasks.

    Attributes:
        experiments: Some of `neuronx.experiments.splits.EXPERIMENTS`.
        hold_out: Share of a network's units that is tested on when the rest of it is trained on.
    """

    experiments: Sequence[str] = split.EXPERIMENTS
    hold_out: float = 0.1

    def run(self, given: Given) -> str:
        """Trains a captioner for every split and trial; writes `generalisation.csv` and draws it."""
        units = self.units(given.trainer)
        tested = split.splits(units, list(self.experiments), hold_out=self.hold_out)
        features = features_of(units, encoder_of(self.encoder), given.trainer)
        outcomes = generalisation(
            units,
            tested,
            self.fit(units, features, given),
            trials=self.trials,
            features=lambda rows: features[torch.tensor(rows)],
            bert=self.bert,
        )
        return told(outcomes, self.source.truth(units), "generalisation", given)


@dataclass(frozen=True, kw_only=True)
class Baselines(Learning):
    """Captions by PMI and by likelihood, and other methods' labels, against what people said; of a network left out.

    Attributes:
        model: The annotated model that the target is, which no captioner is trained on.
    """

    model: str = "resnet152/imagenet"
    models: Sequence[str] = ("base",)

    def run(self, given: Given) -> str:
        """Compares them on the units that all methods explain; writes `baselines.csv` and draws it."""
        target, units = given.one_target(), self.units(given.trainer)
        left_out = [
            one for one in split.splits(units, [split.LEAVE_ONE_OUT]) if units.model(one.testing[0]) == self.model
        ]
        if not left_out:
            raise UserError(f"There are no units of {self.model} to leave out, only of {', '.join(units.models)}.")
        explained: dict[str, Sequence[Explanation]] = {
            name: as_found(method.explain(target, given.images(target), given.trainer)).explanations
            for name, method in given.methods.items()
        }
        known = [{(one.unit.layer, one.unit.index) for one in found} for found in explained.values()]
        testing = [
            i for i in left_out[0].testing if all((units.unit(i).layer, units.unit(i).index) in each for each in known)
        ]
        if not testing:
            layers = dict.fromkeys(units.unit(i).layer for i in left_out[0].testing)
            raise UserError(
                f"No unit of {target.name} that is explained is one of {self.model}; try layers={[*layers]}."
            )
        tested = replace(left_out[0], testing=tuple(testing))
        features = features_of(units, encoder_of(self.encoder), given.trainer)
        fit, outcomes = self.fit(units, features, given), []
        for trial in range(self.trials):
            captions = fit(tested.training, trial)(tested.testing)
            outcomes += compare_labels(units, tested, captions, {} if trial else explained, trial=trial, bert=self.bert)
        order = list(dict.fromkeys(one.method for one in outcomes))
        outcomes.sort(key=lambda one: order.index(one.method))
        outcomes += baselines(units, tested, lambda rows: features[torch.tensor(rows)], self.bert)
        return told(outcomes, self.source.truth(units), "baselines", given)
