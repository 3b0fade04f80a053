"""Run by test_milan_features: two processes make the features of a folder and captions: milan_processes.py ROOT OUT."""

import sys
from functools import partial

import numpy as np
import torch

from neuronx import milannotations
from neuronx.methods.milan import features
from neuronx.methods.milan.describer import encoder_of
from neuronx.recording.trainer import make
from neuronx.store.processes import is_first

if __name__ == "__main__":
    torch.set_num_threads(1)
    features.BLOCK = 4
    trainer = partial(make, accelerator="cpu", devices=2, strategy="ddp", enable_progress_bar=False)
    units = milannotations.load("net/data", sys.argv[1])
    found = features.features_of(units, encoder_of("shapes_resnet"), trainer)
    features.UNITS = 2
    subjects = [features.Subject("a", torch.arange(5)), features.Subject("b", torch.arange(5, 6))]
    told = features.written(
        subjects,
        torch.nn.Linear(1, 1),
        None,
        lambda _, rows: [(f"{row}", (("rows", len(rows)),)) for row in rows.tolist()],
        trainer,
    )
    sizes = [2, 2, 2, 2, 1, 1]
    assert [one for some in told for one in some] == [(f"{i}", (("rows", size),)) for i, size in enumerate(sizes)]
    if is_first():
        np.save(sys.argv[2], found[torch.arange(len(units))].numpy())
