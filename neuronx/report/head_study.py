"""The linear head of a network, its weights compared with what methods say of the units that it reads."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from neuronx.errors import UserError
from neuronx.report.figures import write_figure
from neuronx.report.head_figures import alignment_figure, named_by_unit_figure
from neuronx.report.head_weights import Alignment, NamedByUnit, align_weights, description, name_by_unit
from neuronx.report.text_similarity import similarity_by_name, similarity_of_texts
from neuronx.types import Explanation, TrainerFactory

if TYPE_CHECKING:
    from neuronx.data.probe import Probe
    from neuronx.targets.target import Target


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
    alignment: Mapping[str, Alignment]
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
    from neuronx.scoring.ablation.head import class_labels, few_images, find_linear_head

    layer = target.canonical(layer)
    pool = target.select(layers=layer).layers[layer]
    head = find_linear_head(target, layer, pool, few_images(target, probe))
    if head is None:
        raise UserError(
            f"The outputs of {target.name} are no linear function of `{layer}` pooled by {pool}; take the layer before "
            "its last linear layer, and the pooling between them."
        )
    names = target.class_names or probe.class_names
    if len(names) != len(head.weight):
        raise UserError(
            f"{target.name} has {len(head.weight)} outputs and {len(names)} class names; give one for each."
        )
    recorded = record(target, probe, trainer, layers={layer: pool, "": "none"})
    rows = probe.split("test") if rows is None else rows
    values, logits = recorded[layer].values[rows], recorded[""].values[rows]
    bias = (logits.double() - values.double() @ head.weight.double().T).mean(0)
    labels = None if probe.labels is None else class_labels(target, probe, recorded[""].values)[rows]
    alignment, named = {}, {}
    for method, explanations in explained.items():
        said = [""] * head.weight.shape[1]
        for one in explanations:
            if one.unit.layer == layer and one.unit.part is None:
                said[one.unit.index] = description(one)
        similar = similarity_by_name(said, names) if embed is None else similarity_of_texts(embed, said, names)
        alignment[method] = align_weights(head.weight, similar, said, names)
        named[method] = name_by_unit(head.weight, bias, values, similar, said, names, labels)
    return HeadStudy(target.name, layer, alignment, named)


def write_head_study(study: HeadStudy, folder: str | Path) -> list[Path]:
    """Writes the two figures: `head_weights_<target>_<layer>.html` and `named_by_unit_<target>_<layer>.html`."""
    of = f"{study.target}_{study.layer}.html".replace("/", "-")
    return [
        write_figure(alignment_figure(study.alignment), Path(folder) / f"head_weights_{of}"),
        write_figure(named_by_unit_figure(study.named), Path(folder) / f"named_by_unit_{of}"),
    ]
