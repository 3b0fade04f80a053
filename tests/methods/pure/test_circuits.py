"""Circuit vectors: the published ones exactly, made once, for any pairs in any order."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from circuit_cases import Pictures, settled, small_target, untouched
from oracles_pure_circuits import of_crp, relevance
from torch import nn

from neuronx.errors import UserError
from neuronx.methods.pure import circuits
from neuronx.methods.pure.circuits import circuit_vectors
from neuronx.methods.pure.gradient import Gradient
from neuronx.targets.target import Target

ROWS, UNITS = torch.tensor([4, 0, 1, 1, 6, 5, 0, 4]), torch.tensor([3, 1, 4, 9, 2, 0, 0, 3])


@pytest.mark.parametrize("positions", ["activation", "peak", "one"])
def test_vectors_are_gradient_times_activation(trainer, positions):
    target, probe = small_target(), Pictures()
    found = circuit_vectors(target, probe, trainer, "stage2", ROWS, UNITS, positions=positions, norm=False)
    assert found.lower == "stage1" and found.vectors.shape == (8, 8) and found.vectors.dtype == torch.float32
    for row, unit, vector in zip(ROWS, UNITS, found.vectors, strict=True):
        expected = relevance(target.module, "stage1", "stage2", probe.images[row], int(unit), positions)
        assert torch.allclose(vector, expected, atol=1e-6, rtol=1e-5)
    assert untouched(target.module)


def test_absolute_values_sum_to_one_or_the_unit_does_not_fire(trainer):
    target, probe = small_target(), Pictures()
    target.module.stage2[1].conv2.weight.data[3] = 0
    target.module.stage2[1].down[0].weight.data[3] = 0
    target.module.stage2[1].bn2.bias.data[3] = -9
    dead = Target("dead", target.module, target.transform, {"stage2": "avg"}, input_size=16)
    found = circuit_vectors(dead, probe, trainer, "stage2", ROWS, UNITS).vectors
    sums = found.abs().sum(1)
    with dead.record(["stage2"]) as outputs:
        dead.module(probe.images)
    fires = outputs["stage2"].amax((2, 3))[ROWS, UNITS] > 0
    assert not fires[UNITS == 3].any() and fires.sum() >= 4
    assert torch.allclose(sums, fires.float())
    raw = circuit_vectors(dead, probe, trainer, "stage2", ROWS, UNITS, norm=False).vectors
    assert torch.allclose(found, raw / (raw.abs().sum(1, keepdim=True) + 1e-10))


@pytest.mark.parametrize(
    ("make", "lower", "layer"),
    [
        (lambda: torchvision.models.squeezenet1_1(num_classes=5), "features.6", "features.9.expand3x3"),
        (
            lambda: torchvision.models.VisionTransformer(32, 8, 2, 2, 32, 64, num_classes=5),
            None,
            "encoder.layers.encoder_layer_1",
        ),
        (lambda: torchvision.models.resnet18(num_classes=5), None, "fc"),
        (lambda: torchvision.models.resnet18(num_classes=5), "layer2.0.bn2", "layer3.0"),
    ],
)
def test_any_pair_of_layers_of_any_network(trainer, make, lower, layer):
    torch.manual_seed(0)
    target = Target("network", settled(make()), nn.Identity(), {layer: "avg"}, input_size=32)
    probe = Pictures(3, 32)
    rows, units = torch.tensor([2, 0, 0]), torch.tensor([1, 1, 4])
    found = circuit_vectors(target, probe, trainer, layer, rows, units, lower=lower, norm=False)
    for row, unit, vector in zip(rows, units, found.vectors, strict=True):
        expected = relevance(target.module, found.lower, layer, probe.images[row], int(unit))
        assert torch.allclose(vector, expected, atol=1e-6, rtol=1e-4)


def test_batches_do_not_matter(trainer, tmp_path, monkeypatch):
    found = []
    for size in (1, 3, 100):
        monkeypatch.setenv("NEURONX_CACHE", str(tmp_path / str(size)))
        probe = Pictures(batch_size=size)
        found.append(circuit_vectors(small_target(), probe, trainer, "stage2", ROWS, UNITS, batch_size=size).vectors)
    assert torch.allclose(found[0], found[1], atol=1e-6) and torch.allclose(found[0], found[2], atol=1e-6)


def test_what_was_made_is_not_made_again(trainer, monkeypatch):
    target, probe, ran = small_target(), Pictures(), []
    whole = circuit_vectors(target, probe, trainer, "stage2", ROWS, UNITS).vectors
    assert sorted(set(probe.loaded)) == [0, 1, 4, 5, 6]
    probe.loaded.clear()
    monkeypatch.setattr(target.module, "forward", lambda *_: ran.append(1))
    order = torch.tensor([7, 2, 2, 0])
    some = circuit_vectors(target, probe, trainer, "stage2", ROWS[order], UNITS[order], lower="stage1").vectors
    assert torch.equal(some, whole[order]) and not ran and not probe.loaded


def test_features_serve_other_units_rules_and_positions(trainer):
    target, probe, ran = small_target(), Pictures(), []
    circuit_vectors(target, probe, trainer, "stage2", ROWS, UNITS)
    probe.loaded.clear()
    target.module.stem.register_forward_hook(lambda *_: ran.append(1))
    circuit_vectors(target, probe, trainer, "stage2", ROWS, UNITS + 0, positions="one")
    # Two images are looked at to see what the segment reads; none goes through the stem for the pass itself.
    assert probe.loaded == [0, 1]


def test_it_goes_on_where_it_broke_off(trainer, monkeypatch):
    target, probe, made = small_target(), Pictures(batch_size=1), []
    whole = circuit_vectors(target, Pictures(seed=0), trainer, "stage2", ROWS, UNITS, positions="one").vectors
    right = Gradient.relevance

    def breaks(self, features, at, units):
        made.append(len(units))
        if sum(made) > 4:
            raise KeyboardInterrupt
        return right(self, features, at, units)

    monkeypatch.setattr(circuits, "BLOCK", 1)
    monkeypatch.setattr(Gradient, "relevance", breaks)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        circuit_vectors(target, probe, trainer, "stage2", ROWS, UNITS)
    assert untouched(target.module)
    again = []
    monkeypatch.setattr(Gradient, "relevance", lambda *a: again.append(len(a[3])) or right(*a))
    resumed = circuit_vectors(target, probe, trainer, "stage2", ROWS, UNITS).vectors
    assert 0 < sum(again) < 7 and resumed.shape == whole.shape
    for row, unit, vector in zip(ROWS, UNITS, resumed, strict=True):
        expected = relevance(target.module, "stage1", "stage2", probe.images[row], int(unit))
        assert torch.allclose(vector, expected / (expected.abs().sum() + 1e-10), atol=1e-6)


def test_damaged_files_are_made_again(trainer, own_cache):
    target, probe = small_target(), Pictures()
    whole = circuit_vectors(target, probe, trainer, "stage2", ROWS, UNITS).vectors
    for path in own_cache.rglob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:-100])
    assert torch.equal(circuit_vectors(target, probe, trainer, "stage2", ROWS, UNITS).vectors, whole)


def test_no_pair_gives_no_vector(trainer):
    none = torch.empty(0, dtype=torch.int64)
    assert circuit_vectors(small_target(), Pictures(), trainer, "stage2", none, none).vectors.shape == (0, 8)


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        ({"layer": "stem.0"}, "first layer"),
        ({"layer": "stage9"}, "no layer of small `stage9`"),
        ({"lower": "stage2"}, "does not run before"),
        ({"layer": "stage1", "lower": "stage2"}, "does not run before"),
        ({"layer": "stage2.0.down", "lower": "stage2.0.conv2"}, "No path leads from layer `stage2.0.conv2`"),
        ({"rows": ROWS + 1}, "rows 1 to 7"),
        ({"units": UNITS + 1}, "no unit 10: layer `stage2` has units 0 to 9"),
        ({"units": UNITS - 1}, "no unit -1"),
        ({"units": UNITS[1:]}, "Pairs are given by rows"),
        ({"rule": "lpr"}, "no rule `lpr`. Nearest: lrp"),
        ({"positions": "peek"}, "no choice of positions `peek`. Nearest: peak"),
    ],
)
def test_bad_input(trainer, options, wrong):
    target = small_target()
    given = {"layer": "stage2", "rows": ROWS, "units": UNITS} | options
    with pytest.raises(UserError, match=wrong):
        circuit_vectors(target, Pictures(), trainer, given.pop("layer"), given.pop("rows"), given.pop("units"), **given)
    assert untouched(target.module)


class Overwrites(nn.Module):
    """A sigmoid needs its output for gradients, and loses it."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)

    def forward(self, x):
        y = self.one(x).sigmoid()
        y += 1
        return self.two(y)


def test_operations_in_place_that_break_gradients_are_named(trainer):
    target = Target("overwrites", Overwrites(), nn.Identity(), {"two": "avg"}, input_size=16)
    with pytest.raises(UserError, match="in place overwrites"):
        circuit_vectors(target, Pictures(), trainer, "two", ROWS, UNITS % 4, lower="one")
    assert untouched(target.module)


def test_values_that_are_not_finite_are_named(trainer):
    target = small_target()
    target.module.stage2[1].bn2.weight.data[4] = torch.inf
    broken = Target("broken", target.module, nn.Identity(), {"stage2": "avg"}, input_size=16)
    with pytest.raises(UserError, match=r"unit \d of `stage2`.*NaN or infinite"):
        circuit_vectors(broken, Pictures(), trainer, "stage2", ROWS, UNITS)


@pytest.mark.parametrize("name", ["torchvision resnet18", pytest.param("timm resnet34", marks=pytest.mark.slow)])
def test_vectors_are_those_of_zennit_crp(trainer, name):
    pytest.importorskip("crp", reason="zennit-crp is not installed (pip install neuronx[pure])")
    torch.manual_seed(0)
    network = torchvision.models.resnet18() if "18" in name else timm.create_model("resnet34")
    target = Target(name, settled(network), nn.Identity(), {"layer3": "avg", "layer4": "avg"}, input_size=64)
    probe = Pictures(4, 64)
    rows, units = torch.tensor([0, 3, 3, 1, 2]), torch.tensor([7, 7, 500, 311, 5])
    found = circuit_vectors(target, probe, trainer, "layer4", rows, units)
    assert found.lower == "layer3" and found.vectors.abs().max() > 0.01
    expected = of_crp(network, "layer3", "layer4", probe.images[rows], units)
    assert (found.vectors - expected).abs().max() < 1e-5


def started(folder: Path, devices: int) -> subprocess.Popen:
    environment = os.environ | {"NEURONX_CACHE": str(folder / f"cache-{devices}"), "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable,
        Path(__file__).parents[2] / "circuit_processes.py",
        str(devices),
        str(folder / f"{devices}"),
    ]
    return subprocess.Popen(command, env=environment)


@pytest.mark.slow
def test_two_processes_make_the_same(tmp_path):
    assert [started(tmp_path, devices).wait(300) for devices in (1, 2)] == [0, 0]
    alone, first, second = (json.loads((tmp_path / name).read_text()) for name in ("1.0", "2.0", "2.1"))
    assert first == second and torch.allclose(torch.tensor(first), torch.tensor(alone), atol=1e-6)


@pytest.mark.slow
def test_a_process_that_is_asked_to_stop_leaves_what_it_made(tmp_path):
    process = started(tmp_path, 1)
    start = time.monotonic()
    while not list(tmp_path.rglob("image-*")) and time.monotonic() - start < 100:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert started(tmp_path, 1).wait(300) == 0
    assert len(json.loads((tmp_path / "1.0").read_text())) == 20 * 10
