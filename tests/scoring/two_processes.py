"""Run by test_two_processes: scores a planted world on some processes and writes the values on rank 0."""

import json
import sys
from functools import partial
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from oracles_simulation import Rows, planted

from neuronx.recording.trainer import make
from neuronx.scoring.correlation import Correlation
from neuronx.store.processes import start

if __name__ == "__main__":
    torch.set_num_threads(1)
    devices, batch_size, out = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    strategy = "ddp" if devices > 1 else "auto"
    trainer = partial(make, accelerator="cpu", devices=devices, strategy=strategy, enable_progress_bar=False)
    start(trainer())  # as recording does; all numbers are there already, so that no pass would start the other process
    judge, layer, truth = planted(n=506, units=9)
    probe = Rows(506)
    probe.splits["test"] = probe.splits["test"][:101]
    scores = (
        Correlation(batch_size=batch_size)
        .score_recorded({"true": truth}, {"layer": layer}, "net", probe, judge, trainer)
        .rows
    )
    rank = int(__import__("os").environ.get("LOCAL_RANK", 0))
    out.with_suffix(f".{rank}").write_text(json.dumps([[one.method, one.status, one.n, one.value] for one in scores]))
