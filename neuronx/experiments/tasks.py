"""The experiments that read captions, and zero units by them, as things to run: files written, tables returned."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuronx.data.probe import Probe
from neuronx.experiments.auditing import audit, audit_table, write_audit
from neuronx.experiments.editing import edit, edit_table, write_edited
from neuronx.experiments.feature_importance import (
    SHARES,
    feature_importance,
    feature_importance_table,
    write_feature_importance,
)
from neuronx.experiments.figures import audit_figure, editing_figure, importance_figure
from neuronx.experiments.given import Given
from neuronx.experiments.properties import property_of
from neuronx.methods.milan.training.annotations import Annotations
from neuronx.metrics.agreement import agreement
from neuronx.metrics.bert_score import BertScore
from neuronx.milannotations.reading import read_descriptions
from neuronx.report.caption_scores import caption_table, write_caption_scores


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far people agree on what units do: each description against the others of its unit, beside constants.

    Attributes:
        source: Where annotated units come from.
        models: Keys of the annotated units.
        file: A table of descriptions (layer, unit, summary) to look at instead.
        bert: To score by BERTScore too.
        seed: Which other unit a description is held against.
    """

    source: Annotations | None = None
    models: Sequence[str] = ("base",)
    file: str | Path | None = None
    bert: BertScore | None = None
    seed: int = 0

    def run(self, given: Given) -> str:
        """Scores them; writes `agreement.csv`, and one for each model where there are several."""
        said: dict[str, list[tuple[str, ...]]] = {}
        if self.file is not None:
            said[Path(self.file).stem] = list(read_descriptions(self.file).values())
        elif self.source is not None:
            for name in self.models:
                units = self.source.load(name, given.trainer)
                for index, of_unit in enumerate(units.annotations):
                    said.setdefault(units.model(index), []).append(of_unit)
        if len(said) != 1:
            said["all"] = [of_unit for of_model in list(said.values()) for of_unit in of_model]
        text = ""
        for name, descriptions in said.items():
            rows = agreement(descriptions, bert=self.bert, seed=self.seed)
            stem = "agreement" if len(said) == 1 or name == "all" else f"agreement_{name.replace('/', '_')}"
            given.write(write_caption_scores, f"{stem}.csv", rows)
            text += caption_table(
                rows, f"Agreement of people (x 100): {name}, {len(descriptions)} units", "descriptions"
            )
        return text


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
        """Zeroes units of each network; writes `importance_<target>.csv` and draws it."""
        text, embed = "", None if self.clip is None else self.clip.embed_texts
        for name in self.properties:
            property_of(["a caption"], name, embed)  # what is wrong is said before any caption is written
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
                embed=embed,
                seed=self.seed,
            )
            given.write(write_feature_importance, f"importance_{name}.csv", found)
            given.draw(importance_figure(found), f"importance_{name}.html")
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
        """Searches the captions of all networks; writes `audit.csv` and draws it."""
        found = audit({name: given.captions(target) for name, target in given.targets.items()}, list(self.query))
        given.write(write_audit, "audit.csv", found)
        given.draw(audit_figure(found, self.query), "audit.html")
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
        """Zeroes them; writes `editing.csv` and draws it."""
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
        given.write(write_edited, "editing.csv", found)
        given.draw(editing_figure(found), "editing.html")
        return edit_table(found)
