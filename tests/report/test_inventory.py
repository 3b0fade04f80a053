"""The tables of `show=`."""

import pytest
from torch import nn

from neuronx.errors import UserError
from neuronx.report.inventory import layers
from neuronx.targets import custom


def test_layers_may_be_filtered_by_patterns():
    module = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()), nn.Flatten())
    target = custom.load(module, transform="none", layers=["0.1"], name="net")
    names = [line.split()[:2] for line in layers({"net": target}).splitlines()[2:] if line.strip()]
    assert [" ".join(name) for name in names] == ["(the network", "0 Sequential", "0.0 Conv2d", "* 0.1", "1 Flatten"]
    some = layers({"net": target}, ["0.*"])
    assert "0.0" in some and "* 0.1" in some and "Sequential" not in some and "Flatten" not in some
    assert "Flatten" in layers({"net": target}, ["0[?]", "?"])
    with pytest.raises(UserError, match=r"no layer of net like `blocks.\*`"):
        layers({"net": target}, ["blocks.*"])
