"""What keys say of networks and transforms: other outputs, other digests; the same ones in every process."""

import dataclasses
import functools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision import transforms as T
from torchvision.transforms import v2

from neuronx.store.cache import UNKEYED, digest, entry
from neuronx.targets.identity import module_digest, transform_digest

FACTOR = 2.0


class Slope(nn.Module):
    def __init__(self, slope, scale=1.0, act=F.relu):
        super().__init__()
        self.slope, self.act = slope, act
        self.register_buffer("scale", torch.tensor(scale), persistent=False)

    def forward(self, x):
        return self.act(F.leaky_relu(x, self.slope) * self.scale * FACTOR)


class Fields:
    def __init__(self, **fields):
        vars(self).update(fields)

    def __call__(self, x):
        return x


@dataclasses.dataclass(frozen=True)
class Mean:
    mean: tuple[float, ...] = (0.5,)

    def __call__(self, x):
        return x - self.mean[0]


class Slots:
    __slots__ = ("size",)

    def __init__(self, size):
        self.size = size


def patched(k):
    """A module from a library whose forward was replaced."""
    net = nn.Sequential(nn.Identity())
    net.forward = lambda x: x * k
    return net


def hooked(k):
    net = nn.Sequential(nn.Identity())
    net[0].register_forward_hook(lambda module, inputs, output: output * k)
    return net


def enclosed(k):
    """A class whose forward refers to a variable around it."""

    class Net(nn.Module):
        def forward(self, x):
            return x * k

    return Net()


NETWORKS = {
    "an attribute": Slope,
    "a buffer that is not in the state": lambda k: Slope(0.1, k),
    "a function among the attributes": lambda k: Slope(0.1, act=F.relu if k == 1 else F.gelu),
    "a lambda among the attributes": lambda k: Slope(0.1, act=lambda x: x * k),
    "a forward of its own": patched,
    "a hook": hooked,
    "a closure": enclosed,
    "a list of lists": lambda k: Slope([[k], 2]),
    "an array": lambda k: Slope(np.array([k, 2])),
    "arguments that print alike": lambda k: nn.Sequential(nn.Upsample(scale_factor=k)),
    "a module in a tuple": lambda k: Slope((Slope(k),)),
    "weights": lambda k: nn.ParameterList([torch.full((2, 2), k)]),
}
TRANSFORMS = {
    "a lambda": lambda k: lambda x: x * k,
    "a default": lambda k: lambda x, by=k: x * by,
    "a constant": lambda k: (lambda x: x * 1.0) if k == 1 else (lambda x: x * 5.0),
    "what a function calls": lambda k: lambda x: (torch.sin if k == 1 else torch.cos)(x),
    "torchvision": lambda k: T.Compose([T.Lambda(lambda x: x * k), T.ToTensor()]),
    "torchvision v2": lambda k: v2.Compose([v2.Lambda(lambda x: x * k)]),
    "sizes": lambda k: T.Compose([T.Resize(int(10 * k)), T.ToTensor()]),
    "a partial function": lambda k: functools.partial(torch.mul, other=k),
    "a bound method": lambda k: Mean((k,)).__call__,
    "fields": lambda k: Mean((k,)),
    "a module's attribute": Slope,
    "a tensor": lambda k: Fields(scale=torch.tensor([k])),
    "a set": lambda k: Fields(names={"a", "b", "c", str(k)}),
    "a dictionary": lambda k: Fields(names={"a": {"b": k}}),
    "slots": lambda k: Fields(inner=Slots(k)),
    "a list that holds itself": lambda k: Fields(inner=(lambda one: one.append(one) or one)([k])),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_that_differ_have_other_digests(name):
    first, same, other = (module_digest(NETWORKS[name](k)) for k in (1.0, 1.0, 5.0))
    assert first == same != other and not first.startswith(UNKEYED)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms_that_differ_have_other_digests(name):
    first, same, other = (transform_digest(TRANSFORMS[name](k)) for k in (1.0, 1.0, 5.0))
    assert first == same != other and not first.startswith(UNKEYED)


def test_a_forward_pass_changes_nothing():
    net = Slope(0.5)
    before = module_digest(net)
    net.eval()(torch.ones(2))
    assert module_digest(net) == before


SCRIPT = """
import sys
sys.path[:0] = [{folder!r}, {root!r}]
from net import Net, transform
from neuronx.targets.identity import module_digest, transform_digest
print(module_digest(Net()), transform_digest(transform))
"""
NET = """
from torch import nn
SCALE = {scale}
def helped(x):
    return x * SCALE
class Net(nn.Module):
    kinds = frozenset({{"a", "b", "c"}})
    def forward(self, x):
        return helped(x)
def transform(x):
    return helped(x) if x in {{"a", "b", "c"}} else x
"""


def test_the_defining_file_counts_and_every_process_says_the_same(tmp_path):
    root = str(Path(__file__).parents[2])

    def digests(scale):
        (tmp_path / "net.py").write_text(NET.format(scale=scale))
        script = SCRIPT.format(folder=str(tmp_path), root=root)
        return subprocess.run([sys.executable, "-B", "-c", script], capture_output=True, text=True, check=True).stdout

    first, again, other = digests(2), digests(2), digests(3)
    assert first == again
    assert all(a != b for a, b in zip(first.split(), other.split(), strict=True))


def test_a_key_of_something_unkeyed_is_unkeyed():
    part = digest([1, {"transform": f"{UNKEYED}7"}])
    assert part.startswith(UNKEYED) and not digest([1, "unkeyed"]).startswith(UNKEYED)
    assert entry("texts", {"of": part}).path.parent.name == "unkeyed"
