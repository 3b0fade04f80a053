"""Tallies of a network's layers: one pass over the images, kept in the store."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from hashlib import sha256
from typing import TYPE_CHECKING

from torch import Tensor

from neuronx.data.segmentation import Segmentation
from neuronx.methods.net_dissect.scan import scan, thresholds
from neuronx.methods.net_dissect.selection import segmentation_of
from neuronx.methods.net_dissect.tally import Tally, Tallying
from neuronx.store.cache import Contents, Draft, Entry, digest, entry, open_or_draft, packed
from neuronx.store.processes import on_first
from neuronx.types import Explanation, Plain, TrainerFactory

if TYPE_CHECKING:
    from lightning import Trainer

    from neuronx.data.probe import Probe
    from neuronx.recording.exemplars import Exemplars
    from neuronx.targets.target import Target

TENSORS = tuple(one.name for one in fields(Tally) if one.type is Tensor)


def dissect(
    target: "Target",
    probe: "Probe",
    trainer: TrainerFactory,
    *,
    quantile: float = 0.005,
    grid: tuple[int, int] | None = None,
    categories: Sequence[str] | None = None,
    rows: Tensor | None = None,
    whole_images: bool = False,
    k: int = 15,
) -> "dict[str, tuple[Tally, Exemplars]]":
    """Tallies every layer of a target, or reads the tallies from the store.

    Under DDP each process counts its share of the images, and the sums are brought together.

    Args:
        target: The network, with its layers.
        probe: Images with pixel labels.
        trainer: Makes trainers.
        quantile: Share of all positions on which a unit fires, in (0, 1).
        grid: (height, width) on which masks are compared; the labels' own by default.
        categories: That concepts may be of; all by default.
        rows: The images; train and val by default.
        whole_images: Take a layer without positions for maps of one cell.
        k: Top images of each unit.

    Returns:
        Layer -> the tally of the whole layer, and its exemplars.

    Raises:
        UserError: As `segmentation_of` and `thresholds`.
    """
    segmentation = segmentation_of(probe, categories)
    tails = thresholds(target, probe, trainer, quantile, k=k, rows=rows, whole_images=whole_images)
    rows = probe.split("train", "val") if rows is None else rows
    runner = trainer()

    def places() -> dict[str, Entry]:
        keys = {
            layer: content_key(target, layer, probe, runner, one, segmentation, grid, rows)
            for layer, one in tails.items()
        }
        return {layer: entry("tallies", key) for layer, key in keys.items()}

    published, drafts = open_or_draft(places)
    if drafts:
        todo = {layer: tails[layer] for layer in drafts}
        made = {layer: Tallying(segmentation, len(one.units)) for layer, one in todo.items()}
        runner = scan(
            target,
            probe,
            trainer,
            todo,
            segmentation,
            lambda layer, counts, regions: made[layer].add(counts, regions),
            rows=rows,
            grid=grid,
        )
        tallies = {layer: tallying.result(lambda total: together(total, runner)) for layer, tallying in made.items()}
        published |= on_first(lambda: {layer: _publish(draft, tallies[layer]) for layer, draft in drafts.items()})
    return {layer: (_read(published[layer], segmentation), one) for layer, one in tails.items()}


def asked_for(explanations: Sequence[Explanation], target: "Target") -> list[Explanation]:
    """Those of the units asked for."""
    return [explanation for explanation in explanations if target.asks_for(explanation.unit)]


def together(total: Tensor, runner: "Trainer") -> Tensor:
    """The sum of what all processes have."""
    return runner.strategy.reduce(total.to(runner.strategy.root_device), reduce_op="sum")


def content_key(
    target: "Target",
    layer: str,
    probe: "Probe",
    runner: "Trainer",
    tail: "Exemplars",
    segmentation: Segmentation,
    grid: tuple[int, int] | None,
    rows: Tensor,
) -> Mapping[str, Plain]:
    """What counts of one layer depend on."""
    from neuronx.recording.record import identity

    return {
        **identity(target, layer, probe, runner),
        "prefix": target.prefix_tokens,
        "thresholds": sha256(tail.thresholds.numpy().tobytes()).hexdigest(),
        "segmentation": segmentation.fingerprint,
        "grid": list(grid or segmentation.grid),
        "rows": digest(rows.tolist()),
    }


def _publish(draft: Draft, tally: Tally) -> Contents:
    return draft.publish(packed({name: getattr(tally, name) for name in TENSORS}), cells=tally.cells)


def _read(contents: Contents, segmentation: Segmentation) -> Tally:
    return Tally(
        names=segmentation.names,
        labels=segmentation.labels,
        categories=segmentation.categories,
        cells=int(contents.facts["cells"]),  # type: ignore[arg-type]
        **contents.tensors(),
    )
