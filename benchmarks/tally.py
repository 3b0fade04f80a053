"""Network Dissection's tally of 512 units on a 112 x 112 grid against the plain loop, from masks and from maps.

The loop compares each unit of each image with each concept in the image by `np.logical_and(...).sum()`; from maps it
upsamples and thresholds every unit first, as Pillow does it. It runs on one batch of the same images, and is scaled to
all of them; its counts of that batch must be ours. A third row is the loop that, like ours, leaves out the units whose
maximum is below their threshold.
"""

import resource
import time

import torch
from torch import Tensor

from benchmarks import tally_plain as plain
from neuronx.data.segmentation import Regions
from neuronx.methods.net_dissect.tally import Tally, Tallying, count, count_masks
from neuronx.recording.maps import masks

IMAGES, UNITS, BATCH = 192, 512, 32


def report() -> list[dict]:
    """One row a comparison: name, ours_cpu_s, reference_cpu_s, ratio, peak_mb. CPU seconds of one thread."""
    torch.set_num_threads(1)
    batches = plain.case(IMAGES, UNITS, BATCH)
    thresholds = torch.full((UNITS,), plain.THRESHOLD)
    size = plain.SIDE, plain.SIDE
    given, regions, truth = batches[0]
    first = _tally([(count(given, thresholds, regions), regions)]).both
    from_masks = from_maps = 0.0
    made = [Tallying(plain.Labelled(), UNITS) for _ in range(2)]  # type: ignore[arg-type]
    for maps, regions, _ in batches:
        cut = masks(maps, thresholds, size)
        start = time.process_time()
        made[0].add(count_masks(cut, regions), regions)
        middle = time.process_time()
        made[1].add(count(maps, thresholds, regions), regions)
        from_maps += time.process_time() - middle
        from_masks += middle - start
    if not torch.equal(made[0].result().both, made[1].result().both):
        raise RuntimeError("counts from masks and from maps differ")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    del batches

    cut = masks(given, thresholds, size)
    high = given.amax((2, 3)) > plain.THRESHOLD
    slow = {}
    for name, masks_of, maps in (
        ("masks", lambda image: list(image.numpy()), cut),
        ("maps", plain.upsampled, given),
        ("maps, skipping", lambda image: plain.upsampled(image[image.amax((1, 2)) > plain.THRESHOLD]), given),
    ):
        start = time.process_time()
        both = plain.tally(masks_of, maps, truth)
        slow[name] = (time.process_time() - start) * IMAGES / BATCH
        if name != "maps, skipping" and both.tolist() != first.tolist():
            raise RuntimeError(f"the loop over {name} counts something else")
    share = float(high.float().mean())
    density = float(cut.float().mean())
    return [
        {
            "name": name,
            "ours_cpu_s": ours,
            "reference_cpu_s": slow[kind],
            "ratio": slow[kind] / ours,
            "peak_mb": peak,
            "cells_firing": round(density, 4),
            "pairs_firing": round(share, 3),
        }
        for name, kind, ours in (
            ("tally of 512 units from masks, 192 images", "masks", from_masks),
            ("the same from maps: upsampled and cut", "maps", from_maps),
            ("the same, the loop skips units below threshold", "maps, skipping", from_maps),
        )
    ]


def _tally(batches: list[tuple[Tensor, Regions]]) -> Tally:
    made = Tallying(plain.Labelled(), UNITS)  # type: ignore[arg-type]
    for counts, regions in batches:
        made.add(counts, regions)
    return made.result()
