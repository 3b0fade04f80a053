"""Run by test_milan_features: two processes make the features of a folder: milan_processes.py ROOT OUT."""

import sys
from functools import partial

import numpy as np
import torch

from neuronx import milannotations
from neuronx.methods.milan import features
from neuronx.methods.milan.encoder import load
from neuronx.trainer import is_first, make

if __name__ == "__main__":
    torch.set_num_threads(1)
    features.BLOCK = 4
    trainer = partial(make, accelerator="cpu", devices=2, strategy="ddp", enable_progress_bar=False)
    units = milannotations.load("net/data", sys.argv[1])
    found = features.features_of(units, load("shapes_resnet"), trainer)
    if is_first():
        np.save(sys.argv[2], found[torch.arange(len(units))].numpy())
