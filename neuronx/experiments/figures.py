"""The experiments as pictures."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from neuronx.experiments.auditing import Condition
from neuronx.experiments.editing import Edited
from neuronx.experiments.feature_importance import FeatureImportance, shortened
from neuronx.experiments.generalisation import CONSTANT, NEAREST, Outcome
from neuronx.metrics.naming import Naming
from neuronx.report.figures import COLOURS, FLOOR

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

INK = "#222222"


def editing_figure(found: Edited) -> "Figure":
    """Accuracy on misleading pictures over the number of units at 0: named, any, random; and on usual pictures."""
    from plotly.graph_objects import Figure

    figure, x = Figure(), found.steps.tolist()
    _random(figure, x, found.random)
    _line(figure, x, found.unread, "any units, same kind of order", COLOURS[4])
    _line(figure, x, found.accuracy, "units whose caption names the mark", COLOURS[0], width=3)
    _line(figure, x, found.usual, "the same, on usual pictures", COLOURS[0], dash="dash")
    text = f"{found.target}, marks mislead ({found.images}); {len(found.named)} of {found.units} units name the mark"
    return _laid_out(figure, "Without the units that name a spurious mark", text, "units at 0", "accuracy (%)")


def importance_figure(found: FeatureImportance) -> "Figure":
    """Accuracy over the share of units at 0, a line for each property, with the lowest to highest random order."""
    from plotly.graph_objects import Figure

    figure, x = Figure(), [100 * share for share in found.shares]
    _random(figure, x, found.random)
    for place, order in enumerate(found.orders):
        below, above = order.difference[:, 0] - order.difference[:, 1], order.difference[:, 2] - order.difference[:, 0]
        bars = {"array": (100 * above).tolist(), "arrayminus": (100 * below).tolist(), "symmetric": False}
        _line(figure, x, order.accuracy, shortened(order.name), COLOURS[place % len(COLOURS)], error_y=bars)
    figure.add_hline(100 * found.intact, line={"color": INK, "dash": "dot", "width": 1}, annotation_text="intact")
    text = f"{found.target} on {found.images}, {found.units} units; bars: 95 % of the difference from random"
    return _laid_out(figure, "Which units are needed, by their captions", text, "units at 0 (%)", "accuracy (%)")


def audit_figure(found: Sequence[Condition], query: Sequence[str]) -> "Figure":
    """The share of units that match in each network, with its interval."""
    from plotly.graph_objects import Bar, Figure

    shares = [100 * one.share for one in found]
    ends = {
        "array": [100 * (one.high - one.share) for one in found],
        "arrayminus": [100 * (one.share - one.low) for one in found],
        "symmetric": False,
    }
    counts = [f"{len(one.matched)} of {one.units}" for one in found]
    bars = Bar(x=[one.name for one in found], y=shares, error_y=ends, text=counts, width=0.4, insidetextanchor="start")
    figure = Figure(bars.update(marker_color=COLOURS[0]))
    title = "Units whose caption names " + (" | ".join(query) if len(query) < 8 else f"one of {len(query)} words")
    return _laid_out(figure, title, "95 % intervals (Wilson)", "", "share of units (%)")


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
    return _laid_out(figure, "How captions are searched for", "dotted: without the language model", None, None)


def outcomes_figure(outcomes: Sequence[Outcome], named: Mapping[str, Mapping[str, Naming]]) -> "Figure":
    """A row for each split, a dot for each kind of caption: BLEU-1, and where it is known, whether it names the truth.

    Where there is one split only, each kind of caption has a row.

    Args:
        outcomes: Of which the first trial is drawn; of constants the better one.
        named: Split -> kind of caption -> how often it names the leading factor.
    """
    from plotly.subplots import make_subplots

    titles = ["BLEU-1 (x 100)", "names the leading factor (%, 95 % interval)"][: 2 if named else 1]
    figure = make_subplots(1, len(titles), subplot_titles=titles, shared_yaxes=True, horizontal_spacing=0.03)
    kinds: dict[str, dict[str, Outcome]] = {}
    for one in outcomes:
        of_kind = kinds.setdefault("constant" if one.method == CONSTANT else one.method, {})
        split = f"{one.split.experiment}: {one.split.name}"
        if split not in of_kind or (one.method == CONSTANT and one.scores.bleu[0] > of_kind[split].scores.bleu[0]):
            of_kind[split] = one
    real = [kind for kind in kinds if kind not in ("constant", NEAREST)]
    splits = list(dict.fromkeys(split for of_kind in kinds.values() for split in of_kind))
    several = len(splits) > 1
    for kind, of_kind in kinds.items():
        colour = COLOURS[real.index(kind) % len(COLOURS)] if kind in real else INK if kind == NEAREST else FLOOR
        style: dict[str, Any] = {"name": kind, "legendgroup": kind, "mode": "markers"}
        style["marker"] = {"color": colour, "size": 9, "symbol": "circle" if kind in real else "diamond-open"}
        bleu = [100 * one.scores.bleu[0] for one in of_kind.values()]
        figure.add_scatter(x=bleu, y=list(of_kind) if several else [kind], row=1, col=1, showlegend=several, **style)
        known = {split: named[split][one.label] for split, one in of_kind.items() if split in named}
        if known:
            ends = {
                "array": [100 * (one.high - one.share) for one in known.values()],
                "arrayminus": [100 * (one.share - one.low) for one in known.values()],
                "symmetric": False,
                "thickness": 1,
                "width": 3,
            }
            share = [100 * one.share for one in known.values()]
            y = list(known) if several else [kind]
            figure.add_scatter(x=share, y=y, error_x=ends, row=1, col=2, showlegend=False, **style)
    figure.update_yaxes(autorange="reversed", automargin=True)
    figure.update_xaxes(rangemode="tozero")
    subtitle = "trained → tested" if several else splits[0]
    _laid_out(figure, "Captions of units that were not trained on", subtitle, None, None)
    return figure.update_layout(height=220 + 34 * (len(splits) if several else len(kinds)), width=1300)


def _random(figure: "Figure", x: Sequence[float], random: Tensor) -> None:
    low, high = random.aminmax(dim=0)
    outline = [*(100 * high).tolist(), *(100 * low.flip(0)).tolist()]
    figure.add_scatter(
        x=[*x, *reversed(x)],
        y=outline,
        mode="lines",
        fill="toself",
        fillcolor="rgba(120,125,135,0.18)",
        line={"width": 0},
        hoverinfo="skip",
        name=f"{len(random)} random orders, lowest to highest",
    )
    _line(figure, x, random.mean(0), "their mean", "#6b7280", dash="dot")


def _line(
    figure: "Figure",
    x: Sequence[float],
    y: Tensor,
    name: str,
    colour: str,
    *,
    dash: str = "solid",
    width: float = 2,
    **more: Any,
) -> None:
    line = {"color": colour, "dash": dash, "width": width}
    figure.add_scatter(x=list(x), y=(100 * y).tolist(), name=name, mode="lines+markers", line=line, **more)


def _laid_out(figure: "Figure", title: str, subtitle: str, x: str | None, y: str | None) -> "Figure":
    if x is not None:
        figure.update_xaxes(title_text=x)
    if y is not None:
        figure.update_yaxes(title_text=y, rangemode="tozero")
    return figure.update_layout(
        template="plotly_white",
        title={"text": title, "subtitle": {"text": subtitle, "font_size": 13}},
        height=520,
        margin={"t": 110},
    )
