"""The linear head of a network, its weights compared with what methods say of the units that it reads."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from neuronx.errors import Unsuitable, UserError
from neuronx.report.figures import COLOURS, FLOOR, laid_out, write_figure
from neuronx.report.head_weights import (
    HeadAlignment,
    NamedByUnit,
    align_weights,
    description,
    name_by_unit,
    similarity_by_name,
    similarity_of_texts,
)
from neuronx.types import Explanation, TrainerFactory

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from neuronx.data.probe import Probe
    from neuronx.targets.target import Target

ROW, GAP = 24, 84
"""Pixels: of a row of a table, and between a panel and the next."""


@dataclass(frozen=True)
class HeadStudy:
    """What was found of one layer that a network's head reads linearly.

    Attributes:
        target: Name of the network.
        layer: The layer.
        alignment: By method.
        named: By method.
    """

    target: str
    layer: str
    alignment: Mapping[str, HeadAlignment]
    named: Mapping[str, NamedByUnit]


def study_head(
    target: "Target",
    layer: str,
    explained: Mapping[str, Sequence[Explanation]],
    probe: "Probe",
    trainer: TrainerFactory,
    embed: Callable[[Sequence[str]], Tensor] | None = None,
    rows: Tensor | None = None,
) -> HeadStudy:
    """Finds the head's weights and compares them with the explanations of the layer's units.

    Args:
        target: The network; the layer's pooling must be the one that the head reads.
        layer: One of the target's layers.
        explained: Method -> its explanations, of any layers.
        probe: The images.
        trainer: Makes trainers.
        embed: From phrases to embeddings, such as `Clip.embed_texts`; by default only equal names are similar.
        rows: (N,) the images whose classes are named; the test images by default, which no method saw.

    Raises:
        UserError: A layer that the logits do not depend on linearly; classes without names; or as `align_weights`.
    """
    from neuronx.recording.record import record
    from neuronx.scoring.ablation.losses import compared_with, few_images, find_linear_head

    layer = target.canonical(layer)
    pool = target.select(layers=layer).layers[layer]
    head = find_linear_head(target, layer, pool, few_images(target, probe))
    if head is None:
        raise Unsuitable(
            f"The outputs of {target.name} are no linear function of `{layer}` pooled by {pool}; take the layer before "
            "its last linear layer, and the pooling between them."
        )
    names = target.class_names or probe.class_names
    if len(names) != len(head):
        raise UserError(f"{target.name} has {len(head)} outputs and {len(names)} class names; give one for each.")
    recorded = record(target, probe, trainer, layers={layer: pool, "": "none"})
    rows = probe.split("test") if rows is None else rows
    values, logits = recorded[layer].values[rows], recorded[""].values[rows]
    bias = (logits.double() - values.double() @ head.double().T).mean(0)
    labels = None if probe.labels is None else compared_with(target, probe, recorded[""].values)[rows]
    alignment, named = {}, {}
    for method, explanations in explained.items():
        said = [""] * head.shape[1]
        for explanation in explanations:
            if explanation.unit.layer == layer and explanation.unit.part is None:
                said[explanation.unit.index] = description(explanation)
        similar = similarity_by_name(said, names) if embed is None else similarity_of_texts(embed, said, names)
        alignment[method] = align_weights(head, similar, said, names)
        named[method] = name_by_unit(head, bias, values, similar, said, names, labels)
    return HeadStudy(target.name, layer, alignment, named)


def write_head_study(study: HeadStudy, folder: str | Path) -> list[Path]:
    """Writes the two figures: `head_weights_<target>_<layer>.html` and `named_by_unit_<target>_<layer>.html`."""
    of = f"{study.target}_{study.layer}.html".replace("/", "-")
    return [
        write_figure(alignment_figure(study.alignment), Path(folder) / f"head_weights_{of}"),
        write_figure(named_by_unit_figure(study.named), Path(folder) / f"named_by_unit_{of}"),
    ]


def alignment_figure(alignments: Mapping[str, HeadAlignment]) -> "Figure":
    """Mean similarity of description and class over the largest weights, one line a method, and its largest weights.

    Args:
        alignments: By name of the method, all with one similarity.
    """
    from plotly.graph_objects import Figure, Table
    from plotly.subplots import make_subplots

    if not alignments:
        return Figure()
    heights = [380, *(ROW * (len(alignment.links) + 1) + 14 for alignment in alignments.values())]
    full = sum(heights) + GAP * len(alignments)
    figure = make_subplots(
        rows=1 + len(alignments),
        cols=1,
        specs=[[{"type": "xy"}], *([{"type": "table"}] for _ in alignments)],
        row_heights=heights,
        subplot_titles=["", *(f"{method}: the {len(one.links)} largest weights" for method, one in alignments.items())],
        vertical_spacing=GAP / full,
    )
    for place, (method, alignment) in enumerate(alignments.items()):
        colour = COLOURS[place % len(COLOURS)]
        sizes, similarity = list(alignment.sizes), list(alignment.similarity)
        figure.add_scatter(
            x=sizes,
            y=similarity,
            name=f"{method} (r {alignment.pearson:+.3f})",
            line={"color": colour, "width": 2.5},
            mode="lines+markers",
            hovertemplate="the %{x:,} largest weights: %{y:.3f}",
            row=1,
            col=1,
        )
        figure.add_scatter(
            x=[sizes[0], sizes[-1]],
            y=[similarity[-1], similarity[-1]],
            name=f"{method}, all weights",
            line={"color": colour, "dash": "dot", "width": 1.2},
            mode="lines",
            showlegend=False,
            hoverinfo="skip",
            row=1,
            col=1,
        )
        columns = {
            "weight": [f"{link.weight:.4f}" for link in alignment.links],
            "unit": [str(link.unit) for link in alignment.links],
            "description": [link.description for link in alignment.links],
            "class": [link.class_name for link in alignment.links],
            "similarity": [f"{link.similarity:.3f}" for link in alignment.links],
        }
        style = {"align": "left", "height": ROW, "line_color": "#e5e7eb"}
        table = Table(
            header={"values": [f"<b>{name}</b>" for name in columns], "fill_color": "#f3f4f6", **style},
            cells={"values": list(columns.values()), "fill_color": "white", **style},
            columnwidth=[1, 1, 4, 4, 1],
        )
        figure.add_trace(table, row=2 + place, col=1)
    ticks = sorted({size for alignment in alignments.values() for size in alignment.sizes[:-1]})
    figure.update_xaxes(type="log", title_text="number of weights, largest first", tickvals=ticks, row=1, col=1)
    figure.update_yaxes(title_text="similarity of description and class", row=1, col=1)
    return laid_out(
        figure,
        "Do large weights join units and classes of like meaning?",
        "mean similarity over the largest weights; dotted: over all",
        height=full + 140,
        margin={"t": 100, "b": 40},
    )


def named_by_unit_figure(named: Mapping[str, NamedByUnit]) -> "Figure":
    """How often the description of the unit that contributes most names the class, one group of bars a method."""
    from plotly.graph_objects import Figure

    figure = Figure()
    for name, colour, shares in (
        ("is the network's prediction", COLOURS[0], [one.equal_to_prediction for one in named.values()]),
        ("is the label", COLOURS[2], [one.equal_to_label for one in named.values()]),
        ("is the prediction, for a unit drawn at random", FLOOR, [one.chance for one in named.values()]),
    ):
        if not all(math.isnan(share) for share in shares):
            figure.add_bar(
                x=list(named),
                y=[100 * share for share in shares],
                name=name,
                marker_color=colour,
                text=[f"{100 * share:.1f}" for share in shares],
                textposition="outside",
                cliponaxis=False,
            )
    accuracy = [one.accuracy for one in named.values() if not math.isnan(one.accuracy)][:1]
    right = f"; the network itself is right on {100 * accuracy[0]:.1f} %" if accuracy else ""
    images = len(next(iter(named.values())).predicted) if named else 0
    return laid_out(
        figure,
        "The class that the strongest unit's description names",
        f"{images:,} images{right}",
        yaxis={"title": "images (%)", "rangemode": "tozero"},
        barmode="group",
        height=460,
        margin={"t": 100},
    )
