"""Distances inside and between clusters of the references of 512 units, against a broadcast for each unit."""

import resource
import time

import torch
from torch import Tensor

from neuronx.metrics.purity import pair_distances, separation

UNITS, REFERENCES, WIDTH, CLUSTERS = 512, 100, 768, 3


def report() -> list[dict]:
    """One row: CPU seconds of one thread, the distances between embeddings and their means over pairs."""
    torch.set_num_threads(1)
    draw = torch.Generator().manual_seed(0)
    points = torch.randn(UNITS, REFERENCES, WIDTH, generator=draw)
    labels = torch.randint(0, CLUSTERS, (UNITS, REFERENCES), generator=draw)
    separation(pair_distances(points[:8]), labels[:8])
    start = time.process_time()
    found = separation(pair_distances(points), labels)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # before the loop
    middle = time.process_time()
    plain = torch.stack([_of_unit(*one) for one in zip(points, labels, strict=True)], 1)
    reference = time.process_time() - middle
    ours = middle - start
    off = (torch.stack([found.intra, found.inter, found.overall]) - plain).abs().max()
    if off > 1e-4:
        raise RuntimeError(f"the loop finds something else, by {off:.1e}")
    return [
        {
            "name": f"{UNITS} units x {REFERENCES} references, {WIDTH} numbers each",
            "ours_cpu_s": ours,
            "reference_cpu_s": reference,
            "ratio": reference / ours,
            "peak_mb": peak,
            "largest difference": f"{float(off):.0e}",
        }
    ]


def _of_unit(points: Tensor, labels: Tensor) -> Tensor:
    """Intra, inter and overall of one unit (m, D), as published: all differences at once."""
    far = (points[:, None] - points[None]).square().sum(-1).sqrt()
    same = labels[:, None] == labels[None]
    others = ~torch.eye(len(points), dtype=torch.bool)
    return torch.stack([far[same & others].mean(), far[~same].mean(), far[others].mean()]).double()


if __name__ == "__main__":
    print(report())
