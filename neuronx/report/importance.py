"""How much of a unit's effect lies in its top images: table 1 of Linear Explanations, and its curves."""

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from rich.console import RenderableType
from rich.table import Column
from rich.text import Text
from torch import Tensor

from neuronx.report.figures import COLOURS, laid_out
from neuronx.report.inventory import as_text, plain_table
from neuronx.scoring.ablation.importance import UnitImportance

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def mean_and_std(shares: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and unbiased deviation (X,) over those units of (K, X) that have an effect; NaN where there are too few."""
    kept = shares[~shares.isnan().any(1)]
    return kept.mean(0), kept.std(0) if len(kept) > 1 else torch.full_like(kept.sum(0), torch.nan)


def importance_table(found: Sequence[UnitImportance]) -> str:
    """The table of `show=importance`: one row a layer, and one for all units of a network that has several layers."""
    tables: list[RenderableType] = []
    for name, of_target in _by_target(found).items():
        title = f"{name}: share of a unit's effect (%, mean ± std) in its top images, on {of_target[0].images}"
        table = plain_table("layer", Column("units", justify="right"))
        for cutoff in of_target[0].cutoffs:
            table.add_column(f"top {100 * cutoff:g} %", justify="right")
        silent = any(one.n_no_effect for one in of_target)
        if silent:
            table.add_column("no effect", justify="right")
        for layer, shares in _rows(of_target):
            mean, std = mean_and_std(shares)
            cells = [f"{100 * m:.1f} ± {100 * s:.1f}" for m, s in zip(mean.tolist(), std.tolist(), strict=True)]
            none = int(shares.isnan().any(1).sum())
            table.add_row(layer, str(len(shares) - none), *cells, *([str(none) if none else ""] if silent else []))
        tables += [Text(title), table]
    return as_text(*tables)


def importance_figure(found: Sequence[UnitImportance]) -> "Figure":
    """One panel a network: the mean curve of each layer over the share of images, in a band of one deviation."""
    from plotly.graph_objects import Figure
    from plotly.subplots import make_subplots

    by_target = _by_target(found)
    if not by_target:
        return Figure()
    figure = make_subplots(1, len(by_target), subplot_titles=list(by_target), shared_yaxes=True)
    colours = itertools.cycle(COLOURS)
    for col, of_target in enumerate(by_target.values(), start=1):
        for of_layer in of_target:
            colour, x = next(colours), (100 * of_layer.at).tolist()
            mean, std = mean_and_std(of_layer.curves)
            upper, lower = (mean + std).clamp(max=1), (mean - std).clamp(min=0)
            figure.add_scatter(
                x=[*x, *reversed(x)],
                y=(100 * torch.cat([upper, lower.flip(0)])).tolist(),
                fill="toself",
                fillcolor=_clear(colour),
                line={"width": 0},
                mode="lines",
                hoverinfo="skip",
                legendgroup=f"{col} {of_layer.layer}",
                showlegend=False,
                row=1,
                col=col,
            )
            figure.add_scatter(
                x=x,
                y=(100 * mean).tolist(),
                name=of_layer.layer,
                legendgroup=f"{col} {of_layer.layer}",
                mode="lines",
                line={"color": colour, "width": 2.5},
                hovertemplate="top %{x:.3g} %: %{y:.1f} % of the effect",
                row=1,
                col=col,
            )
        even = (100 * of_target[0].at).tolist()
        figure.add_scatter(
            x=even,
            y=even,
            name="every image alike",
            legendgroup="even",
            showlegend=col == 1,
            mode="lines",
            line={"color": "#6b7280", "dash": "dot", "width": 1.5},
            hoverinfo="skip",
            row=1,
            col=col,
        )
        decades = [value for value in (0.001, 0.01, 0.1, 1.0, 10.0, 100.0) if value >= even[0] / 2]
        title = "images, most activating first (%)"
        figure.update_xaxes(type="log", title_text=title, tickvals=decades, row=1, col=col)
    figure.update_yaxes(title_text="share of the unit's effect (%)", range=[0, 101], row=1, col=1)
    return laid_out(
        figure,
        "How much of a unit's effect lies in its top images",
        f"mean and standard deviation over units, on {found[0].images}",
        height=520,
        margin={"t": 110},
    )


def _by_target(found: Sequence[UnitImportance]) -> dict[str, list[UnitImportance]]:
    by_target: dict[str, list[UnitImportance]] = {}
    for one in found:
        by_target.setdefault(one.target, []).append(one)
    return by_target


def _rows(of_target: Sequence[UnitImportance]) -> list[tuple[str, Tensor]]:
    rows = [(one.layer or "output", one.shares) for one in of_target]
    return [*rows, ("all", torch.cat([shares for _, shares in rows]))] if len(rows) > 1 else rows


def _clear(colour: str) -> str:
    """A colour such as #2a6fbb that lets others shine through."""
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.14)"
