"""What images show at each strength of a unit: figure 3 of Linear Explanations (Oikarinen and Weng, ICML 2024).

A unit's activations are cut into equal ranges; for each, the chart gives the share of its images that show each concept
of the unit's explanation. Images at the very top often show something else than the many in the middle.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neuronx.concepts.formula import Formulas
from neuronx.errors import UserError
from neuronx.report.figures import COLOURS, laid_out
from neuronx.types import Activations, Explanation, Judge, TrainerFactory

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from neuronx.data.probe import Probe

BINS = 8
SHOWN = 0.5
"""An image shows a concept when it is judged to do so with more than this."""

OTHER = "other"
OTHER_COLOUR = "#c3c7cf"
AREA_COLOURS = (*COLOURS[:-1], "#7db0e8", "#eaa0a8", "#93d1a6", "#c5a8e0", "#f0c48c")


@dataclass(frozen=True)
class AreaChart:
    """Shares of images with each concept, by range of activation.

    Attributes:
        names: The R rows: concepts in the order given, then "other".
        edges: (bins + 1,) float64; bin b holds activations in (edges[b], edges[b + 1]].
        images: (bins,) int64, how many images fall into each bin.
        percent: (R, bins) float64 in [0, 100]; NaN for a bin without images. A column adds up to 100 where no image
            shows two of the concepts, to more otherwise.
        n_zero: How many images were left out because the unit is exactly 0 on them.
        signed: Whether the unit has negative activations, so that the bins reach from its lowest.
    """

    names: tuple[str, ...]
    edges: Tensor
    images: Tensor
    percent: Tensor
    n_zero: int
    signed: bool


def area_chart(activations: Tensor, concepts: Sequence[str], presence: Tensor, bins: int = BINS) -> AreaChart:
    """Counts which concepts the images show in each of several equal ranges of a unit's activation.

    The ranges cut (0, max], and an activation of exactly 0 belongs to none, as published. A unit that has negative
    activations has no such zero; its ranges cut [min, max], and every image counts.

    A concept that holds for every image of another concept in the chart, and for more, is counted without those images
    and called "other": next to "hound", "canine" becomes "other canine". "other" alone are the images with no concept.

    Args:
        activations: (N,) of one unit, pooled.
        concepts: Names of the C concepts.
        presence: (N, C) bool, which image shows what.
        bins: How many ranges.

    Raises:
        UserError: For shapes that do not fit, no image, values that are not finite, or a unit that never changes or is
            never above 0.
    """
    values = activations.double()
    if values.ndim != 1 or presence.shape != (len(values), len(concepts)) or not len(values) or bins < 1:
        raise UserError(
            f"An area chart needs activations (N,) and what the same images show (N, {len(concepts)}), not "
            f"{tuple(activations.shape)} and {tuple(presence.shape)}."
        )
    if not values.isfinite().all():
        raise UserError("An area chart needs finite activations; some are NaN or infinite.")
    low, high = values.min(), values.max()
    signed = bool(low < 0)
    if low == high or high == 0:
        raise UserError("The unit is the same on all images or never above 0, so its activations have no ranges.")
    edges = torch.linspace(float(low) if signed else 0.0, float(high), bins + 1, dtype=torch.float64)
    inside = values >= edges[0] if signed else values > 0
    place = torch.searchsorted(edges[1:].contiguous(), values[inside], right=False).clamp(max=bins - 1)

    names, shown = _without_subconcepts(concepts, presence.bool())
    shown = torch.cat([shown, ~presence.bool().any(1, keepdim=True)], 1)[inside].double()
    images = torch.bincount(place, minlength=bins)
    counts = torch.zeros(bins, shown.shape[1], dtype=torch.float64).index_add_(0, place, shown)
    percent = 100 * counts.T / images  # 0 / 0 is NaN, which is what a bin without images has to say
    return AreaChart((*names, OTHER), edges, images, percent, int((~inside).sum()), signed)


def presence_of(
    concepts: Sequence[str], probe: "Probe", judge: Judge, trainer: TrainerFactory, rows: Tensor | None = None
) -> Tensor:
    """Which images show which concepts or formulas, as a judge sees them: (R, C) bool.

    Args:
        concepts: Phrases or formulas.
        probe: The images.
        judge: Labels, masks, or a CLIP, by whom an image shows what has a probability above .5.
        trainer: Makes trainers.
        rows: (R,) the images; all by default.

    Raises:
        UserError: A concept that the judge does not know.
    """
    formulas = Formulas(concepts)
    judgement = judge.judge(formulas.atoms, probe, trainer)
    places = formulas.places(judgement.known)
    if unjudged := [concept for concept in concepts if concept not in places]:
        raise UserError(f"The judge {judge.name} does not know `{unjudged[0]}`; take another judge.")
    rows = torch.arange(len(probe)) if rows is None else rows
    scores = formulas.evaluate(judgement.scores(rows).T.contiguous())
    return scores[[places[concept] for concept in concepts]].T > SHOWN


def chart_explanation(
    explanation: Explanation,
    recorded: Activations,
    probe: "Probe",
    judge: Judge,
    trainer: TrainerFactory,
    rows: Tensor | None = None,
    bins: int = BINS,
) -> AreaChart:
    """The chart of one unit with the concepts of its explanation, in their order.

    Args:
        explanation: Of the unit.
        recorded: Of the unit's layer, on all images of the probe.
        probe: The images.
        judge: Who says what an image shows.
        trainer: Makes trainers.
        rows: The images to look at; all by default.
        bins: How many ranges.

    Raises:
        UserError: As `area_chart` and `presence_of`, or for a unit that the layer does not have.
    """
    if explanation.unit.layer != recorded.layer or explanation.unit.index >= len(recorded.units):
        raise UserError(
            f"The activations are of {len(recorded.units)} units of {recorded.layer}, not {explanation.unit}."
        )
    rows = torch.arange(len(probe)) if rows is None else rows
    concepts = list(dict.fromkeys(concept for concept, _ in explanation.terms))
    values = recorded.values[rows, explanation.unit.index]
    return area_chart(values, concepts, presence_of(concepts, probe, judge, trainer, rows), bins)


def area_figure(chart: AreaChart, title: str = "") -> "Figure":
    """Stacked areas: at the middle of each range the share of its images with each concept; flat to both ends."""
    from plotly.graph_objects import Figure

    full = (chart.images > 0).nonzero().flatten()
    middles = (chart.edges[:-1] + chart.edges[1:]) / 2
    x = [float(chart.edges[0]), *middles[full].tolist(), float(chart.edges[-1])]
    figure = Figure()
    for name, row, colour in zip(chart.names, chart.percent[:, full].tolist(), _colours(len(chart.names)), strict=True):
        figure.add_scatter(
            x=x,
            y=[row[0], *row, row[-1]],
            name=name,
            stackgroup="concepts",
            mode="lines",
            line={"width": 0.8, "color": colour},
            hovertemplate="%{y:.1f} %",
        )
    ticks = [
        f"{low:.3g} to {high:.3g}<br>{n:,} image{'' if n == 1 else 's'}"
        for low, high, n in zip(chart.edges[:-1].tolist(), chart.edges[1:].tolist(), chart.images.tolist(), strict=True)
    ]
    figure.update_xaxes(title="activation", tickvals=middles.tolist(), ticktext=ticks, range=[x[0], x[-1]])
    figure.update_xaxes(showgrid=False, zeroline=False)
    highest = max(100.0, float(chart.percent[:, full].sum(0).max()))
    figure.update_yaxes(title="images of the range that show it (%)", range=[0, highest])
    lines = wrap(title, 120)  # explanations can be long
    more = 28 * max(0, len(lines) - 1)
    legend = {"traceorder": "reversed"}
    return laid_out(
        figure,
        "<br>".join(lines),
        _subtitle(chart),
        legend=legend,
        hovermode="x unified",
        height=520 + more,
        margin={"t": 90 + more},
    )


def _colours(rows: int) -> list[str]:
    """One for each row; the last one, "other", is grey."""
    return [*(AREA_COLOURS[row % len(AREA_COLOURS)] for row in range(rows - 1)), OTHER_COLOUR]


def _without_subconcepts(concepts: Sequence[str], presence: Tensor) -> tuple[list[str], Tensor]:
    """Names of the rows, and which images they count (N, C) bool."""
    shown = presence.float()
    common = shown.T @ shown  # (C, C), exact: counts of images are far below 2^24
    count = common.diagonal()
    # c contains d when every image of d, of which there are some, shows c, and others do too.
    contains = (common == count) & (count > 0) & (count < count[:, None])
    own = presence & ~((shown @ contains.float().T) > 0)
    names = [f"{OTHER} {name}" if contains[c].any() else name for c, name in enumerate(concepts)]
    return names, own


def _subtitle(chart: AreaChart) -> str:
    rest = "ranges from its lowest activation" if chart.signed else f"{chart.n_zero:,} more on which it is exactly 0"
    several = bool((chart.percent[:, chart.images > 0].sum(0) > 100 + 1e-6).any())
    counted = "; an image that shows several concepts counts in each" if several else ""
    return f"{int(chart.images.sum()):,} images, {rest}{counted}"
