"""A small world to caption: the features of a unit say which of its words it has, and how it was said."""

import io
from pathlib import Path

import numpy as np
import torch

from neuronx.methods.milan.features import BLOCK, Features
from neuronx.methods.milan.training.milan import Lesson
from neuronx.store.cache import entry

COLOURS, SHAPES = ("red", "green", "blue", "white"), ("circles", "squares", "stars")
SMALL = {"embedding_size": 16, "hidden_size": 32, "lr": 1e-2, "batch_size": 32, "language_model_batch_size": 32}


def world(units: int = 96, k: int = 3, seed: int = 0) -> tuple[Features, list[tuple[str, ...]]]:
    """Features (U, k, 7) and three descriptions of each unit."""
    chance = torch.Generator().manual_seed(seed)
    colour = torch.randint(len(COLOURS), (units,), generator=chance)
    shape = torch.randint(len(SHAPES), (units,), generator=chance)
    hot = torch.cat([torch.eye(len(COLOURS))[colour], torch.eye(len(SHAPES))[shape]], 1)
    values = hot.unsqueeze(1) + 0.1 * torch.randn(units, k, hot.shape[1], generator=chance)
    said = [(f"{COLOURS[c]} {SHAPES[s]}", f"{SHAPES[s]} that are {COLOURS[c]}", f"some {COLOURS[c]} {SHAPES[s]}")
            for c, s in zip(colour.tolist(), shape.tolist(), strict=True)]  # fmt: skip
    return stored(values, f"world-{units}-{seed}"), said


def stored(values: torch.Tensor, name: str) -> Features:
    """Features as they lie on disk."""
    place = entry("milan-features", name)
    for block, part in enumerate(values.split(BLOCK)):
        file = io.BytesIO()
        np.save(file, part.numpy())
        place.write(f"block-{block:06d}.npy", file.getvalue())
    return Features((place,), torch.stack([torch.zeros(len(values), dtype=torch.int64), torch.arange(len(values))], 1))


def lesson(**options) -> Lesson:
    return Lesson(**{**SMALL, "epochs": 12, **options})


def fit(folder: Path, trainer, units: int = 96, ckpt_path=None, **options):
    features, said = world(units)
    return lesson(**options).fit(features, said, trainer, folder, ckpt_path=ckpt_path)
