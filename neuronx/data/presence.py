"""Which concepts pictures show, and on how much of them: found in one pass over the labels of pixels, and kept."""

from collections.abc import Callable

import torch
from torch import Tensor
from tqdm import tqdm

from neuronx.data.segmentation import Segmentation
from neuronx.store.cache import entry, packed

_BATCH = 64


def presence(segmentation: Segmentation, images: int, name: str) -> Tensor:
    """Whether pictures show concepts anywhere.

    Args:
        segmentation: Of a probe.
        images: Number N of its pictures.
        name: Of the data, for the progress bar.

    Returns:
        (N, C) bool.

    Raises:
        UserError: As `Segmentation.presence`.
    """
    return _passed("presence", segmentation, images, name, segmentation.presence)


def areas(segmentation: Segmentation, images: int, name: str) -> Tensor:
    """On which share of a picture, seen whole and on the segmentation's grid, it shows each concept.

    Args:
        segmentation: Of a probe.
        images: Number N of its pictures.
        name: Of the data, for the progress bar.

    Returns:
        (N, C) float32 in [0, 1].

    Raises:
        UserError: As `Segmentation.regions`.
    """

    def share(rows: range) -> Tensor:
        regions = segmentation.regions(rows, _whole)
        share = regions.sizes.float() / regions.maps[0].numel()
        found = torch.zeros(len(rows), regions.shows.shape[1])
        return found.index_add_(0, regions.picture, share[:, None] * regions.shows)

    return _passed("areas", segmentation, images, name, share)


def _whole(picture: Tensor) -> Tensor:
    return picture


def _passed(kind: str, segmentation: Segmentation, images: int, name: str, look: Callable[[range], Tensor]) -> Tensor:
    """(N, C) of what `look` finds on rows of pictures; from the store where it was found before."""
    place = entry(kind, {"segmentation": segmentation.fingerprint, "images": images, "grid": list(segmentation.grid)})
    if (kept := place.open()) is None:
        starts = tqdm(range(0, images, _BATCH), f"labels of {name}", disable=None, leave=False)
        found = torch.cat([look(range(at, min(at + _BATCH, images))) for at in starts])
        kept = place.publish(packed({kind: found}), concepts=list(segmentation.names))
    return kept.tensors()[kind]
