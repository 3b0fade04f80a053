import numpy as np
import pytest
import torch
from torch import nn

from neuronx import milannotations
from neuronx.data.in_memory import probe_of
from neuronx.targets.preprocess import Preprocess
from neuronx.targets.target import Target

SAID = {
    "alexnet": "red circles",
    "resnet152": "green squares",
    "biggan": "blue stars",
    "imagenet": "on grass",
    "places365": "in the sky at night",
}


@pytest.fixture(scope="module")
def units(tmp_path_factory):
    """Two layers of three units of each of six models, described by what the model is called."""
    root = tmp_path_factory.mktemp("annotations")
    for network in ("alexnet", "resnet152", "biggan"):
        for data in ("imagenet", "places365"):
            folder = root / network / data
            lines = ["layer,unit,summary"]
            for layer in ("conv1", "conv2"):
                (folder / layer).mkdir(parents=True)
                for name, channels in (("images", 3), ("masks", 1)):
                    np.save(folder / layer / f"{name}.npy", np.zeros((3, 2, channels, 16, 16), dtype=np.uint8))
                lines += [f"{layer},{u},{SAID[network]} {SAID[data]}" for u in range(3) for _ in range(3)]
            (folder / "annotations.csv").write_text("\n".join(lines) + "\n")
    return milannotations.load("base", root)


class Net(nn.Module):
    """Unit c of `see` is channel c everywhere; `weigh` passes it on; the class is the strongest channel."""

    def __init__(self):
        super().__init__()
        self.see, self.weigh = nn.Conv2d(3, 3, 1, bias=False), nn.Linear(3, 3, bias=False)
        with torch.no_grad():
            self.see.weight.copy_(torch.eye(3)[:, :, None, None])
            self.weigh.weight.copy_(torch.eye(3))

    def forward(self, x):
        return self.weigh(self.see(x).mean((2, 3)))


@pytest.fixture(scope="module")
def target():
    return Target("net", Net(), Preprocess(), {"see": "avg", "weigh": "none"}, input_size=4)


@pytest.fixture(scope="module")
def probe():
    """Pictures of one channel each, brighter than the others by its class."""
    labels = torch.arange(60) % 3
    pictures = torch.full((60, 3, 4, 4), 40, dtype=torch.uint8)
    pictures[torch.arange(60), labels] = 200
    return probe_of(pictures, labels=labels, class_names=("red", "green", "blue"))
