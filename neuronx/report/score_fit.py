"""Two ways to judge one explanation, side by side: ablation score against correlation, with the fitted curve.

The fit is the one of figure 5 of Linear Explanations (Oikarinen and Weng, ICML 2024): ablation = slope * r^2 +
intercept, by least squares, since replacing a unit by its simulation leaves the part 1 - r^2 of its variance wrong.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from neuronx.errors import UserError
from neuronx.metrics.correlation import moments, pearson
from neuronx.report.figures import COLOURS, write_figure
from neuronx.scoring.floors import is_method
from neuronx.scoring.stored import Stored
from neuronx.types import UNKNOWN, Score, Unit

if TYPE_CHECKING:
    from plotly.graph_objects import Figure, Scatter

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
    found: dict[tuple[str, str, str], dict[tuple[Unit, str], Score]] = {}
    for one in scores:
        if one.status == "ok" and is_method(one.method):
            kind, judge = (
                (STORED_AS.get(one.judge, ""), UNKNOWN) if one.score == Stored.name else (one.score, one.judge)
            )
            found.setdefault((one.target, kind, judge), {})[one.unit, one.method] = one
    pairs: dict[tuple[str, str, str, str], list[Pair]] = {}
    for (target, kind, judge), ablated in found.items():
        correlated = found.get((target, CORRELATION, judge), {})
        for (unit, method), one in ablated.items() if kind in ABLATIONS else ():
            if (other := correlated.get((unit, method))) is not None:
                pair = Pair(unit, method, other.value, one.value, one.explanation)
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
    titles = [_title(key, pairs.get((key[0], key[1], kind, key[2]), ()), kind) for key in rows for kind in kinds]
    figure = make_subplots(
        len(rows), len(kinds), subplot_titles=titles, vertical_spacing=0.32 / len(rows), horizontal_spacing=0.09
    )
    methods = list(dict.fromkeys(one.method for of_panel in pairs.values() for one in of_panel))
    for (target, layer, kind, judge), of_panel in pairs.items():
        row, col = rows.index((target, layer, judge)) + 1, kinds.index(kind) + 1
        for trace in [*_points(of_panel, methods), *_curve(of_panel)]:
            trace.showlegend = trace.name not in {shown.name for shown in figure.data}
            figure.add_trace(trace, row=row, col=col)
        low, high = _shown([one.ablation for one in of_panel])
        figure.update_yaxes(range=[low, high], title_text="ablation score" if col == 1 else None, row=row, col=col)
        figure.update_xaxes(title_text="correlation score", row=row, col=col)
    figure.update_annotations(font={"size": 13})
    figure.update_layout(
        template="plotly_white",
        title="Ablation score against correlation score of the same explanations",
        height=170 + 380 * len(rows),
        legend={"itemsizing": "constant"},
        margin={"t": 110},
    )
    return figure


def equation(fit: ScoreFit) -> str:
    """The fitted curve as a formula."""
    return f"ablation = {fit.slope:.3f} r² {'−' if fit.intercept < 0 else '+'} {abs(fit.intercept):.3f}"


def write_score_fit(scores: Sequence[Score], folder: str | Path) -> Path | None:
    """Writes `correlation_ablation.html` into a folder; None, and no file, when no explanation has both scores."""
    pairs = pair_scores(scores)
    return write_figure(score_fit_figure(pairs), Path(folder) / "correlation_ablation.html") if pairs else None


def _points(pairs: Sequence[Pair], methods: Sequence[str]) -> "list[Scatter]":
    """One trace a method, in the colour of its place among all methods."""
    from plotly.graph_objects import Scatter

    many = len(pairs) >= MANY
    traces = []
    for method in methods:
        mine = [one for one in pairs if one.method == method]
        if mine:
            traces.append(
                Scatter(
                    x=[one.correlation for one in mine],
                    y=[one.ablation for one in mine],
                    name=method,
                    legendgroup=method,
                    mode="markers",
                    marker={
                        "color": COLOURS[methods.index(method) % len(COLOURS)],
                        "size": 4 if many else 7,
                        "opacity": 0.35 if many else 0.65,
                    },
                    # The page would grow by megabytes if ten thousand points told their explanations.
                    text=None if many else [f"{one.unit}: {one.explanation}" for one in mine],
                    hovertemplate="%{x:.3f}, %{y:.3f}" + ("<extra></extra>" if many else "<br>%{text}<extra></extra>"),
                )
            )
    return traces


def _curve(pairs: Sequence[Pair]) -> "list[Scatter]":
    """The fitted curve over the range of the correlations; nothing where there is no fit."""
    from plotly.graph_objects import Scatter

    fit = _fit_or_none(pairs)
    if fit is None:
        return []
    x = np.linspace(min(one.correlation for one in pairs), max(one.correlation for one in pairs), 81)
    return [
        Scatter(
            x=x.tolist(),
            y=(fit.slope * x * x + fit.intercept).tolist(),
            name="fit",
            legendgroup="fit",
            mode="lines",
            line={"color": "#222222", "width": 2.5},
            hovertemplate=f"{equation(fit)}<extra></extra>",
        )
    ]


def _title(key: tuple[str, str, str], pairs: Sequence[Pair], kind: str) -> str:
    if not pairs:
        return ""
    target, layer, judge = key
    where = " · ".join((target, layer or "output", kind, *([judge] if judge != UNKNOWN else [])))
    fit = _fit_or_none(pairs)
    low = _shown([one.ablation for one in pairs])[0]
    below = sum(one.ablation < low for one in pairs)
    outside = f", {below} below the axis" if below else ""
    told = f"{equation(fit)}, r {fit.r:.2f}" if fit is not None else "too few for a fit"
    return f"{where}<br><span style='font-size:11px'>{told}, {len(pairs)} explanations{outside}</span>"


def _fit_or_none(pairs: Sequence[Pair]) -> ScoreFit | None:
    try:
        return fit_scores([one.correlation for one in pairs], [one.ablation for one in pairs])
    except UserError:
        return None


def _shown(ablation: Sequence[float]) -> tuple[float, float]:
    """The part of the axis to show: all points but the worst few, with a margin."""
    values = np.asarray(ablation)
    usual, best = float(np.percentile(values, WORST, method="higher")), float(values.max())
    worst = float(values.min())
    # Nothing is hidden where the worst are hardly below the others.
    low = worst if worst >= usual - 0.5 * max(best - usual, 1e-9) else usual
    margin = 0.05 * max(best - low, 1e-3)
    return low - margin, best + margin
