"""Networks in other forms: precisions, wrappers, compiled, quantised, several inputs; their own errors in one line."""

from pathlib import Path

import pytest
import torch
from torch import nn

import neuronx
from neuronx.errors import UserError
from neuronx.recording.record import record
from neuronx.recording.trainer import make
from neuronx.targets import custom
from neuronx.targets.calling import Fails, run

PICTURES = torch.randint(0, 256, (100, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def network(channels: int = 3) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    )


def values(module: nn.Module, layer: str = "1", pictures=PICTURES, transform="none"):
    probe = neuronx.probe_of(pictures)
    return record(custom.load(module, transform=transform, layers=[layer]), probe, make, store=False)[layer].values


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16, torch.float64])
def test_a_network_runs_in_its_own_precision(precision):
    expected = values(network())
    assert torch.allclose(values(network().to(precision)), expected, atol=0.02)
    assert torch.allclose(values(network().to(precision), pictures=PICTURES.to(precision) / 255), expected, atol=0.02)


def eager(module: nn.Module) -> nn.Module:
    return torch.compile(module, backend="eager")


def compiled_in_place() -> nn.Module:
    module = network()
    module.compile(backend="eager")
    return module


def partly_compiled() -> nn.Module:
    module = network()
    module[1] = eager(module[1])
    return module


@pytest.mark.parametrize(
    ("made", "layer"),
    [
        (lambda: nn.DataParallel(network()), "1"),
        (lambda: nn.DataParallel(network()), "module.1"),
        (lambda: eager(network()), "1"),
        (lambda: eager(network()), "_orig_mod.1"),
        (lambda: eager(nn.DataParallel(network())), "_orig_mod.module.1"),
        (compiled_in_place, "1"),
        (partly_compiled, "1"),
    ],
)
def test_a_wrapped_network_is_the_network(made, layer):
    target = custom.load(made(), transform="none", layers=[layer])
    assert list(target.layers) == ["1"] and target.canonical(layer) == "1"
    found = record(target, neuronx.probe_of(PICTURES), make, store=False)["1"].values
    assert torch.equal(found, values(network()))


def test_a_layer_may_be_called_as_the_wrappers_call_theirs():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.module = network()

        def forward(self, x):
            return self.module(x)

    assert torch.equal(values(Own(), "module.1"), values(network()))


@pytest.mark.parametrize(
    "compiled", [torch.jit.script, lambda module: torch.jit.trace(module, torch.rand(2, 3, 16, 16))]
)
def test_of_a_scripted_network_only_the_output_is_seen(compiled):
    module = network().eval()
    assert torch.allclose(values(compiled(module), ""), values(module, ""), atol=1e-6)
    assert next(row.name for row in custom.load(compiled(module), transform="none").layer_table()) == ""
    for whole in (compiled(module), nn.Sequential(compiled(module), nn.ReLU())):
        with pytest.raises(
            UserError, match=r"cannot be seen: torch.jit has compiled .* before torch.jit.script or trace"
        ):
            custom.load(whole, layers=["0"])
    mixed = nn.Sequential(compiled(module), nn.ReLU())
    assert torch.allclose(values(mixed), values(module, "").relu(), atol=1e-6), "beside a scripted part all is seen"


def test_lazy_layers_need_a_batch_first():
    def lazy():
        return nn.Sequential(nn.LazyConv2d(8, 3), nn.Flatten(), nn.LazyLinear(4))

    with pytest.raises(UserError, match=r"`0.weight` is lazy, .* run one batch through the network first"):
        custom.load(lazy(), layers=["0"])
    ready = lazy()
    ready(torch.rand(1, 3, 16, 16))
    assert values(ready, "0").shape == (100, 8)


def test_quantised_layers_are_recorded_and_their_weights_are_known():
    import torch.ao.quantization as quantization

    def quantised(scale: float) -> nn.Module:
        module = network()
        module[0].weight.data *= scale
        module = nn.Sequential(quantization.QuantStub(), *module[:2], quantization.DeQuantStub(), *module[2:]).eval()
        module.qconfig, module[6].qconfig = quantization.get_default_qconfig("fbgemm"), None
        quantization.prepare(module, inplace=True)
        module(torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0)))
        return quantization.convert(module, inplace=True)

    assert torch.allclose(values(quantised(1.0), "2"), values(network()), atol=0.05)
    target = custom.load(quantised(1.0), transform="none", layers=["2"])
    assert target.digest != custom.load(quantised(2.0), transform="none").digest
    assert target.digest == custom.load(quantised(1.0), transform="none").digest
    with pytest.raises(UserError, match="recorded, not replaced"), target.replace("2", 0, 0.0):
        run(target.module, PICTURES[:2] / 255)


def test_sparse_outputs_are_read():
    class Sparse(nn.Module):
        def forward(self, x):
            return x.mean((2, 3)).to_sparse()

    assert values(nn.Sequential(Sparse()), "0").shape == (100, 3)


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = network()

    def forward(self, picture, mask, *, scale=1):
        return self.net(picture * mask)


class ByName(Two):
    def forward(self, picture, *, mask):
        return self.net(picture * mask)


@pytest.mark.parametrize(
    ("module", "says"),
    [
        (Two(), "The forward of Two needs picture, mask, but is called with a picture alone"),
        (ByName(), "needs picture, mask"),
        (nn.ModuleList([network()]), "is a ModuleList, which has no forward"),
    ],
)
def test_what_cannot_be_called_with_a_picture_is_said_before_any_work(module, says):
    with pytest.raises(UserError, match=says):
        custom.load(module)


class Broken(nn.Module):
    def __init__(self, batch: int = 0):
        super().__init__()
        self.batch, self.net = batch, network()

    def forward(self, x):
        if len(x) != self.batch:
            raise ValueError("my network failed\non purpose")  # line of this file
        return self.net(x)


def test_an_exception_in_the_network_is_one_line_with_its_own_place():
    line = next(
        i
        for i, text in enumerate(Path(__file__).read_text().splitlines(), 1)
        if text.rstrip().endswith("# line of this file")
    )
    with pytest.raises(Fails) as failure:
        values(nn.Sequential(nn.Identity(), Broken()), "0")
    assert str(failure.value) == (
        "On inputs of shape (8, 3, 16, 16), layer `1` of Sequential raises: my network failed on purpose "
        f"(test_forms.py, line {line})."
    )


def test_an_error_of_a_hook_is_not_the_networks():
    target = custom.load(network(), transform="none", layers=["1"])

    def through(layer, output):
        return neuronx.metrics.correlation.nothing

    with pytest.raises(AttributeError), target.record(["1"], through):
        run(target.module, PICTURES[:2] / 255)


class Squeezes(nn.Module):
    """Its layer loses the axis of images where there is one."""

    def __init__(self):
        super().__init__()
        self.net, self.flat = network(), Flat()

    def forward(self, x):
        return self.net[4](self.flat(self.net[:3](x)))


class Flat(nn.Module):
    def forward(self, x):
        return x.squeeze()


@pytest.mark.parametrize("images", [100, 65, 2, 1])
def test_a_network_that_takes_no_single_image_is_given_two(images):
    found = record(
        custom.load(Squeezes(), transform="none", layers=["flat"]),
        neuronx.probe_of(PICTURES[:images]),
        make,
        batch_size=64,
        store=False,
    )["flat"].values
    assert torch.allclose(found, values(network(), "1")[:images], atol=1e-6)
    rows = {row.name: row.units for row in custom.load(Squeezes(), transform="none").layer_table()}
    assert rows["flat"] == 8


def test_dropout_and_batch_norm_are_in_eval_mode_and_the_weights_stay():
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Dropout(0.5)).train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    assert torch.equal(values(module, "2"), values(module, "1"))
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


class Shifts(nn.Module):
    def __init__(self):
        super().__init__()
        self.odd, self.calls = nn.Identity(), 0

    def forward(self, x):
        self.calls += 1
        return self.odd(x.mean((2, 3))[:, : 2 + (self.calls > 4)])


def test_a_layer_whose_number_of_units_changes_is_refused():
    with pytest.raises(UserError, match=r"Layer `odd` of Shifts puts out 2 units for some images, 3 for others"):
        record(custom.load(Shifts(), transform="none", layers=["odd"]), neuronx.probe_of(PICTURES), make, batch_size=25)


def test_units_of_a_network_in_double_precision_are_ablated_alike():
    def effects(precision):
        probe = neuronx.probe_of(PICTURES, labels=[i % 4 for i in range(100)])
        found = neuronx.study(network().to(precision), probe, layer="1", transform="none", units="0:2")
        found.explain("le_label")
        return [score.value for score in found.score(sim="ablation")]

    assert effects(torch.float64) == pytest.approx(effects(torch.float32), abs=1e-3)
