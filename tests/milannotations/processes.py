"""Run by test_write: two processes write the exemplars of the small network: processes.py FOLDER BATCH_SIZE..."""

import sys
from functools import partial
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
import oracles_milannotations as oracle

from neuronx.milannotations.write import write_all
from neuronx.recording.trainer import make

if __name__ == "__main__":
    torch.set_num_threads(1)
    target, probe = oracle.network(), oracle.pictures()
    found = {layer: oracle.exemplars(maps, layer) for layer, maps in oracle.outputs(target, probe).items()}
    trainer = partial(make, accelerator="cpu", devices=2, strategy="ddp", enable_progress_bar=False)
    for size in sys.argv[2:]:
        probe.batch_size = int(size)
        write_all(Path(sys.argv[1]) / size, found, target, probe, trainer)
