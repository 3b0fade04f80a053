"""Run by test_two_processes: ablation scores on some processes, by a linear head and by the tail, written by each."""

import json
import os
import sys
from functools import partial
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))
from oracles_simulation import Table

from neuronx.data.in_memory import AsIs, probe_of
from neuronx.recording.trainer import make
from neuronx.scoring.ablation.ablation import Ablation
from neuronx.scoring.ablation.importance import effects
from neuronx.targets.target import Target
from neuronx.types import Explanation, Unit

if __name__ == "__main__":
    torch.set_num_threads(1)
    devices, batch_size, out = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    os.environ["NEURONX_CACHE"] = str(out.with_suffix(".cache"))
    strategy = "ddp" if devices > 1 else "auto"
    trainer = partial(make, accelerator="cpu", devices=devices, strategy=strategy, enable_progress_bar=False)
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4))
    module = nn.Sequential(module[:2], nn.Conv2d(5, 6, 3), nn.ReLU(), *module[2:4], nn.Linear(6, 4))
    images = torch.randn(303, 3, 8, 8)
    probe = probe_of(images)
    probe.labels = torch.arange(303) % 4
    probe.batch_size = batch_size
    probe.splits["test"] = probe.splits["test"][:31]
    target = Target("net", module, AsIs(), {"0": "avg", "2": "avg"})
    judge = Table(["a", "b", "c"], torch.rand(303, 3))
    explained = [Explanation(Unit(layer, k), (("abc"[k], 0.5),), 0.1) for layer in target.layers for k in range(3)]
    sim = Ablation(batch_size=batch_size, nodes=4)
    scores = sim.score({"le": explained}, target, probe, judge, trainer).rows
    found = [[one.method, one.score, one.pool, one.status, one.n, one.value, one.sem] for one in scores]
    for layer in ("0", "2"):
        held = effects(target, probe, trainer, layer, torch.arange(101))
        found.append([layer, held.path, "", "", 101, float(held.loss.sum()), float(held.still_right.sum())])
    out.with_suffix(f".{os.environ.get('LOCAL_RANK', 0)}").write_text(json.dumps(found))
