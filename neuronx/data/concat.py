"""Several data sets as one, such as ImageNet followed by Broden."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import accumulate

import torch
from PIL import Image
from torch import Tensor

from neuronx.data.probe import Probe
from neuronx.errors import UserError
from neuronx.options import Count, Natural
from neuronx.store.cache import digest


class ConcatProbe(Probe):
    """The images of several probes one after another; each keeps its own splits.

    Labels are kept where all parts have the same classes.
    """

    def __init__(
        self,
        parts: Sequence[Probe] | Mapping[str, Probe],
        *,
        name: str | None = None,
        batch_size: Count = 64,
        num_workers: Natural | None = None,
    ) -> None:
        """Joins the parts.

        Args:
            parts: The probes, of one domain.
            name: Used in tables; the parts' joined by "_" by default.
            batch_size: Of the loader.
            num_workers: Processes that load; the most that any part asks for by default.
        """
        self.parts = list(parts.values() if isinstance(parts, Mapping) else parts)
        if not self.parts:
            raise UserError("A concatenation needs at least one data set.")
        workers = max(part.num_workers for part in self.parts) if num_workers is None else num_workers
        super().__init__(batch_size=batch_size, num_workers=workers)
        domains = {part.domain for part in self.parts}
        if len(domains) > 1:
            raise UserError(f"Pictures of several domains cannot be joined: {', '.join(sorted(domains))}.")
        self.name = name or "_".join(part.name for part in self.parts)
        self.domain = domains.pop()
        self.starts = [0, *accumulate(len(part) for part in self.parts)]
        self.splits = {
            key: torch.cat([part.splits[key] + start for part, start in zip(self.parts, self.starts, strict=False)])
            for key in ("train", "val", "test")
        }
        first = self.parts[0]
        alike = [part for part in self.parts if part.class_names == first.class_names]
        labels = [part.labels for part in alike if part.labels is not None]
        sets = [part.label_sets for part in alike if part.label_sets is not None]
        if len(self.parts) in (len(labels), len(sets)):
            self.class_names = first.class_names
            self.labels, self.label_sets = (torch.cat(labels), None) if labels else (None, torch.cat(sets))

    def __len__(self) -> int:
        return self.starts[-1]

    @cached_property
    def hierarchy(self) -> Mapping[str, Sequence[int]]:  # type: ignore[override]
        """The first part's, where labels are kept."""
        return {} if not self.class_names else self.parts[0].hierarchy

    def _places(self, rows: Sequence[int]) -> list[tuple[Probe, int]]:
        parts = (torch.tensor(self.starts[1:]) <= torch.as_tensor(rows)[:, None]).sum(1).tolist()
        return [(self.parts[part], row - self.starts[part]) for part, row in zip(parts, rows, strict=True)]

    def load(self, rows: Sequence[int]) -> Tensor | list[Image.Image]:
        """The pictures; PIL pictures where rows of several parts meet."""
        places = self._places(rows)
        probe = places[0][0]
        if all(one is probe for one, _ in places):
            return probe.load([row for _, row in places])
        from torchvision.transforms.functional import to_pil_image

        found = [one.load([row])[0] for one, row in places]
        return [to_pil_image(one) if isinstance(one, Tensor) else one for one in found]

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the parts' fingerprints, in order."""
        return digest([part.fingerprint for part in self.parts])

    def image_name(self, row: int) -> str:
        """The part's name and its name of the image."""
        probe, own = self._places([row])[0]
        return f"{probe.name}/{probe.image_name(own)}"
