"""The experiments that train captioners, as things to run: each writes its files and returns its table."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from neuronx.concepts.formula import Formula, parse, spoken
from neuronx.errors import UserError
from neuronx.experiments import splits as split
from neuronx.experiments.generalisation import (
    Captions,
    Describe,
    Outcome,
    baselines,
    generalisation,
    naming_of,
    naming_table,
    outcome_table,
    outcomes_figure,
    write_outcomes,
)
from neuronx.experiments.given import Given
from neuronx.experiments.splits import Split
from neuronx.methods.milan.captioner import Captioner
from neuronx.methods.milan.describer import encoder_of
from neuronx.methods.milan.features import Features, features_of
from neuronx.methods.milan.training.annotations import Annotations
from neuronx.methods.milan.training.milan import Lesson
from neuronx.metrics.bert_score import BertScore
from neuronx.metrics.captions import score_captions
from neuronx.milannotations.dataset import Milannotations, join
from neuronx.options import Count, OpenShare
from neuronx.types import Explanation, TrainerFactory, Unit, as_found

if TYPE_CHECKING:
    from neuronx.milannotations.dataset import Milannotations


UNITS = 64
"""Captioned at a time."""


@dataclass(frozen=True, kw_only=True)
class TrainsCaptioners:
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
    trials: Count = 1
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


def report(outcomes: Sequence[Outcome], truth: Sequence[Sequence[str]], name: str, given: Given) -> str:
    """Writes outcomes as `<name>.csv`, draws them and returns their tables."""
    named = naming_of(outcomes, truth)
    given.write(write_outcomes, f"{name}.csv", outcomes)
    given.draw(outcomes_figure(outcomes, named), f"{name}.html")
    return outcome_table(outcomes) + naming_table(named)


@dataclass(frozen=True, kw_only=True)
class Generalisation(TrainsCaptioners):
    """How far captioners carry to units of other networks, architectures, data and tasks.

    Attributes:
        experiments: Some of `neuronx.experiments.splits.EXPERIMENTS`.
        hold_out: Share of a network's units that is tested on when the rest of it is trained on.
    """

    experiments: Sequence[str] = split.EXPERIMENTS
    hold_out: OpenShare = 0.1

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
        return report(outcomes, self.source.truth(units), "generalisation", given)


@dataclass(frozen=True, kw_only=True)
class Baselines(TrainsCaptioners):
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
        return report(outcomes, self.source.truth(units), "baselines", given)


def as_caption(label: str) -> str:
    """A label or formula in words: `water OR (river-s AND NOT blue_sky)` is "water or river and not blue sky".

    "_" is a space, and the part of a Broden label after its last hyphen, its kind (`street-s`), is left out.
    """
    return _words(parse(label))


def _words(formula: Formula) -> str:
    if not formula.operator:
        name, hyphen, kind = formula.atom.rpartition("-")
        return spoken(name if hyphen and len(kind) == 1 else formula.atom)
    texts = [_words(part) for part in formula.parts]
    return f"not {texts[0]}" if formula.operator == "NOT" else f" {formula.operator.lower()} ".join(texts)


def captions_of(
    explanations: Sequence[Explanation], units: "Milannotations", positions: Sequence[int], model: str | None = None
) -> list[str]:
    """What a method's explanations say of some units, in words; "" where it says nothing.

    Args:
        explanations: Of any units of the network; of several for one unit, or of one with several terms, the first.
        units: All units.
        positions: Which of them are asked for.
        model: Whose units the explanations are of; all positions must be of one model when None.

    Raises:
        UserError: Units of several models, or explanations of none of them.
    """
    models = {units.model(i) for i in positions} if model is None else {model}
    if len(models) > 1:
        raise UserError(f"The explanations are of one network, the units of {', '.join(sorted(models))}: say which.")
    said: dict[Unit, str] = {}
    for one in explanations:
        if one.terms:
            said.setdefault(Unit(one.unit.layer, one.unit.index), as_caption(one.terms[0][0]))
    texts = [said.get(units.unit(i), "") if units.model(i) in models else "" for i in positions]
    if not any(texts):
        some = ", ".join(str(units.unit(i)) for i in positions[:3])
        raise UserError(f"None of the units ({some}, ...) of {', '.join(models)} is explained; are layers named alike?")
    return texts


def compare_labels(
    units: "Milannotations",
    split: Split,
    captions: Captions,
    explained: Mapping[str, Sequence[Explanation]],
    *,
    trial: int = 0,
    bert: BertScore | None = None,
) -> list[Outcome]:
    """Scores captions and other methods' explanations of the same units against what people said of them.

    Args:
        units: All units.
        split: What the captioner was trained on and is tested on: one network left out.
        captions: Way of writing (`pmi`, `likelihood`) -> captions of `split.testing`.
        explained: Method -> its explanations of the network.
        trial: Of the captioner.
        bert: To score by BERTScore too.

    Returns:
        Outcomes of the captions, then of the methods; put `baselines` of the split beside them.
    """
    said = [units.annotations[i] for i in split.testing]
    rows = {**captions, **{name: captions_of(found, units, split.testing) for name, found in explained.items()}}
    return [
        Outcome(split, name, trial, score_captions(texts, said, bert), tuple(texts)) for name, texts in rows.items()
    ]
