"""How captions depend on how they are searched for: greedily or with beams, and how much the language model weighs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.table import Column
from torch import Tensor

from neuronx.errors import UserError
from neuronx.experiments.figures import INK, laid_out
from neuronx.experiments.given import Given
from neuronx.methods.milan.captioner import Beams, Captioner, beam, rerank
from neuronx.methods.milan.describer import load
from neuronx.methods.milan.features import Features, features_of
from neuronx.methods.milan.training.annotations import Annotations
from neuronx.methods.milan.training.descriptions import held_out
from neuronx.metrics.captions import score_captions
from neuronx.metrics.constants import constant_captions, nearest_units
from neuronx.metrics.naming import naming
from neuronx.options import Count, NotNegative
from neuronx.report.figures import COLOURS, FLOOR
from neuronx.report.inventory import as_text, plain_table
from neuronx.store import checkpoints
from neuronx.tables.csv import write_csv
from neuronx.types import Cell

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from neuronx.milannotations.dataset import Milannotations


COLUMNS = ("captions", "beam", "temperature", "BLEU-1", "BLEU-4", "ROUGE-L", "names the meaning", "distinct", "units")
UNITS = 64


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Captions of units that a captioner never saw, searched for in many ways; one table.

    Attributes:
        source: Where annotated units come from.
        weights: A captioner, as `neuronx.methods.milan.describer.load` takes it.
        annotations: Key of the units; those that the captioner was trained on by default.
        strategies: Some of greedy, greedy-pmi, beam, beam-pmi and rerank.
        beams: Widths.
        temperatures: Weights of the language model.
    """

    source: Annotations
    weights: str | Path = "milan_base"
    annotations: str | None = None
    strategies: Sequence[str] = ("greedy", "greedy-pmi", "beam", "rerank")
    beams: Sequence[Count] = (5, 20, 50)
    temperatures: Sequence[NotNegative] = (0.05, 0.1, 0.2, 0.4, 0.7)

    def run(self, given: Given) -> str:
        """Searches and scores; writes `sweep.csv` and draws it."""
        for strategy in self.strategies:
            searching(strategy)
        describer = load(self.weights)
        card = {} if describer.published else checkpoints.read(self.weights)[1].get("data", {})
        key = self.annotations or card.get("annotations", "base")
        units = self.source.load(key, given.trainer)
        known, test = torch.arange(0), torch.arange(len(units))
        if key == card.get("annotations") and len(units) == card["units"] and card["test"]:
            known, test = held_out(len(units), card["test"], card["seed"])
        features = features_of(units, describer.encoder, given.trainer)
        ways: list[tuple[str, Cell, Cell, Sequence[str]]] = []
        for strategy in self.strategies:
            ways += searched(describer.captioner, features, test, strategy, self.beams, self.temperatures)
        ways += baselines(units, features, known, test)
        rows = scored(ways, units, test, self.source.truth(units))
        given.write(write_csv, "sweep.csv", COLUMNS, rows)
        given.draw(sweep_figure(rows, COLUMNS), "sweep.html")
        unseen = "that the captioner never saw" if len(known) else "that the captioner may have seen in training"
        return f"{len(test)} units of {key} {unseen}; scores x 100\n" + table(rows)


def searched(
    captioner: Captioner,
    features: Features,
    units: Tensor,
    strategy: str,
    beams: Sequence[Count],
    temperatures: Sequence[NotNegative],
) -> list[tuple[str, Cell, Cell, Sequence[str]]]:
    """Captions of some units in all ways that a strategy allows: (strategy, beam, temperature, captions).

    Beams by likelihood are searched once for all temperatures.
    """
    search, weighed = searching(strategy)
    found: list[tuple[str, Cell, Cell, Sequence[str]]] = []
    if weighed and captioner.language_model is None:
        return found
    blocks = units.split(UNITS)
    for width in [None] if search == "greedy" else beams:
        kept = [
            beam(captioner.decoder, features[block], width, captioner.length)
            for block in blocks
            if width is not None and search == "rerank"
        ]
        for temperature in temperatures if weighed else (None,):
            if search == "rerank":
                texts = [text for one in kept for text in _best(captioner, one, temperature)]
            else:
                options: dict[str, Any] = {"pmi": weighed, "temperature": temperature, "beam_size": width}
                texts = [text for block in blocks for text in captioner(features[block], search, **options).captions]
            found.append((strategy, width, temperature, texts))
    return found


def searching(strategy: str) -> tuple[str, bool]:
    """How captions are searched for (greedy, beam or rerank), and whether they are weighed against a language model.

    Raises:
        UserError: No way to search.
    """
    search, _, by_pmi = strategy.partition("-")
    if search not in ("greedy", "beam", "rerank") or by_pmi not in ("", "pmi") or strategy == "rerank-pmi":
        raise UserError(f"`{strategy}` is no way to search: choose greedy, greedy-pmi, beam, beam-pmi or rerank.")
    return search, search == "rerank" or by_pmi == "pmi"


def _best(captioner: Captioner, beams: Beams, temperature: Any) -> Sequence[str]:
    assert captioner.language_model is not None
    return captioner.vocabulary.sentences(rerank(beams, captioner.language_model, temperature).tokens[:, 0])


def baselines(
    units: "Milannotations", features: Features, known: Tensor, test: Tensor
) -> list[tuple[str, Cell, Cell, Sequence[str]]]:
    """Constant captions, and what was said of the most similar known unit, where some are known."""
    training = [units.annotations[unit] for unit in (known if len(known) else test).tolist()]
    constants = constant_captions((text for given in training for text in given), training)
    rows = [(label, None, None, [text] * len(test)) for label, text in constants.items()]
    if len(known):
        nearest = nearest_units(features[test], features[known]).tolist()
        rows.append(("nearest unit", None, None, [(training[place] or [""])[0] for place in nearest]))
    return rows  # type: ignore[return-value]


def scored(
    ways: Sequence[tuple[str, Cell, Cell, Sequence[str]]],
    units: "Milannotations",
    test: Tensor,
    truth: Sequence[Sequence[str]],
) -> list[tuple[Cell, ...]]:
    """A row for each way: see `COLUMNS`."""
    said = [units.annotations[unit] for unit in test.tolist()]
    wanted = [truth[unit] for unit in test.tolist()]
    rows: list[tuple[Cell, ...]] = []
    for label, width, temperature, texts in ways:
        scores = score_captions(texts, said)
        share = naming({label: texts}, wanted)[label].share if any(wanted) else None
        figures = (scores.bleu[0], scores.bleu[3], scores.rougel, share)
        rows.append((label, width, temperature, *figures, len(set(texts)), scores.n))
    return rows


def table(rows: Sequence[tuple[Cell, ...]]) -> str:
    """The rows for people; scores in percent."""
    made = plain_table(COLUMNS[0], *(Column(name, justify="right") for name in COLUMNS[1:]))
    for row in rows:
        label, width, temperature, *scores, distinct, count = row
        shown = ["" if score is None else f"{100 * float(score):.1f}" for score in scores]
        how = ("" if one is None else f"{float(one):g}" for one in (width, temperature))
        made.add_row(str(label), *how, *shown, str(distinct), str(count))
    return as_text(made)


def sweep_figure(rows: Sequence[Sequence[Any]], columns: Sequence[str]) -> "Figure":
    """Scores over the language model's weight: a panel for each score, a line for each search and width."""
    from plotly.graph_objects import Figure
    from plotly.subplots import make_subplots

    scores = [place for place in (3, 5, 6) if any(row[place] is not None for row in rows)]
    figure: Figure = make_subplots(1, len(scores), subplot_titles=[columns[place] for place in scores])
    lines: dict[str, list[Sequence[Any]]] = {}
    for row in rows:
        lines.setdefault(f"{row[0]}, {row[1]:g} beams" if row[1] else str(row[0]), []).append(row)
    real = [name for name in lines if name != "nearest unit" and not name.startswith("always ")]
    weights = [row[2] for row in rows if row[2] is not None] or [0.0, 1.0]
    for name, of_line in lines.items():
        colour = COLOURS[real.index(name) % len(COLOURS)] if name in real else INK if name == "nearest unit" else FLOOR
        flat = of_line[0][2] is None
        x = [min(weights), max(weights)] if flat else [row[2] for row in of_line]
        for panel, score in enumerate(scores, start=1):
            figure.add_scatter(
                x=x,
                y=[100 * row[score] for row in of_line] * (2 if flat else 1),
                name=name,
                legendgroup=name,
                showlegend=panel == 1,
                mode="lines" if flat else "lines+markers",
                line={"color": colour, "dash": "dot" if flat else "solid"},
                row=1,
                col=panel,
            )
    figure.update_xaxes(title_text="temperature (weight of the language model)")
    return laid_out(figure, "How captions are searched for", "dotted: without the language model", None, None)
