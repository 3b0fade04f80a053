"""First and second moments of concepts and units: all that a linear explanation needs to know of the images.

One pass adds them up in float64, batch by batch and rank by rank. Batches are merged by Chan's update (Chan, Golub and
LeVeque 1983), so the order and the sizes of the batches change nothing but the last bits.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
import torch.distributed as dist
from torch import Tensor

from neuronx.concepts.encoders import own_device

_BLOCK = (
    128  # Columns of the Gram matrix made at once: wide enough for the matrix product, narrow enough to skip its half.
)


@dataclass(frozen=True)
class ConceptMoments:
    """ConceptMoments of C concepts and K units over n images, all float64.

    Attributes:
        count: n.
        concept_mean: (C,).
        unit_mean: (K,).
        gram: (C, C) centred concepts times centred concepts, summed over the images.
        cross: (C, K) centred concepts times centred units, summed over the images.
        squares: (K,) centred units squared, summed over the images.
    """

    count: int
    concept_mean: Tensor
    unit_mean: Tensor
    gram: Tensor
    cross: Tensor
    squares: Tensor

    @property
    def live_concepts(self) -> Tensor:
        """(C,) bool, false where the concept is the same on every image."""
        return _varies(self.gram.diagonal(), self.concept_mean, self.count)

    @property
    def live_units(self) -> Tensor:
        """(K,) bool, false where the unit is the same on every image."""
        return _varies(self.squares, self.unit_mean, self.count)

    def __add__(self, other: "ConceptMoments") -> "ConceptMoments":
        """The moments over the images of both."""
        n = self.count + other.count
        x, y = other.concept_mean - self.concept_mean, other.unit_mean - self.unit_mean
        share, pull = (other.count / n, self.count * other.count / n) if n else (0.0, 0.0)
        return ConceptMoments(
            n,
            self.concept_mean + share * x,
            self.unit_mean + share * y,
            self.gram + other.gram + pull * torch.outer(x, x),
            self.cross + other.cross + pull * torch.outer(x, y),
            self.squares + other.squares + pull * y * y,
        )

    def units(self, columns: Tensor) -> "ConceptMoments":
        """The moments of some of the units."""
        return replace(
            self,
            unit_mean=self.unit_mean[columns],
            cross=self.cross[:, columns],
            squares=self.squares[columns],
        )

    def over_ranks(self) -> "ConceptMoments":
        """The moments over the images of all processes, the same on each; itself where there is only one process."""
        if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
            return self
        sums = over_ranks(
            torch.cat(
                [self.unit_mean.new_tensor([self.count]), self.count * self.concept_mean, self.count * self.unit_mean]
            )
        )
        n = int(sums[0])
        mean = sums[1:] / max(n, 1)
        concept_mean, unit_mean = mean[: len(self.concept_mean)], mean[len(self.concept_mean) :]
        # Once every rank has centred on the common mean, Chan's update is a plain sum.
        x, y = self.concept_mean - concept_mean, self.unit_mean - unit_mean
        parts = (
            self.gram + self.count * torch.outer(x, x),
            self.cross + self.count * torch.outer(x, y),
            self.squares + self.count * y * y,
        )
        return ConceptMoments(n, concept_mean, unit_mean, *map(over_ranks, parts))


def _varies(squares: Tensor, mean: Tensor, count: int) -> Tensor:
    # One float32 step of one image in 1e8 changes the squares by 4e-15 mean^2 or more; rounding in float64 leaves less
    # than n 1e-24 mean^2. What lies between cannot happen.
    return squares > 1e-24 * max(count, 1) * mean.square()


class RunningMoments:
    """ConceptMoments in the making; `add` batches, then take `moments()`.

    Args:
        concepts: C.
        units: K.
        device: Where to add up. Apple's GPUs have no float64, so there it is done on the CPU.
    """

    def __init__(self, concepts: int, units: int, device: torch.device | str = "cpu") -> None:
        device = torch.device(device)
        self.device = torch.device("cpu") if device.type == "mps" else device
        self.count = 0
        self._rows = [torch.empty(0), torch.empty(0)]
        self.concept_mean, self.unit_mean, self.gram, self.cross, self.squares = (
            torch.zeros(shape, dtype=torch.float64, device=self.device)
            for shape in ((concepts,), (units,), (concepts, concepts), (concepts, units), (units,))
        )

    def add(self, concepts: Tensor, units: Tensor) -> None:
        """Adds B images: concept scores (B, C) and activations (B, K), of any floating type."""
        batch, count = len(concepts), self.count + len(concepts)
        if not batch:
            return
        # Chan's correction for the two means is one more row of the centred batch.
        pull = (self.count * batch / count) ** 0.5
        x = self._centred(0, concepts, self.concept_mean, batch / count, pull)
        y = self._centred(1, units, self.unit_mean, batch / count, pull)
        for start in range(0, x.shape[1], _BLOCK):  # only the upper triangle: the matrix is symmetric
            self.gram[start : start + _BLOCK, start:].addmm_(x[:, start : start + _BLOCK].T, x[:, start:])
        self.cross.addmm_(x.T, y)
        self.squares += y.square().sum(0)
        self.count = count

    def _centred(self, which: int, values: Tensor, mean: Tensor, share: float, pull: float) -> Tensor:
        # (B + 1, X): the centred batch and the correction row. Moves `mean`, in place, to that of all images so far.
        if len(values) >= len(self._rows[which]):  # kept from batch to batch: fresh memory costs more than the sums
            self._rows[which] = torch.empty((len(values) + 1, len(mean)), dtype=torch.float64, device=self.device)
        rows = self._rows[which][: len(values) + 1]
        rows[:-1] = values
        step = rows[:-1].mean(0) - mean
        rows[:-1] -= mean + step
        rows[-1] = pull * step
        mean += share * step
        return rows

    def moments(self) -> ConceptMoments:
        """The moments of all that was added on this process; call it once, at the end."""
        for start in range(0, len(self.gram), _BLOCK):
            stop = start + _BLOCK
            self.gram[stop:, start:stop] = self.gram[start:stop, stop:].T
        return ConceptMoments(self.count, self.concept_mean, self.unit_mean, self.gram, self.cross, self.squares)


def moments(batches: Iterable[tuple[Tensor, Tensor]]) -> ConceptMoments:
    """The moments over batches of (concept scores (B, C), activations (B, K)). Raises ValueError without any."""
    running = None
    for concepts, units in batches:
        running = running or RunningMoments(concepts.shape[1], units.shape[1], concepts.device)
        running.add(concepts, units)
    if running is None:
        raise ValueError("moments need at least one batch")
    return running.moments()


@dataclass(frozen=True)
class Rows:
    """Recorded numbers of the images of train and of val: concept scores (B, C) beside activations (B, K).

    Each process goes through its share of the images; sums are brought together by `ConceptMoments.over_ranks`.

    Attributes:
        scores: (N, C') of all concepts.
        concepts: (C,) int64, the columns of `scores` that take part.
        values: One (N, K') for each layer; memory-mapped as a rule.
        units: For each layer (K,) int64, the columns that take part; batches hold the layers side by side.
        train: Images to fit on.
        val: Images to choose on.
        batch_size: Images at a time, at most.
    """

    scores: Tensor
    concepts: Tensor
    values: Sequence[Tensor]
    units: Sequence[Tensor]
    train: Tensor
    val: Tensor
    batch_size: int = 1024

    def read(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (B, C) and activations (B, K) of some images, float32."""
        values = [layer[rows][:, columns] for layer, columns in zip(self.values, self.units, strict=True)]
        return self.scores[rows][:, self.concepts].float(), torch.cat(values, 1).float()

    def batches(self, rows: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """This process's batches of some images, on its GPU or the CPU."""
        device = own_device()
        return (tuple(part.to(device) for part in self.read(batch)) for batch in shares(rows, self.batch_size))  # type: ignore[misc]

    def moments(self, rows: Tensor) -> ConceptMoments:
        """The moments of some images, added up over the processes."""
        running = RunningMoments(len(self.concepts), sum(map(len, self.units)), own_device())
        for scores, values in self.batches(rows):
            running.add(scores, values)
        return running.moments().over_ranks()


def shares(rows: Tensor, batch_size: int, rank: int | None = None, world: int | None = None) -> tuple[Tensor, ...]:
    """A process's batches of rows: no image twice, and as many batches for every process."""
    if rank is None or world is None:
        shared = dist.is_available() and dist.is_initialized()
        rank, world = (dist.get_rank(), dist.get_world_size()) if shared else (0, 1)
    rounds = max(1, -(-len(rows) // (batch_size * world)))
    return rows.tensor_split(rounds * world)[rank::world]


def over_ranks(values: Tensor) -> Tensor:
    """The sum over all processes."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        values = values.clone()
        dist.all_reduce(values)
    return values
