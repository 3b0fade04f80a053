"""The pictures on which units are strongest, of recorded activations."""

import torch
from torch import Tensor

from neuronx.recording.tally import lots, ordered

UNITS = 128
"""Units that are sorted together."""


def strongest(values: Tensor, k: int) -> Tensor:
    """Rows (k, K) of the k largest activations of each unit of (R, K), largest first; of equal ones by lot.

    Never in the order of the data, which is often sorted by class: units that fire rarely are 0 on most images.
    """
    drawn = lots(torch.arange(len(values)), torch.tensor(0)).argsort()
    later = torch.arange(len(values) - 1, -1, -1)
    keys = (ordered(part[drawn].T.float().contiguous() + 0.0) << 32 | later for part in values.split(UNITS, 1))
    return torch.cat([drawn[key.topk(k).indices] for key in keys]).T
