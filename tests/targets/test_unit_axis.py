"""Which axis of an output counts the units: known of modules, else told by what the network itself receives."""

import pytest
import torch
from torch import nn

from neuronx.errors import UserError
from neuronx.targets.layers import input_sides, unit_axis
from neuronx.targets.preprocess import Preprocess
from neuronx.targets.target import Target

ANY = nn.Identity()


@pytest.mark.parametrize(
    ("shape", "sides", "axis"),
    [
        ((192, 7, 7), (224, 224), 1),
        ((7, 7, 192), (224, 224), 3),
        ((7, 7, 7), (224, 224), 1),
        ((8, 8, 7), (32, 32), 3),
        ((7, 10, 192), (224, 320), 3),
        ((192, 7, 10), (224, 320), 1),
        ((7, 7, 10), (224, 320), 1),  # seven channels
        ((7, 10, 10), (224, 320), 3),  # ten
        ((10, 7, 192), (300, 200), 3),  # rounded sides
        ((6, 8, 10), (225, 320), 1),
        ((8, 8, 5), (8, 5), 1),
        ((16, 16, 1), None, 1),
    ],
)
def test_maps_have_the_proportions_of_the_input(shape, sides, axis):
    assert unit_axis(torch.zeros(2, *shape), ANY, "x", sides=sides) == axis


@pytest.mark.parametrize(
    ("part", "shape", "axis"),
    [
        (nn.Conv2d(3, 5, 1), (8, 8, 5), 1),
        (nn.MaxPool2d(2), (8, 8, 5), 1),
        (nn.BatchNorm2d(8), (8, 8, 5), 1),
        (nn.Linear(5, 5), (5, 8, 8), 3),
        (nn.LayerNorm(8), (5, 8, 8), 3),
        (nn.AdaptiveAvgPool1d(1), (8, 1), 1),
        (nn.Conv1d(3, 8, 1), (8, 32), 1),
        (nn.Linear(3, 8), (8, 8), 2),
        (ANY, (8, 32), 2),
    ],
)
@pytest.mark.parametrize("channels", ["auto", "first", "last"])
def test_a_module_that_tells_is_believed(part, shape, axis, channels):
    if part is ANY and channels != "auto":
        pytest.skip("what is said counts where nothing tells")
    assert unit_axis(torch.zeros(2, *shape), part, "x", channels, (64, 64)) == axis


def test_what_a_network_received_is_found_among_its_inputs():
    assert input_sides(((torch.zeros(2, 3, 8, 5),), {})) == (8, 5)
    assert input_sides(((), {"pixels": torch.zeros(2, 8, 5, 3)})) == (8, 5), "channels last"
    assert input_sides(((torch.zeros(2, 9),), {})) is None


class Rows(nn.Module):
    """Pictures as rows through convolutions in one dimension, then as tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.Sequential(nn.Conv1d(24, 6, 3, padding=1), nn.ReLU(), nn.MaxPool1d(2))
        self.tokens = nn.Sequential(nn.Linear(6, 5), nn.GELU())
        self.lost = nn.Upsample(scale_factor=1.5)
        self.head = nn.Linear(5, 4)

    def forward(self, x):
        tokens = self.tokens(self.rows(x.flatten(1, 2)).transpose(1, 2))
        self.lost(tokens[..., :4])
        return self.head(tokens.mean(1))


IMAGES = torch.rand(2, 3, 8, 16)


@pytest.mark.parametrize(
    ("layer", "units"),
    [("rows.0", 6), ("rows.1", 6), ("rows.2", 6), ("rows", 6), ("tokens.0", 5), ("tokens.1", 5), ("tokens", 5)],
)
def test_rows_and_tokens_of_one_network(layer, units):
    target = Target("rows", Rows(), Preprocess(), {layer: "avg"})
    with torch.no_grad(), target.record([layer]) as found, target.replace(layer, units - 1, 7.0):
        target.module(IMAGES)
        assert found[layer].shape[2] == units
    with torch.no_grad(), target.replace(layer, units - 1, 7.0), target.record([layer]) as found:
        target.module(IMAGES)
    assert (found[layer][..., -1] == 7).all() and not (found[layer][..., 0] == 7).any()


def test_what_cannot_be_told_is_asked():
    target = Target("rows", Rows(), Preprocess(), {"lost": "avg"})
    says = "cannot be told; set channels=first or channels=last"
    with torch.no_grad(), pytest.raises(UserError, match=says), target.record(["lost"]):
        target.module(IMAGES)
    last = Target("rows", Rows(), Preprocess(), {"lost": "avg"}, channels="last")
    with torch.no_grad(), last.record(["lost"]) as found:
        last.module(IMAGES)
    assert found["lost"].shape == (2, 8, 6)
