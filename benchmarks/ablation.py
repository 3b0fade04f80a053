"""Ablation scores on a linear head against the direct computation, both modes, with random weights and activations."""

import resource
import statistics
import time

import torch
from torch import Tensor

from benchmarks.ablation_plain import plain
from neuronx.recording.trainer import make
from neuronx.scoring.ablation.ablation import Ablation, LayerAblation
from neuronx.scoring.ablation.curves import LinearLossChange
from neuronx.scoring.predictors import WeightedConcepts

UNITS, CLASSES, VAL, TEST, CONCEPTS, TERMS = 2048, 1000, 1000, 2000, 400, 4
PLAIN_UNITS = {"norm": 4, "optim": 1}
TEMPERATURE = 1.1


def report() -> list[dict]:
    """CPU seconds of one thread; the direct computation of a few units is scaled to all of them."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    N = VAL + TEST
    scores = torch.rand(CONCEPTS, N, generator=generator) ** 8  # concepts are rare
    which = torch.randint(0, CONCEPTS, (UNITS, TERMS), generator=generator)
    weights = torch.rand(UNITS, TERMS, generator=generator, dtype=torch.float64) + 0.5
    q = torch.stack([w.float() @ scores[c] for c, w in zip(which, weights, strict=True)])
    z = (q + 0.3 * torch.randn(UNITS, N, generator=generator)).clamp(min=0)
    head = torch.nn.Linear(UNITS, CLASSES)
    torch.nn.init.normal_(head.weight, std=0.05, generator=generator)
    with torch.inference_mode():
        logits = head(z.T)
    labels = (logits + torch.randn(N, CLASSES, generator=generator)).argmax(1)
    predictor = WeightedConcepts("layer", torch.arange(UNITS), which, weights, torch.zeros(UNITS).double())
    runner = make(accelerator="cpu", enable_progress_bar=False)

    def ours(mode: str) -> Tensor:
        change = LinearLossChange(head.weight.detach(), torch.arange(UNITS), logits, labels, TEMPERATURE)
        layer = LayerAblation([predictor], scores, torch.arange(UNITS), z, VAL, change, Ablation(modes=(mode,)))
        return layer.scores(runner)[mode][0][0]

    rows = []
    for mode, few in PLAIN_UNITS.items():
        fast, slow, found, direct = [], [], torch.zeros(0), torch.zeros(0)
        for _ in range(3 if mode == "norm" else 1):
            start = time.process_time()
            found = ours(mode)
            fast.append(time.process_time() - start)
            start = time.process_time()
            direct = torch.stack([plain(k, q[k], z, head, labels, VAL, mode, TEMPERATURE) for k in range(few)])
            slow.append((time.process_time() - start) * UNITS / few)
        rows.append(
            {
                "name": f"{mode}: {UNITS} units, {CLASSES} classes, {VAL} val and {TEST} test images",
                "ours_cpu_s": statistics.median(fast),
                "reference_cpu_s": statistics.median(slow),
                "ratio": statistics.median(slow) / statistics.median(fast),
                "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                "largest_difference": f"{(found[:few] - direct).abs().max():.1g}",
            }
        )
    return rows
