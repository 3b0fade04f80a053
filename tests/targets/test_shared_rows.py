"""Equal rows share the forward pass, a unit's own map one kernel; values and gradients stay what they are."""

import pytest
import torch
from circuit_cases import Small, settled
from torch import nn

from neuronx.targets.replay import wrapped
from neuronx.targets.segment import sharing

AT = torch.tensor([1, 4, 1, 1, 0])


@pytest.mark.parametrize("one_channel", [True, False])
@pytest.mark.parametrize(
    "last",
    [
        lambda: nn.Conv2d(8, 6, 3, 2, 1),
        lambda: nn.Conv2d(8, 6, (3, 1), padding=2, dilation=2, bias=False),
        lambda: nn.Conv2d(8, 6, 1, groups=2),
        lambda: nn.Conv2d(8, 6, 3, padding="same"),
        lambda: nn.Sequential(nn.Flatten(2), nn.Linear(49, 6)),
    ],
)
def test_values_and_gradients_are_those_of_plain_operations(last, one_channel):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(inplace=True), last())
    images = torch.randn(5, 3, 9, 9)[AT]
    ran = []
    network[0].register_forward_hook(lambda _, __, output: ran.append(len(output)))
    found = []
    for wrapper in (lambda _, forward: forward, sharing(AT)):
        x = images.clone().requires_grad_()
        with wrapped(network, wrapper):
            y = network(x)
        weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
        if one_channel:
            weights *= nn.functional.one_hot(torch.arange(5) % y.shape[1], y.shape[1]).view(5, -1, *[1] * (y.ndim - 2))
        found.append((y.detach(), torch.autograd.grad(y, x, weights)[0]))
    for plain, shared in zip(*found, strict=True):
        assert torch.allclose(plain, shared, atol=1e-6)


def test_each_image_goes_forward_once():
    network, sizes = settled(Small()), []
    forward = nn.Conv2d.forward

    class Counted:
        def __call__(self, module, own):
            def run(x):
                sizes.append(len(x))
                return own(x)

            return run if type(module) is nn.Conv2d else own

    with wrapped(network, Counted()), wrapped(network, sharing(AT)):
        network(torch.randn(5, 3, 8, 8)[AT].requires_grad_())
    assert nn.Conv2d.forward is forward and set(sizes) == {3}
