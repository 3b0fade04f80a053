"""Network Dissection: each unit is called after the concept whose pixels it fires on, counted in one forward pass."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from hashlib import sha256
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neuronx.concepts.formula import quoted
from neuronx.concepts.judged import recalled, with_support
from neuronx.concepts.visual.masks import VisualMasks
from neuronx.data.probe import Probe
from neuronx.data.segmentation import Regions, Segmentation
from neuronx.errors import Unsuitable, UserError, unknown
from neuronx.methods.net_dissect.tally import DENOMINATORS, Tally, Tallying, cells, count, dissected
from neuronx.options import Count, Natural, OpenShare, Share
from neuronx.store.cache import Contents, Draft, Entry, digest, entry, open_or_draft, packed
from neuronx.store.processes import on_first
from neuronx.types import Concepts, Explanation, Found, Plain, Table, TrainerFactory

if TYPE_CHECKING:
    from lightning import Trainer

    from neuronx.recording.exemplars import Exemplars
    from neuronx.targets.target import Target


@dataclass(frozen=True, kw_only=True, eq=False)
class Options:
    """What Network Dissection and compositional explanations have in common.

    Attributes:
        quantile: Share of all positions of all images on which a unit fires.
        grid: (height, width) on which masks are compared; the labels' own by default.
        categories: That concepts may be of; all by default.
        whole_images: Let units of a layer without positions fire on whole images, as published for last layers.
        n_evidence: How many images become evidence.
    """

    quantile: OpenShare = 0.005
    grid: tuple[Count, Count] | None = None
    categories: Sequence[str] | None = None
    whole_images: bool = False
    n_evidence: Natural = 15

    def __post_init__(self) -> None:
        if self.grid is not None:
            object.__setattr__(self, "grid", (int(self.grid[0]), int(self.grid[1])))

    def needs(self, target: "Target", probe: Probe) -> None:
        """Raises Unsuitable for pictures without pixel labels, or layers that are read where there are no positions."""
        segmentation_of(probe, self.categories)
        check_positions(target, self.whole_images)


def segmentation_of(
    probe: Probe, categories: Sequence[str] | None = None, given: Segmentation | None = None
) -> Segmentation:
    """The pixel labels of a probe's images, or others that are given, of all categories or of some.

    Raises:
        UserError: For images without pixel labels, or a category that they do not have.
    """
    found = given or probe.segmentation
    if found is None:
        raise Unsuitable(
            f"Nobody has labelled the pixels of `{probe.name}`, which net_dissect and compositional need: take data "
            "that have masks (data=shapes, broden or labelled_pictures), explain.net_dissect.pixels=visual, or leave "
            "these methods out."
        )
    if categories is None:
        return found
    for name in categories:
        if name not in found.categories:
            raise unknown(f"category of `{probe.name}`", name, found.categories)
    return Selected(found, tuple(name for name in found.categories if name in categories))


def check_positions(target: "Target", whole_images: bool) -> None:
    """Raises Unsuitable for a layer that is read at its class token, unless whole images are asked for."""
    nowhere = [layer for layer, pool in target.layers.items() if pool == "first"]
    if nowhere and not whole_images:
        raise Unsuitable(
            f"Layer `{nowhere[0]}` of {target.name} is explained and scored at its class token (pool=first), which is "
            "at no place of a picture, so there are no masks to compare: take pool=patch or pool=avg, or "
            "whole_images=true."
        )


@dataclass(frozen=True)
class Selected:
    """A segmentation of which only the concepts of some categories count.

    Attributes:
        whole: With all categories.
        categories: Those that count.
    """

    whole: Segmentation
    categories: tuple[str, ...]

    @cached_property
    def kept(self) -> Tensor:
        """(C,) int64 numbers of the concepts that count."""
        numbers = torch.tensor([self.whole.categories.index(name) for name in self.categories], dtype=torch.int64)
        return torch.isin(self.whole.category, numbers).nonzero().flatten()

    @property
    def names(self) -> tuple[str, ...]:
        """As people say them."""
        return tuple(self.whole.names[c] for c in self.kept.tolist())

    @property
    def labels(self) -> tuple[str, ...]:
        """As the data set spells them."""
        return tuple(self.whole.labels[c] for c in self.kept.tolist())

    @property
    def category(self) -> Tensor:
        """(C,) int64 among the categories that count."""
        old = [self.whole.categories[g] for g in self.whole.category[self.kept].tolist()]
        return torch.tensor([self.categories.index(name) for name in old], dtype=torch.int64)

    @property
    def grid(self) -> tuple[int, int]:
        """Of the whole."""
        return self.whole.grid

    @property
    def fingerprint(self) -> str:
        """Of the whole and the choice."""
        return digest([self.whole.fingerprint, list(self.categories)])

    def regions(
        self, rows: Sequence[int], transform: Callable[..., Tensor], grid: tuple[Count, Count] | None = None
    ) -> Regions:
        """See `Segmentation.regions`."""
        found = self.whole.regions(rows, transform, grid)
        return Regions(found.maps, found.picture, found.shows[:, self.kept])

    def presence(self, rows: Sequence[int]) -> Tensor:
        """See `Segmentation.presence`."""
        return self.whole.presence(rows)[:, self.kept]


Add = Callable[[str, Tensor, Regions], None]
"""Gets a layer, counts (R, K) of one batch, and its regions, both on the CPU."""


def thresholds(
    target: "Target",
    probe: "Probe",
    trainer: TrainerFactory,
    quantile: OpenShare = 0.005,
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
        whole_images: Take a layer without positions, or its class token, for maps of one cell, as published for last
            layers.

    Raises:
        UserError: A quantile out of range; a layer without positions, or one that is read at its class token
            (pool=first), unless whole images are asked for.
    """
    from neuronx.recording.exemplars import find_exemplars

    if not 0 < quantile < 1:
        raise UserError(f"quantile={quantile}: write the share of positions on which a unit fires, such as .005.")
    check_positions(target, whole_images)
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
    grid: tuple[Count, Count] | None = None,
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
    from neuronx.recording.maps import on_grid, pooled

    def visit(batch: Tensor, outputs: Mapping[str, Tensor]) -> None:
        device = next(iter(outputs.values())).device
        found = segmentation.regions(batch.tolist(), target.transform, grid)
        regions = Regions(found.maps.to(device), found.picture.to(device), found.shows)
        for layer, one in tails.items():
            output, prefix = outputs[layer].float(), target.prefix_tokens or 0
            maps = pooled(output, one.pool, prefix)[..., None, None] if one.grid is None else on_grid(output, prefix)
            add(layer, count(maps, one.thresholds, regions, one.centres).cpu(), found)

    rows = probe.split("train", "val") if rows is None else torch.as_tensor(rows)
    return visit_outputs(target, probe, trainer, list(tails), visit, rows)


TENSORS = tuple(one.name for one in fields(Tally) if one.type is Tensor)


def dissect(
    target: "Target",
    probe: "Probe",
    trainer: TrainerFactory,
    *,
    quantile: OpenShare = 0.005,
    grid: tuple[Count, Count] | None = None,
    categories: Sequence[str] | None = None,
    rows: Tensor | None = None,
    whole_images: bool = False,
    k: int = 15,
    given: Segmentation | None = None,
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
        given: Pixel labels other than the probe's own.

    Returns:
        Layer -> the tally of the whole layer, and its exemplars.

    Raises:
        UserError: As `segmentation_of` and `thresholds`.
    """
    segmentation = segmentation_of(probe, categories, given)
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
    grid: tuple[Count, Count] | None,
    rows: Tensor,
) -> Mapping[str, Plain]:
    """What counts of one layer depend on."""
    from neuronx.recording.record import identity

    return {
        **identity(target, layer, probe, runner),
        "prefix": target.prefix_tokens,
        "pool": tail.pool if tail.grid is None else None,
        "thresholds": sha256(tail.thresholds.numpy().tobytes()).hexdigest(),
        "centres": None if tail.centres is None else [*tail.centres.start, *tail.centres.step],
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


log = logging.getLogger(__name__)

PIXELS = ("labels", "visual")


@dataclass(frozen=True, kw_only=True, eq=False)
class NetDissect(Options):
    """Labels each unit with the concept whose pixels overlap most with where it fires (Bau et al., CVPR 2017).

    An explanation's one term is that concept, with weight 1; its notes are the `iou`, and `detector`, which is 1 for a
    unit whose IoU is above the threshold; its evidence the images of train and val where the unit peaks. A unit that
    never exceeds its own threshold, or meets no concept where it does, has no terms.

    Published variants: denominator="hit" is NetDissect-Lite (its quantile is 5/999, element 994 of 1,000);
    denominator="all" with quantile=.01 is the implementation of 2020. The tables published with CLIP-Dissect also count
    label 0, "nothing labelled", as a texture; here it is no concept.

    Attributes:
        denominator: Over which images a unit's own area is taken: annotated, hit or all (see `tally.py`).
        threshold: IoU above which a unit is a detector.
        pixels: `labels`, which people drew or a world knows; `visual`, features that are computed (see `VisualMasks`),
            which all images are annotated with; by default labels where there are any.
        cells: Share of the train images' cells that show a feature of which there is more or less, such as lines.
    """

    denominator: str = "annotated"
    threshold: Share = 0.04
    pixels: str | None = None
    cells: OpenShare = 0.02

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.denominator not in DENOMINATORS:
            raise unknown("denominator of Network Dissection", self.denominator, DENOMINATORS)
        if self.pixels not in (None, *PIXELS):
            raise unknown("kind of pixel labels (pixels=)", str(self.pixels), PIXELS)
        if not 0 <= self.threshold < 1:
            raise UserError(f"explain.net_dissect.threshold is {self.threshold}; an IoU is at least 0 and below 1.")

    def check(self, probe: Probe) -> None:
        """Raises Unsuitable for images without pixel labels, unless features were asked for in their place."""
        if self.pixels != "visual":
            segmentation_of(probe, self.categories)

    def needs(self, target: "Target", probe: Probe) -> None:
        """Raises Unsuitable for layers that are read where there are no positions, and for labels that are missing."""
        segmentation_of(probe, self.categories, self.given(probe))
        check_positions(target, self.whole_images)

    def given(self, probe: Probe) -> VisualMasks | None:
        """Where features are; None where the images' own pixel labels count."""
        visual = self.pixels == "visual" or (self.pixels is None and probe.segmentation is None)
        return VisualMasks(probe, 1 - self.cells) if visual else None

    def explain(self, target: "Target", probe: "Probe", trainer: TrainerFactory) -> Found:
        """Labels the units asked for, from the train and val images; the tables are published tallies, one a layer.

        Tallies count units from 1, as published; explanations count them from 0.

        Raises:
            UserError: For pixel labels that the images lack, a layer without positions, a quantile out of range.
        """
        given = self.given(probe)
        denominator = "all" if given is not None else self.denominator
        explanations: list[Explanation] = []
        tables: dict[str, Table] = {}
        for layer, (tally, exemplars) in self.dissect(target, probe, trainer).items():
            units, concepts = tally.best(denominator).detectors(self.threshold)
            log.info(
                "%s %s: %d of %d units are detectors (IoU > %g) of %d concepts; its table counts units from 1",
                *(target.name, layer, units, len(tally.fires), self.threshold, concepts),
            )
            labelled = self.explain_layer(tally, exemplars, denominator)
            explanations += [explanation for explanation in labelled if target.asks_for(explanation.unit)]
            tables[f"tally_{target.name}_{layer}.csv"] = cells(dissected(tally, denominator))
        if given is None and probe.truth is not None:
            known = Concepts(*probe.truth)
            explanations = with_support(explanations, lambda names: recalled(known, names), probe)
        return Found(explanations, tables)

    def dissect(
        self, target: "Target", probe: "Probe", trainer: TrainerFactory
    ) -> "dict[str, tuple[Tally, Exemplars]]":
        """Layer -> the tally of all its units, and their exemplars; from the store where they are there."""
        return dissect(
            target,
            probe,
            trainer,
            quantile=self.quantile,
            grid=self.grid,
            categories=self.categories,
            whole_images=self.whole_images,
            k=self.n_evidence,
            given=self.given(probe),
        )

    def explain_layer(self, tally: Tally, exemplars: "Exemplars", denominator: str | None = None) -> list[Explanation]:
        """Labels all units of one layer."""
        best = tally.best(denominator or self.denominator)
        return [
            Explanation(
                unit,
                ((quoted(tally.names[concept]), 1.0),),
                evidence=tuple(rows),
                notes=(("iou", iou), ("detector", float(iou > self.threshold))),
            )
            if concept >= 0
            else Explanation(unit, ())
            for unit, concept, iou, rows in zip(
                exemplars.units, best.concept.tolist(), best.iou.tolist(), exemplars.rows.tolist(), strict=True
            )
        ]
