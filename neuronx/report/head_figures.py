"""A linear head and the descriptions of its units, in pictures: figure 5 of CLIP-Dissect, and its appendix A.6."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from neuronx.report.figures import COLOURS
from neuronx.report.head_weights import Alignment, NamedByUnit

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

ROW, GAP = 24, 84
"""Pixels: of a row of a table, and between a panel and the next."""


def alignment_figure(found: Mapping[str, Alignment]) -> "Figure":
    """Mean similarity of description and class over the largest weights, one line a method, and its largest weights.

    Args:
        found: By name of the method, all with one similarity.
    """
    from plotly.graph_objects import Figure, Scatter, Table
    from plotly.subplots import make_subplots

    if not found:
        return Figure()
    specs = [[{"type": "xy"}], *([{"type": "table"}] for _ in found)]
    titles = ["", *(f"{method}: the {len(one.links)} largest weights" for method, one in found.items())]
    heights = [380, *(ROW * (len(one.links) + 1) + 14 for one in found.values())]
    full = sum(heights) + GAP * len(found)
    figure = make_subplots(
        rows=1 + len(found),
        cols=1,
        specs=specs,
        row_heights=heights,
        subplot_titles=titles,
        vertical_spacing=GAP / full,
    )
    for place, (method, one) in enumerate(found.items()):
        colour = COLOURS[place % len(COLOURS)]
        x, y = list(one.sizes), list(one.similarity)
        hover = "the %{x:,} largest weights: %{y:.3f}"
        line = {"color": colour, "width": 2.5}
        name = f"{method} (r {one.pearson:+.3f})"
        figure.add_trace(
            Scatter(x=x, y=y, name=name, line=line, mode="lines+markers", hovertemplate=hover), row=1, col=1
        )
        all_weights = Scatter(
            x=[x[0], x[-1]],
            y=[y[-1], y[-1]],
            name=f"{method}, all weights",
            line={"color": colour, "dash": "dot", "width": 1.2},
            mode="lines",
            showlegend=False,
            hoverinfo="skip",
        )
        figure.add_trace(all_weights, row=1, col=1)
        links = one.links
        columns = {
            "weight": [f"{link.weight:.4f}" for link in links],
            "unit": [str(link.unit) for link in links],
            "description": [link.description for link in links],
            "class": [link.class_name for link in links],
            "similarity": [f"{link.similarity:.3f}" for link in links],
        }
        style = {"align": "left", "height": ROW, "line_color": "#e5e7eb"}
        table = Table(
            header={"values": [f"<b>{name}</b>" for name in columns], "fill_color": "#f3f4f6", **style},
            cells={"values": list(columns.values()), "fill_color": "white", **style},
            columnwidth=[1, 1, 4, 4, 1],
        )
        figure.add_trace(table, row=2 + place, col=1)
    figure.update_xaxes(type="log", title_text="number of weights, largest first", tickvals=_sizes(found), row=1, col=1)
    figure.update_yaxes(title_text="similarity of description and class", row=1, col=1)
    figure.update_layout(
        template="plotly_white",
        title={
            "text": "Do large weights join units and classes of like meaning?",
            "subtitle": {"text": "mean similarity over the largest weights; dotted: over all", "font_size": 13},
        },
        height=full + 140,
        margin={"t": 100, "b": 40},
    )
    return figure


def named_by_unit_figure(found: Mapping[str, NamedByUnit]) -> "Figure":
    """How often the description of the unit that contributes most names the class, one group of bars a method."""
    from plotly.graph_objects import Bar, Figure

    methods = list(found)
    bars = (
        ("is the network's prediction", COLOURS[0], [one.equal_to_prediction for one in found.values()]),
        ("is the label", COLOURS[2], [one.equal_to_label for one in found.values()]),
        ("is the prediction, for a unit drawn at random", "#c3c7cf", [one.chance for one in found.values()]),
    )
    figure = Figure(
        [
            Bar(
                x=methods,
                y=[100 * share for share in shares],
                name=name,
                marker_color=colour,
                text=[f"{100 * share:.1f}" for share in shares],
                textposition="outside",
                cliponaxis=False,
            )
            for name, colour, shares in bars
            if any(share == share for share in shares)
        ]
    )
    accuracy = next((one.accuracy for one in found.values() if one.accuracy == one.accuracy), None)
    told = "" if accuracy is None else f"; the network itself is right on {100 * accuracy:.1f} %"
    images = len(next(iter(found.values())).predicted) if found else 0
    figure.update_layout(
        template="plotly_white",
        title={
            "text": "The class that the strongest unit's description names",
            "subtitle": {"text": f"{images:,} images{told}", "font_size": 13},
        },
        yaxis={"title": "images (%)", "rangemode": "tozero"},
        barmode="group",
        height=460,
        margin={"t": 100},
    )
    return figure


def _sizes(found: Mapping[str, Alignment]) -> list[int]:
    return sorted({size for one in found.values() for size in one.sizes[:-1]})
