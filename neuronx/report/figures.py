"""Figures of a run's scores: how they are spread, method by method, and how ablation scores follow correlations.

The curve of the second is the fit of figure 5 of Linear Explanations (Oikarinen and Weng, ICML 2024): ablation =
slope * r^2 + intercept, by least squares, since replacing a unit by its simulation leaves the part 1 - r^2 of its
variance wrong.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from neuronx.errors import UserError
from neuronx.metrics.correlation import moments, pearson
from neuronx.report.evaluation import leaderboard
from neuronx.scoring.rows import CEILING, RANDOM, is_method
from neuronx.scoring.stored import Stored
from neuronx.store.cache import write_atomic
from neuronx.types import UNKNOWN, Score, Unit

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

BINS = 40
COLOURS = ("#2a6fbb", "#d1495b", "#3a9d5d", "#8f5bb5", "#e08e2b", "#2a9d9d", "#b5651d", "#6b7280")
FLOOR = "#b8bcc4"
INK = "#222222"

CORRELATION, ABLATIONS = "correlation", ("ablation_optim", "ablation_norm")
STORED_AS = {
    "sim correlation": CORRELATION,
    "sim ablation(optim)": "ablation_optim",
    "sim ablation(norm)": "ablation_norm",
}
"""What the columns of published files hold."""

WORST = 2.0
"""Percentile of the ablation scores below which points may be left off the axes: a few units can reach -100."""

MANY = 2000
"""Points of a panel from which on they are small and show no explanation."""


def write_figure(figure: "Figure", path: str | Path) -> Path:
    """Writes a page that opens without a network: plotly's script is put beside it, once for all pages of a folder."""
    from plotly.offline import get_plotlyjs

    path = Path(path)
    script = path.with_name("plotly.min.js")
    if not script.exists():
        write_atomic(script, get_plotlyjs().encode())
    page = figure.to_html(include_plotlyjs="directory", full_html=True, div_id=path.stem)
    return write_atomic(path, page.encode())


def histogram_counts(values: Sequence[float], low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """Counts (BINS,) int64 of values in equal bins from `low` to `high`, and the bins' edges (BINS + 1,) float64."""
    return np.histogram(np.asarray(values, dtype=np.float64), bins=BINS, range=(low, high))


def histograms(scores: Sequence[Score]) -> "Figure":
    """One panel a network, layer, score and judge: the outline of one histogram a method, shuffled ones in grey.

    A panel says over how many of how many units a mean is where some have no score, and where there are few.
    """
    from plotly.subplots import make_subplots

    panels: dict[str, dict[str, list[float]]] = {}
    titles: dict[str, list[str]] = {}
    for mean in leaderboard(scores):
        name = f"{mean.target} · {mean.layer} · {mean.score} · {mean.judge}"
        if is_method(mean.method) and not mean.units.isdigit():
            titles.setdefault(name, []).append(f"{mean.method}: {mean.units} units")
    for score in scores:
        # One kind of floor is enough for the eye; the tables have both.
        if score.status == "ok" and not score.method.startswith(RANDOM):
            name = f"{score.target} · {score.unit.layer} · {score.score} · {score.judge}"
            panels.setdefault(name, {}).setdefault(score.method, []).append(score.value)
    spacing = 0.3 / max(1, len(panels))
    titled = [f"{name}{small(', '.join(titles.get(name, ())))}" for name in panels]
    figure = make_subplots(max(1, len(panels)), 1, subplot_titles=titled, vertical_spacing=spacing)
    methods = dict.fromkeys(method for panel in panels.values() for method in panel if is_method(method))
    colours = dict(zip(methods, itertools.cycle(COLOURS), strict=False)) | {CEILING: INK}
    for row, panel in enumerate(panels.values(), start=1):
        everything = [value for values in panel.values() for value in values]
        low, high = min(everything), max(everything)
        for method, values in panel.items():
            counts, edges = histogram_counts(values, low, high if high > low else low + 1)
            figure.add_scatter(
                # An outline needs the last count twice, to reach the last edge.
                x=edges.tolist(),
                y=[*counts.tolist(), int(counts[-1])],
                name=method,
                legendgroup=method,
                showlegend=method not in {trace.name for trace in figure.data},
                line={
                    "shape": "hv",
                    "color": colours.get(method, FLOOR),
                    "dash": "solid" if method in methods else "dot",
                },
                row=row,
                col=1,
            )
    figure.update_xaxes(title_text="score").update_yaxes(title_text="units")
    return laid_out(figure, "Scores of units, by method", height=120 + 320 * len(panels))


def small(text: str) -> str:
    """A second line of a panel's title; nothing for no text."""
    return f"<br><span style='font-size:11px'>{text}</span>" if text else ""


def laid_out(figure: "Figure", title: str, subtitle: str = "", **layout: Any) -> "Figure":
    """The figure with its title, in the style of all figures."""
    text = {"text": title, **({"subtitle": {"text": subtitle, "font_size": 13}} if subtitle else {})}
    return figure.update_layout(template="plotly_white", title=text, **layout)


@dataclass(frozen=True)
class Pair:
    """One explanation with both scores."""

    unit: Unit
    method: str
    correlation: float
    ablation: float
    explanation: str


@dataclass(frozen=True)
class ScoreFit:
    """How ablation scores follow correlations.

    Attributes:
        slope: Of the ablation score over the squared correlation.
        intercept: Ablation score where the correlation is 0.
        r: Pearson correlation of ablation score and correlation, in [-1, 1]; NaN where all ablation scores are equal.
        r_squares: The same with the squared correlation.
        n: Number of pairs.
    """

    slope: float
    intercept: float
    r: float
    r_squares: float
    n: int


def pair_scores(scores: Sequence[Score]) -> dict[tuple[str, str, str, str], list[Pair]]:
    """Brings the two scores of each explanation together, by (target, layer, ablation score, judge).

    Floors, ceilings and units without a number in either score are left out, and so is what has no pair. Scores stored
    in published files count as what their column says; their judge is unknown.
    """
    by_kind: dict[tuple[str, str, str], dict[tuple[Unit, str], Score]] = {}
    for score in scores:
        if score.status == "ok" and is_method(score.method):
            stored = score.score == Stored.name
            kind, judge = (STORED_AS.get(score.judge, ""), UNKNOWN) if stored else (score.score, score.judge)
            by_kind.setdefault((score.target, kind, judge), {})[score.unit, score.method] = score
    pairs: dict[tuple[str, str, str, str], list[Pair]] = {}
    for (target, kind, judge), ablations in by_kind.items():
        correlations = by_kind.get((target, CORRELATION, judge), {})
        for (unit, method), score in ablations.items() if kind in ABLATIONS else ():
            if (unit, method) in correlations:
                pair = Pair(unit, method, correlations[unit, method].value, score.value, score.explanation)
                pairs.setdefault((target, unit.layer, kind, judge), []).append(pair)
    return pairs


def fit_scores(correlation: Sequence[float], ablation: Sequence[float]) -> ScoreFit:
    """Least squares of ablation scores (n,) on squared correlations (n,), in float64.

    Raises:
        UserError: Different numbers of both, fewer than 3, one that is not finite, or squared correlations that are all
            the same.
    """
    r, y = np.asarray(correlation, dtype=np.float64), np.asarray(ablation, dtype=np.float64)
    if r.shape != y.shape or r.ndim != 1 or len(r) < 3 or not (np.isfinite(r).all() and np.isfinite(y).all()):
        raise UserError(
            "A fit needs at least 3 pairs of finite scores; "
            f"there are {r.size} correlations and {y.size} ablation scores."
        )
    x = r * r
    if np.ptp(x) == 0:
        raise UserError("A fit needs correlations that differ; all of them are the same.")
    centred = x - x.mean()
    plain, squared = pearson(moments(torch.tensor(np.stack([r, x])), torch.tensor(np.stack([y, y])))).tolist()
    slope = float(centred @ (y - y.mean()) / (centred @ centred))
    return ScoreFit(slope, float(y.mean() - slope * x.mean()), plain, squared, len(r))


def score_fit_figure(pairs: "Mapping[tuple[str, str, str, str], Sequence[Pair]]") -> "Figure":
    """One panel a network, layer, ablation score and judge: a point for each explanation, and the fitted curve.

    Explanations that do much worse than the mean are left off the axes and counted in the panel's title; they take part
    in the fit.
    """
    from plotly.graph_objects import Figure
    from plotly.subplots import make_subplots

    if not pairs:
        return Figure()
    rows = list(dict.fromkeys((target, layer, judge) for target, layer, _, judge in pairs))
    kinds = [kind for kind in ABLATIONS if any(key[2] == kind for key in pairs)]
    titles = [
        _title(target, layer, kind, judge, pairs.get((target, layer, kind, judge), ()))
        for target, layer, judge in rows
        for kind in kinds
    ]
    figure = make_subplots(
        len(rows), len(kinds), subplot_titles=titles, vertical_spacing=0.32 / len(rows), horizontal_spacing=0.09
    )
    methods = dict.fromkeys(pair.method for panel in pairs.values() for pair in panel)
    colours = dict(zip(methods, itertools.cycle(COLOURS), strict=False))
    for (target, layer, kind, judge), panel in pairs.items():
        place = {"row": rows.index((target, layer, judge)) + 1, "col": kinds.index(kind) + 1}
        for method in [method for method in methods if any(pair.method == method for pair in panel)]:
            _add_points(figure, [pair for pair in panel if pair.method == method], colours[method], len(panel), place)
        _add_curve(figure, panel, place)
        title = "ablation score" if place["col"] == 1 else None
        figure.update_yaxes(range=_span([pair.ablation for pair in panel]), title_text=title, **place)
        figure.update_xaxes(title_text="correlation score", **place)
    for shown in dict.fromkeys(trace.name for trace in figure.data):
        next(trace for trace in figure.data if trace.name == shown).showlegend = True
    figure.update_annotations(font={"size": 13})
    title = "Ablation score against correlation score of the same explanations"
    height, margin = 170 + 380 * len(rows), {"t": 110}
    return laid_out(figure, title, height=height, legend={"itemsizing": "constant"}, margin=margin)


def equation(fit: ScoreFit) -> str:
    """The fitted curve as a formula."""
    return f"ablation = {fit.slope:.3f} r² {'−' if fit.intercept < 0 else '+'} {abs(fit.intercept):.3f}"


def write_score_fit(scores: Sequence[Score], folder: str | Path) -> Path | None:
    """Writes `correlation_ablation.html` into a folder; None, and no file, when no explanation has both scores."""
    pairs = pair_scores(scores)
    return write_figure(score_fit_figure(pairs), Path(folder) / "correlation_ablation.html") if pairs else None


def _add_points(figure: "Figure", pairs: Sequence[Pair], colour: str, shown: int, place: Mapping[str, int]) -> None:
    """The points of one method in a panel that shows so many points."""
    many = shown >= MANY
    figure.add_scatter(
        x=[pair.correlation for pair in pairs],
        y=[pair.ablation for pair in pairs],
        name=pairs[0].method,
        legendgroup=pairs[0].method,
        showlegend=False,
        mode="markers",
        marker={"color": colour, "size": 4 if many else 7, "opacity": 0.35 if many else 0.65},
        # The page would grow by megabytes if ten thousand points told their explanations.
        text=None if many else [f"{pair.unit}: {pair.explanation}" for pair in pairs],
        hovertemplate="%{x:.3f}, %{y:.3f}" + ("" if many else "<br>%{text}") + "<extra></extra>",
        **place,
    )


def _add_curve(figure: "Figure", pairs: Sequence[Pair], place: Mapping[str, int]) -> None:
    """The fitted curve over the range of the correlations; nothing where there is no fit."""
    if fit := _fit_or_none(pairs):
        x = np.linspace(min(pair.correlation for pair in pairs), max(pair.correlation for pair in pairs), 81)
        figure.add_scatter(
            x=x.tolist(),
            y=(fit.slope * x * x + fit.intercept).tolist(),
            name="fit",
            legendgroup="fit",
            showlegend=False,
            mode="lines",
            line={"color": INK, "width": 2.5},
            hovertemplate=f"{equation(fit)}<extra></extra>",
            **place,
        )


def _title(target: str, layer: str, kind: str, judge: str, pairs: Sequence[Pair]) -> str:
    if not pairs:
        return ""
    where = " · ".join((target, layer or "output", kind, *([judge] if judge != UNKNOWN else [])))
    fit, low = _fit_or_none(pairs), _span([pair.ablation for pair in pairs])[0]
    below = sum(pair.ablation < low for pair in pairs)
    outside = f", {below} below the axis" if below else ""
    curve = f"{equation(fit)}, r {fit.r:.2f}" if fit else "too few for a fit"
    return f"{where}{small(f'{curve}, {len(pairs)} explanations{outside}')}"


def _fit_or_none(pairs: Sequence[Pair]) -> ScoreFit | None:
    try:
        return fit_scores([pair.correlation for pair in pairs], [pair.ablation for pair in pairs])
    except UserError:
        return None


def _span(ablation: Sequence[float]) -> tuple[float, float]:
    """The part of the axis to show: all points but the worst few, with a margin."""
    worst, best = min(ablation), max(ablation)
    usual = float(np.percentile(ablation, WORST, method="higher"))
    # Nothing is hidden where the worst are hardly below the others.
    low = worst if worst >= usual - 0.5 * max(best - usual, 1e-9) else usual
    margin = 0.05 * max(best - low, 1e-3)
    return low - margin, best + margin
