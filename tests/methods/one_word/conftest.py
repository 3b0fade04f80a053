from types import SimpleNamespace

import pytest
import torch
from torch import nn

from neuronx.data.in_memory import probe_of
from neuronx.targets.preprocess import Preprocess
from neuronx.targets.target import Target
from neuronx.types import Judgement

COLOURS = ("red", "green", "blue")


class Eye:
    """A CLIP that sees the mean colour of a picture, and knows three words."""

    name, domain, encoders = "eye", "", ("digest of eye",)

    def colours(self, probe):
        return torch.cat([probe.load([row]).float().mean((2, 3)) / 255 for row in range(len(probe))])

    def embed_images(self, probe, trainer):
        return nn.functional.normalize(self.colours(probe), dim=1)

    def embed_texts(self, texts):
        return torch.eye(3)[[COLOURS.index(text) for text in texts]]

    def judge(self, names, probe, trainer):
        seen = self.colours(probe)[:, [COLOURS.index(name) for name in names]]
        return Judgement(torch.ones(len(names), dtype=torch.bool), lambda rows: seen[rows])


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
