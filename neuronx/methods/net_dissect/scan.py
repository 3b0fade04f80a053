"""One pass over images in which every unit's cells are counted by region, whatever is then made of the counts."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neuronx.data.segmentation import Regions, Segmentation
from neuronx.errors import Unsuitable, UserError
from neuronx.methods.net_dissect.counting import count
from neuronx.types import TrainerFactory

if TYPE_CHECKING:
    from lightning import Trainer

    from neuronx.data.probe import Probe
    from neuronx.recording.exemplars import Exemplars
    from neuronx.targets.target import Target

Add = Callable[[str, Tensor, Regions], None]
"""Gets a layer, counts (R, K) of one batch, and its regions, both on the CPU."""


def thresholds(
    target: "Target",
    probe: "Probe",
    trainer: TrainerFactory,
    quantile: float = 0.005,
    *,
    k: int = 15,
    rows: Tensor | None = None,
    whole_images: bool = False,
) -> "dict[str, Exemplars]":
    """Each layer's thresholds, above which its units fire on a share `quantile` of all positions, and top images.

    Args:
        target: The network, with its layers.
        probe: The images.
        trainer: Makes trainers.
        quantile: Upper tail, in (0, 1).
        k: Top images of each unit.
        rows: The images; train and val by default.
        whole_images: Take a layer without positions for maps of one cell, as published for last layers.

    Raises:
        UserError: A quantile out of range; a layer without positions, unless whole images are asked for.
    """
    from neuronx.recording.exemplars import find_exemplars

    if not 0 < quantile < 1:
        raise UserError(f"quantile={quantile}: write the share of positions on which a unit fires, such as .005.")
    images = len(probe.split("train", "val")) if rows is None else len(rows)
    found = find_exemplars(target, probe, trainer, k=min(k, images), quantile=1 - quantile, rows=rows)
    for layer, one in found.items():
        if one.grid is None and not whole_images:
            raise Unsuitable(
                f"Layer `{layer}` of {target.name} has no positions, one number for each unit only, so there are no "
                "masks to compare: take a layer with maps or tokens (show=layers lists them), or whole_images=true."
            )
    return found


def scan(
    target: "Target",
    probe: "Probe",
    trainer: TrainerFactory,
    tails: "Mapping[str, Exemplars]",
    segmentation: Segmentation,
    add: Add,
    *,
    rows: Tensor | None = None,
    grid: tuple[int, int] | None = None,
) -> "Trainer":
    """Shows `add` the counts of every layer, batch by batch, every image once.

    Args:
        target: The network.
        probe: The images.
        trainer: Makes the trainer whose `predict` runs the pass; it is returned, since sums are to be reduced with it.
        tails: Layer -> thresholds.
        segmentation: Of the images.
        add: What is done with the counts.
        rows: The images; train and val by default.
        grid: Of the comparison; the segmentation's own by default.
    """
    from neuronx.recording.forward_pass import visit_outputs
    from neuronx.recording.maps import on_grid

    def visit(batch: Tensor, outputs: Mapping[str, Tensor]) -> None:
        device = next(iter(outputs.values())).device
        found = segmentation.regions(batch.tolist(), target.transform, grid)
        regions = Regions(found.maps.to(device), found.picture.to(device), found.shows)
        for layer, one in tails.items():
            output = outputs[layer].float()
            maps = output[..., None, None] if output.ndim == 2 else on_grid(output, target.prefix_tokens or 0)
            add(layer, count(maps, one.thresholds, regions).cpu(), found)

    rows = probe.split("train", "val") if rows is None else torch.as_tensor(rows)
    return visit_outputs(target, probe, trainer, list(tails), visit, rows)
