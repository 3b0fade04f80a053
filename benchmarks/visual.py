"""The bank of visual features against a plain reference: every feature computed on its own, nothing shared.

The reference runs on a few of the pictures, one at a time, and is scaled to all of them; its values must be ours. The
peak includes Python and its libraries, some 800 MB before the first picture.
"""

import resource
import time

import torch

from neuronx.concepts.visual.bank import FEATURES, Bank
from neuronx.concepts.visual.planes import Planes

PICTURES, BATCH, SIDE = 1000, 32, 224
MEASURED, PLAIN = 64, 2


def report() -> list[dict]:
    """One row: name, ours_cpu_s and reference_cpu_s for 1,000 pictures, ratio, peak_mb. CPU seconds of one thread."""
    torch.set_num_threads(1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pictures = torch.rand(MEASURED, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    bank = Bank()
    bank(pictures[:1])  # the filters are made once
    start = time.process_time()
    found = torch.cat([bank(batch) for batch in pictures.split(BATCH)])
    ours = (time.process_time() - start) * PICTURES / MEASURED
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    start = time.process_time()
    plain = torch.cat(
        [
            torch.stack([feature.value(Planes(picture[None])).float() for feature in FEATURES], 1)
            for picture in pictures[:PLAIN]
        ]
    )
    reference = (time.process_time() - start) * PICTURES / PLAIN
    if not torch.allclose(found[:PLAIN], plain, atol=1e-4):
        raise RuntimeError("features computed on their own are others")
    return [
        {
            "name": f"114 visual features of {PICTURES:,} pictures of {SIDE} pixels",
            "ours_cpu_s": ours,
            "reference_cpu_s": reference,
            "ratio": reference / ours,
            "peak_mb": peak / 1024,
            "of_which_before": round(before / 1024),
        }
    ]
