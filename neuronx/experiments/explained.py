"""Two studies of explanations in figures: what images show at each strength of a unit, and what reads the units."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from neuronx.concepts.seen import as_seen_by
from neuronx.errors import Unsuitable, UserError
from neuronx.experiments.given import Given
from neuronx.options import Count
from neuronx.recording.record import record
from neuronx.report.area_chart import AreaChart, area_figure, chart_explanation
from neuronx.report.head_study import study_head, write_head_study
from neuronx.report.inventory import as_text, plain_table
from neuronx.report.tiles import spread
from neuronx.scoring.compare import check_judge
from neuronx.store.processes import is_first
from neuronx.tables.csv import write_csv
from neuronx.types import Cell, Explanation, Judge, as_found

if TYPE_CHECKING:
    from neuronx.concepts.clip import Clip
    from neuronx.targets.target import Target


@dataclass(frozen=True, kw_only=True)
class Ranges:
    """What images show in each range of a unit's activation, for the concepts of its explanation.

    Attributes:
        judge: Decides which concepts an image shows.
        units: Charts of each layer and method, spread over the units that have an explanation.
        bins: Ranges of activation.
    """

    judge: Judge
    units: Count = 10
    bins: Count = 8

    def run(self, given: Given) -> str:
        """Draws the charts; writes `ranges.csv` and `ranges_<target>_<layer>_<unit>_<method>.html`."""
        rows: list[list[Cell]] = []
        table = plain_table("target", "unit", "method", "explanation", "in the lowest range", "in the highest")
        of: dict[str, None] = {}  # what images the charts are of, each said once
        for name, target in given.targets.items():
            images = given.images(target)
            splits = ", ".join(f"{len(own):,} {split}" for split, own in images.splits.items())
            of[f"all {len(images):,} images of {images.name}, those that methods saw among them ({splits})"] = None
            recorded = record(target, images, given.trainer)
            for method, explanations in explain_all(given, target).items():
                check_judge(self.judge, images, (explanation.made_by for explanation in explanations))
                for explanation in _some(explanations, self.units):
                    layer, unit = explanation.unit.layer, explanation.unit.index
                    options = (recorded[layer], images, as_seen_by(target, self.judge), given.trainer)
                    chart = chart_explanation(explanation, *options, bins=self.bins)
                    title = f"{name} {explanation.unit}, {method}: {explanation}"
                    stem = "_".join((name, layer, str(unit), method)).replace("/", "-")
                    given.draw(area_figure(chart, title), f"ranges_{stem}.html")
                    rows += [[name, layer, unit, method, *row] for row in _long(chart)]
                    table.add_row(name, str(explanation.unit), method, str(explanation), *_ends(chart))
        if not rows:
            raise UserError("No unit has an explanation to chart.")
        columns = ("target", "layer", "unit", "method", "concept", "low", "high", "images", "percent")
        given.write(write_csv, "ranges.csv", columns, rows)
        title = (
            f"Share of a range's images that show the first concept, judge {self.judge.name}, of {' and '.join(of)}."
        )
        return f"{title}\n\n{as_text(table)}"


@dataclass(frozen=True, kw_only=True)
class Head:
    """Do large weights of a network's linear head join units and classes of like meaning?

    Attributes:
        clip: Compares explanations with names of classes; without it only equal names are similar.
    """

    clip: "Clip | None" = None

    def run(self, given: Given) -> str:
        """Compares them; writes `head.csv`, `head_weights_*.html` and `named_by_unit_*.html`.

        Raises:
            UserError: When no layer is read linearly.
        """
        columns = ("units", "r", "largest weights", "all weights", "names the prediction", "names the label", "chance")
        rows: list[list[Cell]] = []
        unread: Unsuitable | None = None
        embed = None if self.clip is None else self.clip.embed_texts
        for name, target in given.targets.items():
            explained = explain_all(given, target)
            for layer in target.layers:
                try:
                    study = study_head(target, layer, explained, given.images(target), given.trainer, embed)
                except Unsuitable as reason:
                    unread = reason
                    continue
                if is_first():
                    write_head_study(study, given.folder)
                for method, weights in study.alignment.items():
                    named = study.named[method]
                    similar = weights.pearson, weights.similarity[0], weights.similarity[-1]
                    shares = named.equal_to_prediction, named.equal_to_label, named.chance
                    rows.append([name, layer, method, weights.n_units, *similar, *shares])
        if not rows:
            raise unread or UserError("No layer was chosen.")
        given.write(write_csv, "head.csv", ("target", "layer", "method", *columns), rows)
        table = plain_table("target", "layer", "method", *columns)
        for row in rows:
            table.add_row(*(f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row))
        return as_text(table)


def explain_all(given: Given, target: "Target") -> Mapping[str, Sequence[Explanation]]:
    """What each method says of the units of a network that are asked for."""
    explained = {}
    for name, method in given.methods.items():
        explanations = as_found(method.explain(target, given.images(target), given.trainer)).explanations
        explained[name] = [explanation for explanation in explanations if target.asks_for(explanation.unit)]
    if not explained:
        raise UserError("This experiment needs explanations: choose methods with explain=.")
    return explained


def _some(explanations: Sequence[Explanation], units: int) -> list[Explanation]:
    """Explanations of some whole units of each layer; inactive units have none."""
    chosen = []
    for layer in dict.fromkeys(explanation.unit.layer for explanation in explanations):
        usable = [one for one in explanations if one.unit.layer == layer and one.terms and one.unit.part is None]
        chosen += [usable[place] for place in spread(len(usable), units)] if usable else []
    return chosen


def _long(chart: AreaChart) -> list[list[Cell]]:
    """A row for each concept and range: concept, ends of the range, images in it, percent that show the concept."""
    edges, images = chart.edges.tolist(), chart.images.tolist()
    return [
        [concept, low, high, n, percent]
        for concept, shares in zip(chart.names, chart.percent.tolist(), strict=True)
        for low, high, n, percent in zip(edges[:-1], edges[1:], images, shares, strict=True)
    ]


def _ends(chart: AreaChart) -> tuple[str, str]:
    """The share of the first concept in the lowest and in the highest range with images, and of how many images."""
    full = chart.images > 0
    shares, images = chart.percent[0][full].tolist(), chart.images[full].tolist()
    return f"{shares[0]:.1f} % of {images[0]:,}", f"{shares[-1]:.1f} % of {images[-1]:,}"
