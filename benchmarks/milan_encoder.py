"""MILAN's input: the encoder beside the bare part of the network that it uses, and a reader of 20,000 units."""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from neuronx.methods.milan import describer as encoders
from neuronx.milannotations import read
from neuronx.targets import torchvision

NETWORK, EXEMPLARS, SIDE = "resnet50", 15, 224
LAYERS, UNITS = 4, 5000
ROUNDS = 7


def report() -> list[dict]:
    """CPU seconds of one thread for the exemplars of one unit; and the memory that 20,000 units of 60 GB take."""
    torch.set_num_threads(1)
    return [_reader(), *(_encoder(layout) for layout in (torch.contiguous_format, torch.channels_last))]


def _encoder(layout: torch.memory_format) -> dict:
    """Whole features, masks and all, beside the network as far as its last tap, on inputs that are ready."""
    random = torchvision.load(NETWORK, "random", layers=encoders.PYRAMID)
    encoder = encoders.encoder_of(NETWORK, backbone=random.module.state_dict())
    network = encoder.target.module.to(memory_format=layout)
    used = torch.nn.Sequential(*list(network.children())[:-2])
    images = torch.randint(0, 256, (EXEMPLARS, 3, SIDE, SIDE), dtype=torch.uint8)
    masks = torch.randint(0, 2, (EXEMPLARS, 1, SIDE, SIDE), dtype=torch.uint8)
    inputs = encoder._inputs(images).to(memory_format=layout)
    with torch.inference_mode():
        ours, bare = _seconds(lambda: encoder(images, masks), lambda: used(inputs))
    name = f"features of {EXEMPLARS} exemplars by {NETWORK}" + ", channels last" * (layout == torch.channels_last)
    return {
        "name": name,
        "ours_cpu_s": ours,
        "reference_cpu_s": bare,
        "ratio": bare / ours,
        "features": encoder.size,
    }


def _seconds(*runs: Callable[[], Any]) -> tuple[float, ...]:
    """The median CPU seconds of each, in interleaved rounds after one to warm up."""
    taken: list[list[float]] = [[] for _ in runs]
    for number in range(ROUNDS + 1):
        for run, mine in zip(runs, taken, strict=True):
            start = time.process_time()
            run()
            if number:
                mine.append(time.process_time() - start)
    return tuple(statistics.median(mine) for mine in taken)


def _reader() -> dict:
    """Opening a model of 20,000 units of the published size and reading 40 of them, in files of holes."""
    with tempfile.TemporaryDirectory() as folder:
        for layer in range(LAYERS):
            place = Path(folder) / f"layer{layer}"
            place.mkdir()
            for name, channels in (("images", 3), ("masks", 1)):
                shape = (UNITS, EXEMPLARS, channels, SIDE, SIDE)
                np.lib.format.open_memmap(place / f"{name}.npy", "w+", np.uint8, shape)
        rows = [
            f"layer{layer},{unit},a phrase {i}" for layer in range(LAYERS) for unit in range(UNITS) for i in range(3)
        ]
        (Path(folder) / "annotations.csv").write_text("\n".join(["layer,unit,summary", *rows, ""]))
        before, start = _own_mb(), time.process_time()
        found = read(folder, annotation_count=3)
        most = _own_mb() - before
        for unit in range(0, len(found), len(found) // 40):
            sample = found[unit]
            most = max(most, _own_mb() - before)
        assert sample.images.shape == (EXEMPLARS, 3, SIDE, SIDE)
        taken = time.process_time() - start
    return {"name": f"reader of {len(found)} units, 40 of them read", "ours_cpu_s": taken, "peak_mb": most}


def _own_mb() -> float:
    """Memory that is the process's own, mapped files apart."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["RssAnon"].split()[0]) / 1024
