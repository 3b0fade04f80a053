from types import SimpleNamespace

import pytest
import torch
from colour_eye import COLOURS, Eye
from torch import nn

from neuronx.data.in_memory import probe_of
from neuronx.targets.preprocess import Preprocess
from neuronx.targets.target import Target


@pytest.fixture
def colours():
    generator = torch.Generator().manual_seed(0)
    shades = torch.rand(200, 3, 1, 1, generator=generator) * 255
    conv = nn.Conv2d(3, 4, 1, bias=False)
    weights = [[2, -1, -1], [-1, 2, -1], [-1, -1, 2], [0, 0, 0]]
    conv.weight.data = torch.tensor(weights, dtype=torch.float32)[:, :, None, None]
    return SimpleNamespace(
        clip=Eye(),
        words=SimpleNamespace(of=lambda probe: COLOURS),
        probe=probe_of(shades.expand(-1, -1, 4, 4).to(torch.uint8).contiguous()),
        target=Target("net", nn.Sequential(conv, nn.ReLU()), Preprocess(), {"0": "avg"}),
    )
