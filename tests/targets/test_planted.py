import pytest
import torch
from torch import nn

from neuronx.errors import UserError
from neuronx.targets.planted import planted, sums_of
from neuronx.targets.target import Target


@pytest.fixture
def target():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4))
    return Target("net", module, nn.Identity(), {"0": "avg"}, input_size=6)


@pytest.mark.parametrize("layer", ["0", "3"])
def test_planted_units_are_sums_and_the_network_does_what_it_did(target, layer):
    mixes = sums_of(torch.tensor([[0, 2], [1, 1]]), torch.tensor([2.0, 4.0, 1.0, 1.0, 1.0][: 5 if layer == "0" else 4]))
    made = planted(target, layer, mixes)
    images = torch.randn(7, 3, 6, 6)
    assert list(made.layers) == [f"{layer}.planted"] and made.digest != target.digest
    with made.record([f"{layer}.planted"]) as found, target.record([layer]) as own:
        torch.testing.assert_close(made.module(images), target.module(images))
    fires = own[layer].clamp(min=0)
    torch.testing.assert_close(found[f"{layer}.planted"][:, 0], fires[:, 0] / 2 + fires[:, 2])
    torch.testing.assert_close(found[f"{layer}.planted"][:, 1], fires[:, 1] / 4)


def test_mistakes_are_told(target):
    with pytest.raises(UserError, match=r"\(M, 5\)"):
        planted(target, "0", torch.ones(2, 4))
    with pytest.raises(UserError, match="name"):
        planted(target, "", torch.ones(2, 4))
    with pytest.raises(UserError, match="no layer"):
        planted(target, "nowhere", torch.ones(2, 4))
