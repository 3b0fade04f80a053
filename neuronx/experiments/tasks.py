"""The experiments that zero or search units by their captions, as things to run: files written, tables returned."""

from collections.abc import Sequence
from dataclasses import dataclass
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
from neuronx.experiments.given import Given


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
