"""A generator's own pictures as a probe: drawn from its latents, made when asked for, nothing kept."""

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from neuronx.data.probe import Probe, Transform, seeded_splits
from neuronx.errors import UserError
from neuronx.store.cache import digest
from neuronx.targets.calling import Inputs, run, to_device_of
from neuronx.targets.latents import Latents
from neuronx.types import Target

AT_ONCE = 16
"""Pictures that are made together, always as many: one row's picture does not depend on which others are asked for."""


class LatentProbe(Probe):
    """Rows 0 to size - 1 of a generator's latents, and the pictures that it makes of them.

    A generator gets the latents, any other network (a CLIP, a judge, a classifier) the pictures: `loader` decides by
    the transform, which a generator's `Latents` stand for.
    """

    def __init__(
        self,
        module: nn.Module,
        latents: Latents,
        generator: str,
        size: int = 5000,
        seed: int = 0,
        *,
        name: str = "generated",
        batch_size: int = 250,
    ) -> None:
        """Splits the rows 70/10/20; makes no picture yet.

        Args:
            module: The generator; it is put into eval mode.
            latents: How its inputs are drawn and its pictures read.
            generator: Digest of the generator, for the fingerprint.
            size: Number of rows.
            seed: Of the latents and the splits.
            name: Used in tables.
            batch_size: Of the loader.

        Raises:
            UserError: When `size` is below 1 or `seed` below 0.
        """
        # The network is in this process: no workers.
        super().__init__(batch_size=batch_size, num_workers=0)
        if size < 1 or seed < 0:
            raise UserError(f"Pictures of {name}: size={size} must be at least 1, seed={seed} at least 0.")
        self.module, self.latents, self.generator = module.eval(), latents, generator
        self.name, self.domain, self.size, self.seed = name, latents.domain, size, seed
        self.splits = seeded_splits(size, seed)
        if latents.classes:
            self.labels = latents.labels(torch.arange(size), seed)
            self.class_names = latents.class_names
            self.hierarchy = latents.hierarchy

    def __len__(self) -> int:
        return self.size

    def draw(self, rows: Sequence[int] | Tensor) -> Inputs:
        """The generator's inputs for some rows, on the CPU."""
        return self.latents.draw(torch.as_tensor(rows, dtype=torch.int64), self.seed)

    def load(self, rows: Sequence[int]) -> Tensor:
        """The generator's pictures of some rows: (B, 3, H, W) uint8, made where the generator is."""
        parts = torch.as_tensor(rows, dtype=torch.int64).split(AT_ONCE)
        return torch.cat([self._pictures(part) for part in parts])

    def _inputs(self, transform: Transform) -> Dataset:
        """Pictures as any probe's; the generator's own inputs where `transform` is its `Latents`."""
        return _Inputs(self) if isinstance(transform, Latents) else super()._inputs(transform)

    @cached_property
    def fingerprint(self) -> str:
        """Of the generator, what its inputs are, the seed and the size."""
        return digest(
            {"generator": self.generator, "latents": repr(self.latents), "seed": self.seed, "size": self.size}
        )

    def _pictures(self, rows: Tensor) -> Tensor:
        padded = torch.cat([rows, rows[:1].expand(AT_ONCE - len(rows))])
        with torch.no_grad():
            outputs = run(self.module, to_device_of(self.module, self.draw(padded)))
        return self.latents.pictures(outputs)[: len(rows)].cpu()


class _Inputs(Dataset):
    """A generator's inputs as a map-style data set whose index is a whole batch of rows."""

    def __init__(self, probe: LatentProbe) -> None:
        self.probe = probe

    def __getitem__(self, rows: list[int]) -> tuple[Inputs, Tensor]:
        return self.probe.draw(rows), torch.tensor(rows)

    def __len__(self) -> int:
        return len(self.probe)


def latent_probe(target: Target, size: int = 5000, seed: int = 0, batch_size: int = 250) -> LatentProbe:
    """The probe of a generator's own pictures.

    Args:
        target: A generator: a target with `latents`.
        size: Number of pictures.
        seed: Of their latents and of the splits.
        batch_size: Of the loader.

    Raises:
        UserError: The target is no generator.
    """
    if target.latents is None:
        raise UserError(f"{target.name} is no generator: it has no latents to draw pictures from.")
    return LatentProbe(
        target.module, target.latents, target.digest, size, seed, name=target.name, batch_size=batch_size
    )


def images_of(target: Target, probe: Probe) -> Probe:
    """What a network is studied on: the probe's pictures, or as many of its own where it generates pictures."""
    if target.latents is None:
        return probe
    return latent_probe(target, size=len(probe))
