"""The pictures on which units are strongest, of recorded activations."""

import torch
from torch import Tensor

from neuronx.options import Count
from neuronx.recording.tally import lots, ordered

UNITS = 128
"""Units that are sorted together, at most: what they need stays in a core's own cache."""


def strongest(values: Tensor, k: int, memory_mb: Count = 512) -> Tensor:
    """Rows (k, K) of the k largest activations of each unit of (R, K), largest first; of equal ones by lot.

    Never in the order of the data, which is often sorted by class: units that fire rarely are 0 on most images.
    """
    drawn = lots(torch.arange(len(values)), torch.tensor(0)).argsort().to(values.device)
    later = len(values) - 1 - drawn.argsort()
    together = max(1, min(UNITS, memory_mb * 2**20 // (24 * len(values))))
    keys = (ordered(part.float().T.contiguous() + 0.0) << 32 | later for part in values.split(together, 1))
    return torch.cat([drawn[len(values) - 1 - (key.topk(k).values & 0xFFFFFFFF)] for key in keys]).T
