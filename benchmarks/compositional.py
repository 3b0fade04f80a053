"""The search for formulas of up to three concepts, beam 10, against one that evaluates every formula on full masks.

The reference joins masks over all cells of all images by `np.logical_and` and `np.logical_or`. What it needs for one
formula is measured on some formulas of some units, and multiplied by the number that a search goes through: for each
unit all concepts, and twice the ten best times three operators times all other concepts. Its IoUs must be ours.
"""

import resource
import time

import numpy as np
import torch

from benchmarks import tally_plain as plain
from neuronx.methods.net_dissect.search import OPERATORS, Beam, Gathering, Patterns, search
from neuronx.methods.net_dissect.tally import count
from neuronx.recording.maps import masks

IMAGES, UNITS, BATCH = 200, 512, 8
LENGTH, BEAM = 3, 10
SAMPLED_UNITS, SAMPLED_FORMULAS = 4, 5


def report() -> list[dict]:
    """One row: name, ours_cpu_s, reference_cpu_s, ratio, peak_mb. CPU seconds of one thread."""
    torch.set_num_threads(1)
    batches = plain.case(IMAGES, UNITS, BATCH)
    thresholds = torch.full((UNITS,), plain.THRESHOLD)
    gathering = Gathering(UNITS, plain.CONCEPTS)
    counted = [(count(maps, thresholds, regions), regions) for maps, regions, _ in batches]
    start = time.process_time()
    for counts, regions in counted:
        gathering.add(counts, regions)
    found = gathering.result()
    beams = search(found, LENGTH, BEAM)
    ours = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    truth = np.zeros((plain.CONCEPTS, IMAGES, plain.SIDE, plain.SIDE), bool)
    for image, one in enumerate(one for _, _, images in batches for one in images):
        for concept, mask in one.items():
            truth[concept, image] = mask
    truth = truth.reshape(plain.CONCEPTS, -1)
    fires = torch.cat(
        [masks(maps[:, :SAMPLED_UNITS], thresholds[:SAMPLED_UNITS], (plain.SIDE,) * 2) for maps, _, _ in batches]
    )
    per_formula = _seconds(truth, fires.transpose(0, 1).flatten(1).numpy(), beams[-1], found)
    formulas = UNITS * (plain.CONCEPTS + (LENGTH - 1) * BEAM * len(OPERATORS) * (plain.CONCEPTS - 1))
    return [
        {
            "name": f"formulas of {LENGTH} concepts, beam {BEAM}, {UNITS} units, {IMAGES} images",
            "ours_cpu_s": ours,
            "reference_cpu_s": per_formula * formulas,
            "ratio": per_formula * formulas / ours,
            "peak_mb": peak,
            "reference_formulas_measured": SAMPLED_UNITS * SAMPLED_FORMULAS,
            "of": formulas,
            "patterns": len(found.sizes),
        }
    ]


def _seconds(truth: np.ndarray, fires: np.ndarray, beam: Beam, found: Patterns) -> float:
    """CPU seconds for one more concept in a formula and its IoU, the mask so far at hand; checks our IoUs."""
    spent = 0.0
    iou = beam.iou(found.fires)
    for unit, mine in enumerate(fires):
        for place in range(SAMPLED_FORMULAS):
            chain = zip(beam.concepts[unit, place].tolist(), beam.operators[unit, place].tolist(), strict=True)
            mask: np.ndarray | None = None
            for concept, operator in chain:
                if concept < 0:
                    break
                start = time.process_time()
                if mask is None:
                    mask = truth[concept]
                elif OPERATORS[operator] == "OR":
                    mask = np.logical_or(mask, truth[concept])
                else:
                    right = truth[concept] if OPERATORS[operator] == "AND" else np.logical_not(truth[concept])
                    mask = np.logical_and(mask, right)
                both, either = np.logical_and(mask, mine).sum(), np.logical_or(mask, mine).sum()
                last = time.process_time() - start
            spent += last
            if abs(both / either - float(iou[unit, place])) > 1e-9:
                raise RuntimeError(f"unit {unit}: the IoU of a formula is not that of its mask")
    return spent / (len(fires) * SAMPLED_FORMULAS)
