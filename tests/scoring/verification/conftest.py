"""A small world of pictures with six attributes, a network whose units know some of them, and who draws them."""

import pytest
import torch
from torch import nn

from neuronx.data.in_memory import probe_of
from neuronx.scoring.verification.pictures import Changes
from neuronx.targets.target import Target
from neuronx.types import Judgement

NAMES = tuple("abcdef")


class Reads:
    """A judge who reads the attributes off the pictures."""

    name, domain, encoders = "reads", "", ()

    def __init__(self, known=(*NAMES, "unheard of")):
        self.known = known

    def vocabulary(self, probe):
        return NAMES

    def judge(self, names, probe, trainer):
        known = torch.tensor([name in self.known for name in names])
        truth = torch.nn.functional.pad(probe.pictures.flatten(1), (0, 1))
        columns = [NAMES.index(name) if name in NAMES else len(NAMES) for name in names]
        return Judgement(known, lambda rows: truth[rows][:, columns])


def pictures(factors):
    """Six numbers a picture as tensors (N, 3, 1, 2)."""
    return factors.float().view(-1, 3, 1, 2)


class Draws:
    """Draws any attributes; the bank leaves `f` alone."""

    domain = "tensors"

    def bank(self, scenes):
        base = (torch.rand(scenes, 6, generator=torch.Generator().manual_seed(1)) < 0.5).float()
        found = base.repeat(10, 1).view(5, 2, scenes, 6)
        for factor in range(5):
            for value in range(2):
                found[factor, value, :, factor] = value
        scene = torch.arange(scenes).repeat(10)
        group = torch.arange(5).repeat_interleave(2 * scenes) * scenes + scene
        rows = torch.arange(len(scene))
        return Changes(probe_of(pictures(found)), rows, group, scene, torch.full_like(rows, -1))

    def contrasts(self, concepts, scenes):
        drawn = [place for place, name in enumerate(concepts) if name in NAMES]
        found = torch.zeros(len(drawn), scenes, 2, 6)
        for at, place in enumerate(drawn):
            found[at, :, 0, NAMES.index(concepts[place])] = 1
        group = torch.arange(len(drawn) * scenes).repeat_interleave(2)
        about = torch.tensor(drawn).repeat_interleave(2 * scenes).long()
        return Changes(probe_of(pictures(found)) if drawn else None, torch.arange(len(group)), group, group, about)

    def shows(self, concepts, number):
        drawn = [place for place, name in enumerate(concepts) if name in NAMES]
        found = torch.zeros(len(drawn), number, 6)
        for at, place in enumerate(drawn):
            found[at, :, NAMES.index(concepts[place])] = 1
        return probe_of(pictures(found)), torch.tensor(drawn).repeat_interleave(number)

    def pool(self, size):
        return probe_of(pictures(torch.rand(size, 6, generator=torch.Generator().manual_seed(2)).round()))


@pytest.fixture
def drawer():
    return Draws()


@pytest.fixture
def judge():
    return Reads()


@pytest.fixture
def world():
    """From weights (K, 6) to a network with K units that are sums of attributes, and 400 pictures of it."""

    def make(weights, factors=None):
        module = nn.Sequential(nn.Flatten(), nn.Linear(6, len(weights)))
        module[1].weight.data = torch.as_tensor(weights).float()
        module[1].bias.data.zero_()
        target = Target("net", module, lambda x: x, {"1": "none"})
        if factors is None:
            factors = (torch.rand(400, 6, generator=torch.Generator().manual_seed(0)) < 0.5).float()
        return target, probe_of(pictures(factors))

    return make
