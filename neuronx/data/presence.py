"""Which pictures show which concepts anywhere, found in one pass over the labels of pixels and kept."""

import torch
from safetensors.torch import load_file, save
from torch import Tensor
from tqdm import tqdm

from neuronx.cache import entry
from neuronx.data.segmentation import Segmentation

_BATCH = 64


def presence(segmentation: Segmentation, images: int, name: str) -> Tensor:
    """Presence of every concept in every picture.

    Args:
        segmentation: Of a probe.
        images: Their number N.
        name: Of the data, for the progress bar.

    Returns:
        (N, C) bool.

    Raises:
        UserError: As `Segmentation.presence`.
    """
    kept = entry("presence", {"segmentation": segmentation.fingerprint, "images": images})
    if not kept.complete:
        starts = tqdm(range(0, images, _BATCH), f"labels of {name}", disable=None, leave=False)
        found = torch.cat([segmentation.presence(range(at, min(at + _BATCH, images))) for at in starts])
        kept.write("presence.safetensors", save({"presence": found}))
        kept.publish(concepts=list(segmentation.names))
    return load_file(kept.path / "presence.safetensors")["presence"]
