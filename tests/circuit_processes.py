"""Run by test_circuits: makes vectors on some processes; each writes what it gets. DEVICES OUT"""

import json
import os
import sys
from functools import partial
from pathlib import Path

import torch
from circuit_cases import Pictures, small_target

from neuronx.methods.pure.circuits import circuit_vectors
from neuronx.recording.trainer import make

if __name__ == "__main__":
    torch.set_num_threads(1)
    devices, out = int(sys.argv[1]), Path(sys.argv[2])
    strategy = "ddp" if devices > 1 else "auto"
    trainer = partial(make, accelerator="cpu", devices=devices, strategy=strategy, enable_progress_bar=False)
    rows, units = torch.arange(20).repeat_interleave(10), torch.arange(10).repeat(20)
    # The second call has one image, so that one process of two has nothing to do.
    probe = Pictures(21, batch_size=1)
    found = circuit_vectors(small_target(), probe, trainer, "stage2", rows, units, batch_size=2).vectors
    circuit_vectors(small_target(), probe, trainer, "stage2", torch.tensor([20]), torch.tensor([0]))
    Path(f"{out}.{os.environ.get('LOCAL_RANK', 0)}").write_text(json.dumps(found.tolist()))
