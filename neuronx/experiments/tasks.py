"""The experiments as things to run: each takes what a command line brings, writes its files and returns its table."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from neuronx.data.probe import Probe
from neuronx.errors import UserError
from neuronx.experiments import splits as split
from neuronx.experiments.auditing import audit, audit_table, write_audit
from neuronx.experiments.editing import edit, edit_table, write_edited
from neuronx.experiments.feature_importance import (
    SHARES,
    feature_importance,
    feature_importance_table,
    write_feature_importance,
)
from neuronx.experiments.generalisation import (
    Captions,
    Describe,
    baselines,
    generalisation,
    outcome_table,
    write_outcomes,
)
from neuronx.experiments.labels import compare_labels
from neuronx.experiments.truth import leading_factors, naming_of, naming_table
from neuronx.methods.milan import encoder as encoders
from neuronx.methods.milan.captioner import Captioner
from neuronx.methods.milan.features import Features, features_of
from neuronx.metrics.bert_score import BertScore
from neuronx.milannotations.dataset import Milannotations, join
from neuronx.targets.target import Target
from neuronx.training.milan import Annotations, Lesson
from neuronx.types import Explanation, Method, TrainerFactory, Unit

UNITS = 64
"""Captioned at a time."""


@dataclass(frozen=True)
class Given:
    """What the command line brings.

    Attributes:
        trainer: Makes trainers.
        folder: Of the run.
        targets: Networks by name.
        probe: The images.
        methods: Ways to explain, by name; the first one writes the captions where an experiment needs them.
    """

    trainer: TrainerFactory
    folder: Path
    targets: Mapping[str, Target] = field(default_factory=dict)
    probe: Probe | None = None
    methods: Mapping[str, Method] = field(default_factory=dict)

    def images(self, target: Target) -> Probe:
        """What a network is studied on."""
        from neuronx.pipeline import images_of

        if self.probe is None:
            raise UserError("This experiment looks at images: choose some with data=.")
        return images_of(target, self.probe)

    def captions(self, target: Target) -> dict[Unit, str]:
        """What the first method says of the units of a network, first terms only."""
        if not self.methods:
            raise UserError(
                "This experiment needs captions: choose who writes them with explain=, such as explain=milan."
            )
        found = next(iter(self.methods.values())).explain(target, self.images(target), self.trainer)
        return {Unit(one.unit.layer, one.unit.index): one.terms[0][0] if one.terms else "" for one in found}

    def one_target(self) -> Target:
        """The only network; UserError where there are more."""
        if len(self.targets) != 1:
            raise UserError(f"This experiment is about one network, not {len(self.targets)}: choose it with target=.")
        return next(iter(self.targets.values()))


class Experiment(Protocol):
    """Something to find out."""

    def run(self, given: Given) -> str:
        """Finds it out, writes files into the folder of the run and returns the table."""
        ...


@dataclass(frozen=True, kw_only=True)
class Learning:
    """What experiments have in common that train captioners.

    Attributes:
        source: Where annotated units come from.
        lesson: How a captioner is trained; its seed is the trial's.
        encoder: As `neuronx.methods.milan.encoder.load` takes it.
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
        """Trains a captioner for every split and trial; writes `generalisation.csv`."""
        units = self.units(given.trainer)
        features = features_of(units, encoders.load(self.encoder), given.trainer)
        outcomes = generalisation(
            units,
            split.splits(units, list(self.experiments), hold_out=self.hold_out),
            self.fit(units, features, given),
            trials=self.trials,
            features=lambda rows: features[torch.tensor(rows)],
            bert=self.bert,
        )
        write_outcomes(given.folder / "generalisation.csv", outcomes)
        return outcome_table(outcomes) + naming_table(naming_of(outcomes, leading_factors(units)))


@dataclass(frozen=True, kw_only=True)
class Baselines(Learning):
    """Captions by PMI and by likelihood, and other methods' labels, against what people said; of a network left out.

    Attributes:
        model: The annotated model that the target is, which no captioner is trained on.
    """

    model: str = "resnet152/imagenet"
    models: Sequence[str] = ("base",)

    def run(self, given: Given) -> str:
        """Compares them on the units that all methods explain; writes `baselines.csv`."""
        target, units = given.one_target(), self.units(given.trainer)
        features = features_of(units, encoders.load(self.encoder), given.trainer)
        left_out = [
            one for one in split.splits(units, [split.LEAVE_ONE_OUT]) if units.model(one.testing[0]) == self.model
        ]
        if not left_out:
            raise UserError(f"There are no units of {self.model} to leave out, only of {', '.join(units.models)}.")
        explained: dict[str, Sequence[Explanation]] = {
            name: method.explain(target, given.images(target), given.trainer) for name, method in given.methods.items()
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
        fit, outcomes = self.fit(units, features, given), []
        for trial in range(self.trials):
            captions = fit(tested.training, trial)(tested.testing)
            outcomes += compare_labels(units, tested, captions, {} if trial else explained, trial=trial, bert=self.bert)
        order = list(dict.fromkeys(one.method for one in outcomes))
        outcomes.sort(key=lambda one: order.index(one.method))
        outcomes += baselines(units, tested, lambda rows: features[torch.tensor(rows)], self.bert)
        write_outcomes(given.folder / "baselines.csv", outcomes)
        return outcome_table(outcomes) + naming_table(naming_of(outcomes, leading_factors(units)))


@dataclass(frozen=True, kw_only=True)
class Importance:
    """Accuracy while units are zeroed in the order of a property of their captions.

    Attributes:
        properties: See `neuronx.experiments.properties.property_of`.
        shares: Of the units.
        trials: Random orders.
        increasing: Whether units with least of a property go first.
        seed: Of the random orders.
        clip: The text space of `like:TEXT`.
    """

    properties: Sequence[str] = ("length",)
    shares: Sequence[float] = SHARES
    trials: int = 5
    increasing: bool = False
    seed: int = 0
    clip: Any = None

    def run(self, given: Given) -> str:
        """Zeroes units of each network; writes `importance_<target>.csv`."""
        text = ""
        for name, target in given.targets.items():
            found = feature_importance(
                target,
                given.images(target),
                given.trainer,
                given.captions(target),
                list(self.properties),
                shares=list(self.shares),
                trials=self.trials,
                increasing=self.increasing,
                embed=None if self.clip is None else self.clip.embed_texts,
                seed=self.seed,
            )
            write_feature_importance(given.folder / f"importance_{name}.csv", found)
            text += feature_importance_table(found)
        return text


@dataclass(frozen=True, kw_only=True)
class Auditing:
    """How many units match a query, in networks that were trained in different conditions.

    Attributes:
        query: Words and phrases that captions are searched for.
        examples: Units of each network to show.
    """

    query: Sequence[str]
    examples: int = 5

    def run(self, given: Given) -> str:
        """Searches the captions of all networks; writes `audit.csv`."""
        found = audit({name: given.captions(target) for name, target in given.targets.items()}, list(self.query))
        write_audit(given.folder / "audit.csv", found)
        return audit_table(found, list(self.query), self.examples)


@dataclass(frozen=True, kw_only=True)
class Editing:
    """Frees a network of a spurious mark by zeroing the units that name it.

    Attributes:
        query: What a caption that names the mark says.
        misleading: Images whose marks mislead; those of data= are as in training.
        trials: Random orders.
        steps: Numbers of units to look at.
        seed: Of the random orders.
    """

    query: Sequence[str]
    misleading: Probe
    trials: int = 5
    steps: int = 10
    seed: int = 0

    def run(self, given: Given) -> str:
        """Zeroes them; writes `editing.csv`."""
        target = given.one_target()
        found = edit(
            target,
            given.images(target),
            self.misleading,
            given.trainer,
            given.captions(target),
            list(self.query),
            trials=self.trials,
            steps=self.steps,
            seed=self.seed,
        )
        write_edited(given.folder / "editing.csv", found)
        return edit_table(found)
