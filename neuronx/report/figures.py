"""Pictures of a run: how the scores of the units are spread, method by method."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from neuronx.scoring.floors import CEILING, RANDOM, is_method
from neuronx.store.atomic import write_atomic
from neuronx.types import Score

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

BINS = 40
COLOURS = ("#2a6fbb", "#d1495b", "#3a9d5d", "#8f5bb5", "#e08e2b", "#2a9d9d", "#b5651d", "#6b7280")
FLOOR = "#b8bcc4"


def histogram_counts(values: Sequence[float], low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """Counts (BINS,) int64 of values in equal bins from `low` to `high`, and the bins' edges (BINS + 1,) float64."""
    return np.histogram(np.asarray(values, dtype=np.float64), bins=BINS, range=(low, high))


def histograms(scores: Sequence[Score]) -> "Figure":
    """One panel a network, layer, score and judge: the outline of one histogram a method, shuffled ones in grey."""
    from plotly.graph_objects import Figure, Scatter
    from plotly.subplots import make_subplots

    panels: dict[str, dict[str, list[float]]] = {}
    for one in scores:
        # One kind of floor is enough for the eye; the tables have both.
        if one.status == "ok" and not one.method.startswith(RANDOM):
            name = f"{one.target} · {one.unit.layer} · {one.score} · {one.judge}"
            panels.setdefault(name, {}).setdefault(one.method, []).append(one.value)
    if not panels:
        return Figure()
    figure = make_subplots(rows=len(panels), cols=1, subplot_titles=list(panels), vertical_spacing=0.3 / len(panels))
    methods = list(dict.fromkeys(method for panel in panels.values() for method in panel))
    real = [method for method in methods if is_method(method)]
    for index, panel in enumerate(panels.values(), start=1):
        everything = [value for values in panel.values() for value in values]
        low, high = min(everything), max(everything)
        for method, values in panel.items():
            counts, edges = histogram_counts(values, low, high if high > low else low + 1)
            colour = COLOURS[real.index(method) % len(COLOURS)] if method in real else FLOOR
            colour = "#222222" if method == CEILING else colour
            figure.add_trace(
                Scatter(
                    # An outline needs the last count twice, to reach the last edge.
                    x=edges.tolist(),
                    y=[*counts.tolist(), int(counts[-1])],
                    name=method,
                    legendgroup=method,
                    showlegend=method not in {trace.name for trace in figure.data},
                    line={"shape": "hv", "color": colour, "dash": "solid" if method in real else "dot"},
                ),
                row=index,
                col=1,
            )
        figure.update_xaxes(title_text="score", row=index, col=1)
        figure.update_yaxes(title_text="units", row=index, col=1)
    figure.update_layout(template="plotly_white", height=120 + 320 * len(panels), title="Scores of units, by method")
    return figure


def write_figure(figure: "Figure", path: str | Path) -> Path:
    """Writes a page that opens without a network: plotly's script is put beside it, once for all pages of a folder."""
    from plotly.offline import get_plotlyjs

    path = Path(path)
    script = path.with_name("plotly.min.js")
    if not script.exists():
        write_atomic(script, get_plotlyjs().encode())
    page = figure.to_html(include_plotlyjs="directory", full_html=True, div_id=path.stem)
    return write_atomic(path, page.encode())
