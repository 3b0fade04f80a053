"""All images' cells, sorted by what they show: what the search for formulas counts on.

A pattern is a set of concepts that some cells show. No formula can tell cells of one pattern apart, so that how many
there are, and on how many each unit fires, is all that has to be kept of any number of images. Memory is 24 bytes for
each unit and pattern on which it fires, and 8 for each concept of a pattern; while images are added, about three times
that. Broden's 63,000 images with 512 units make about 30 million such pairs: under 1 GB, at most 3.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neuronx.data.segmentation import Regions
from neuronx.targets.latents import mix

if TYPE_CHECKING:
    from lightning import Trainer

MERGE_AT = 2**21
"""Pairs of unit and region that wait before they are sorted in."""


@dataclass(frozen=True)
class Patterns:
    """The patterns of some images and C concepts, and where K units fire.

    Attributes:
        names: (S,) int64, a number for each pattern's set of concepts; sums of scrambled ones, so that two of three
            million patterns share one with a probability of 1e-6.
        sizes: (S,) int64, cells of each pattern.
        lengths: (S,) int64, how many concepts each shows, at least 1.
        concepts: (sum of lengths,) int64, those of the first pattern, of the second, ...
        pattern: (E,) int64, ascending: the pattern of each pair of a pattern and a unit that fires on it,
        unit: (E,) int64, its unit,
        counts: (E,) int64, and on how many cells.
        fires: (K,) int64, cells on which each unit fires, what they show nothing included.
        labelled: (C,) int64, cells of each concept.
    """

    names: Tensor
    sizes: Tensor
    lengths: Tensor
    concepts: Tensor
    pattern: Tensor
    unit: Tensor
    counts: Tensor
    fires: Tensor
    labelled: Tensor


def patterns(counts: Tensor, regions: Regions) -> Patterns:
    """Those of one batch: counts (R, K) of its regions."""
    region, concept = regions.shows.nonzero(as_tuple=True)
    names = torch.zeros_like(regions.picture).index_add_(0, region, mix(concept))
    sizes, lengths = regions.sizes, regions.shows.sum(1)
    kept = lengths > 0
    pattern, unit = counts[kept].nonzero(as_tuple=True)
    labelled = lengths.new_zeros(regions.shows.shape[1]).index_add_(0, concept, sizes[region])
    fires = counts[kept][pattern, unit], counts.sum(0)
    return merged([Patterns(names[kept], sizes[kept], lengths[kept], concept, pattern, unit, *fires, labelled)])


def merged(parts: Sequence[Patterns]) -> Patterns:
    """The patterns of all parts together, each once."""
    names, place = torch.cat([one.names for one in parts]).unique(return_inverse=True)
    sizes = torch.zeros_like(names).index_add_(0, place, torch.cat([one.sizes for one in parts]))
    # Any part's concepts of a pattern will do: the last one's.
    lengths = torch.cat([one.lengths for one in parts])
    starts = lengths.cumsum(0) - lengths
    last = torch.zeros_like(names).scatter_reduce_(0, place, torch.arange(len(place), device=place.device), "amax")
    concepts = torch.cat([one.concepts for one in parts])[spread(starts[last], lengths[last])]

    units = len(parts[0].fires)
    before = torch.tensor([0, *(len(one.names) for one in parts)]).cumsum(0).tolist()
    pairs = [place[one.pattern + first] * units + one.unit for one, first in zip(parts, before, strict=False)]
    pair, where = torch.cat(pairs).unique(return_inverse=True)
    counts = torch.zeros_like(pair).index_add_(0, where, torch.cat([one.counts for one in parts]))
    pattern = pair.div(units, rounding_mode="floor")
    return Patterns(
        names=names,
        sizes=sizes,
        lengths=lengths[last],
        concepts=concepts,
        pattern=pattern,
        unit=pair - pattern * units,
        counts=counts,
        fires=torch.stack([one.fires for one in parts]).sum(0),
        labelled=torch.stack([one.labelled for one in parts]).sum(0),
    )


def spread(starts: Tensor, lengths: Tensor) -> Tensor:
    """The positions start, start + 1, ... of stretches, one stretch after the other: (sum of lengths,) int64."""
    shift = starts - (lengths.cumsum(0) - lengths)
    return torch.arange(int(lengths.sum()), device=starts.device) + shift.repeat_interleave(lengths)


class Gathering:
    """Patterns in the making: counts go in batch by batch, every image once."""

    def __init__(self, units: int, concepts: int) -> None:
        """Starts with no images, for K units and C concepts."""
        none = torch.zeros(0, dtype=torch.int64)
        totals = {"fires": none.new_zeros(units), "labelled": none.new_zeros(concepts)}
        self.parts = [Patterns(**{one.name: none for one in fields(Patterns)} | totals)]

    def add(self, counts: Tensor, regions: Regions) -> None:
        """Adds the counts (R, K) of some pictures and their regions, all on the CPU."""
        self.parts.append(patterns(counts, regions))
        # Sorting in costs as much as what is there, so it waits until as much has come.
        if sum(len(one.pattern) for one in self.parts[1:]) > max(MERGE_AT, len(self.parts[0].pattern)):
            self.parts = [merged(self.parts)]

    def result(self, runner: "Trainer | None" = None) -> Patterns:
        """The patterns of all images; with those of the other processes, where a runner is given."""
        own = merged(self.parts)
        if runner is None or runner.world_size == 1:
            return own
        columns = {one.name: _of_all(getattr(own, one.name), runner) for one in fields(Patterns)}
        ranks = range(runner.world_size)
        return merged([Patterns(**{name: values[rank] for name, values in columns.items()}) for rank in ranks])


def _of_all(values: Tensor, runner: "Trainer") -> list[Tensor]:
    """A tensor (n,) of each process, whose lengths differ."""
    strategy, device = runner.strategy, runner.strategy.root_device
    lengths = strategy.all_gather(torch.tensor([len(values)], device=device)).flatten().tolist()
    padded = torch.zeros(max(lengths), dtype=values.dtype, device=device)
    padded[: len(values)] = values.to(device)
    everything = strategy.all_gather(padded).view(len(lengths), -1)
    return [row[:length].cpu() for row, length in zip(everything, lengths, strict=True)]
