"""Pairs of `sim=verify`: the whole for 64 units and five methods, and correlations alone beside a loop over groups."""

import os
import resource
import tempfile
import time
from functools import partial

import numpy as np
import torch

from neuronx.recording.record import record
from neuronx.recording.trainer import make
from neuronx.scoring.verification.pairs import pair_scores
from neuronx.scoring.verification.verify import Verify
from neuronx.types import Explanation, Unit
from neuronx.world.clip import ShapesClip
from neuronx.world.networks import load
from neuronx.world.pictures.changes import Drawing
from neuronx.world.pictures.probe import ShapesProbe
from neuronx.world.pictures.words import CONCEPTS, TRUTH

UNITS, LENGTHS = 64, {"ten": 10, "label": 10, "one": 1, "word": 1, "sentence": 1}


def report() -> list[dict]:
    """CPU seconds of one thread; the pictures under study are recorded already, the bank is not."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NEURONX_CACHE"] = folder
        return _report()


def _report() -> list[dict]:
    rng = np.random.default_rng(0)
    target, probe, judge = (
        load("shapes_resnet", layers={"layer4": "avg"}),
        ShapesProbe(1000),
        ShapesClip(pretrained="shapes_judge"),
    )
    trainer = partial(make, accelerator="cpu", enable_progress_bar=False)
    record(target, probe, trainer)
    judge.embed_images(probe, trainer)
    explained = {
        name: [
            Explanation(
                Unit("layer4", k),
                tuple(
                    (str(word), float(rng.normal()))
                    for word in rng.choice(TRUTH if length == 1 else CONCEPTS, length, False)
                ),
            )
            for k in range(UNITS)
        ]
        for name, length in LENGTHS.items()
    }
    start = time.process_time()
    Verify(measures=["pairs"], drawer=Drawing()).score(explained, target, probe, judge, trainer, CONCEPTS)
    whole = time.process_time() - start
    bank = Drawing().bank(60)
    draw = torch.Generator().manual_seed(0)
    predicted, real = torch.randn(2, UNITS, len(bank.group), generator=draw).double().unbind()
    start = time.process_time()
    found = pair_scores(predicted, real, torch.arange(UNITS), bank.group, bank.scene).own.numpy()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    middle = time.process_time()
    plain = _plain(predicted.numpy(), real.numpy(), bank.group.numpy())
    reference = time.process_time() - middle
    if (off := float(np.abs(found - plain).max())) > 1e-10:
        raise RuntimeError(f"the loop finds something else, by {off:.1e}")
    return [
        {
            "name": f"{UNITS} units, 5 methods, {len(bank.group)} pictures drawn, run and judged",
            "ours_cpu_s": whole,
            "peak_mb": peak,
        },
        {
            "name": f"correlations of {UNITS} x {UNITS} explanations and units; the loop: own only",
            "ours_cpu_s": middle - start,
            "reference_cpu_s": reference,
            "ratio": reference / (middle - start),
            "peak_mb": peak,
            "largest difference": f"{off:.0e}",
        },
    ]


def _plain(predicted: np.ndarray, real: np.ndarray, group: np.ndarray) -> np.ndarray:
    """The correlation of each explanation with its own unit, group by group."""
    found = []
    for x, y in zip(predicted, real, strict=True):
        xy = xx = yy = 0.0
        for g in np.unique(group):
            a, b = x[group == g], y[group == g]
            a, b = a - a.mean(), b - b.mean()
            xy, xx, yy = xy + a @ b, xx + a @ a, yy + b @ b
        found.append(xy / np.sqrt(xx * yy))
    return np.array(found)
