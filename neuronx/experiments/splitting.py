"""The experiments on split units, as things to run: whether splitting helps to predict units, real and planted ones."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from neuronx.errors import UserError
from neuronx.experiments.given import Given
from neuronx.experiments.planting import plant, recover, summary
from neuronx.experiments.split_scores import SplitScore, gains, groups_by_test, split_scores
from neuronx.methods.pure.method import Pure
from neuronx.report.inventory import as_text, plain_table
from neuronx.tables.csv import write_csv
from neuronx.targets.segment import lower_layer
from neuronx.types import Cell, Judge, Table, Unit


@dataclass(frozen=True, kw_only=True)
class Splitting:
    """Parts against wholes at the same number of terms: the units of a network, or planted ones with known sources.

    Every unit that can be split is, pure ones too, which should not gain.

    Attributes:
        judge: Who says which concepts a test image shows.
        terms: Of the explanation of each part.
        planted_in: A layer; None for the units of the layers asked for.
        double: Number of planted units of two sources.
        single: Of one.
        lower: The layer before that of the sources, where units are planted; by default as for its own units.
        seed: Of planting and bootstrap.
    """

    judge: Judge
    terms: int = 1
    planted_in: str | None = None
    double: int = 30
    single: int = 30
    lower: str | None = None
    seed: int = 0

    def run(self, given: Given) -> str:
        """Scores them; writes `split_units.csv` and `split_gains.csv`, and `planted.csv` of planted units."""
        target, pure = given.one_target(), pure_of(given)
        probe, level = given.images(target), pure.alpha or 0.001
        groups: dict[str, Sequence[Unit]] = {}
        text = ""
        if self.planted_in is not None:
            lower = self.lower or pure.lower or lower_layer(target, self.planted_in)
            garden = plant(target, probe, given.trainer, self.planted_in, self.double, self.single, self.seed)
            found = recover(garden, replace(pure, lower=lower, alpha=level), probe, given.trainer)
            columns = ("unit", "sources", "p", "split", "parts", "rand", "part", "whole")
            rows = [
                (o.unit.index, " + ".join(o.sources), o.p, int(o.split), o.parts, o.rand, o.part, o.whole)
                for o in found
            ]
            given.write(write_csv, "planted.csv", columns, rows)
            text = shown("Planted units", (("planted", "mean"), list(summary(found).items()))) + "\n"
            target, pure = garden.target, replace(pure, lower=lower)
            groups = {"planted, two sources": garden.units(True), "planted, one source": garden.units(False)}
        scores = split_scores(replace(pure, alpha=None), target, probe, self.judge, given.trainer, self.terms)
        table = gains(scores, {**groups, **groups_by_test(scores, level)}, self.seed)
        given.write(write_csv, "split_units.csv", *_units(scores))
        given.write(write_csv, "split_gains.csv", *table)
        title = f"Correlation on test images: {pure.describes}, {self.terms} terms a part, judge {self.judge.name}"
        return text + shown(title, table)


def shown(title: str, table: Table) -> str:
    """A table as people read it."""
    columns, rows = table
    shown = plain_table(*columns, title=title)
    for row in rows:
        shown.add_row(*map(_text, row))
    return as_text(shown)


def _text(cell: Cell) -> str:
    return f"{cell:.3f}" if isinstance(cell, float) else str(cell)


def pure_of(given: Given) -> Pure:
    """The PURE among the methods; UserError where there is none."""
    found = [method for method in given.methods.values() if isinstance(method, Pure)]
    if not found:
        raise UserError("This experiment is about split units: choose explain=pure.")
    return found[0]


def _units(scores: Sequence[SplitScore]) -> Table:
    columns = ("layer", "unit", "p", "parts", "terms", "split", "unsplit", "free", "by_parts", "as_whole")
    return columns, [
        (o.unit.layer, o.unit.index, o.p, o.parts, o.terms, o.split, o.unsplit, o.free, *o.explanations) for o in scores
    ]
