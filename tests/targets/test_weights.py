"""Weights come as plain tensors or not at all."""

import argparse
import datetime
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from neuronx.errors import UserError
from neuronx.targets.weights import environment, fill, hash_in, load_weights, plain_tensors_only, weights_file

STATE = {"weight": torch.arange(6.0).view(2, 3), "bias": torch.zeros(2)}


class Evil:
    def __reduce__(self):
        return (os.system, ("touch hacked",))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"state_dict": s, "epoch": 3},
        lambda s: {"model": {"state_dict": s}},
        lambda s: {f"module.{k}": v for k, v in s.items()},
        lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}, "best": 0.9},
    ],
)
def test_torch_files_in_every_wrapping(tmp_path, wrap):
    torch.save(wrap(STATE), tmp_path / "w.th")
    loaded = fill(nn.Linear(3, 2), tmp_path / "w.th")
    assert torch.equal(loaded.weight, STATE["weight"])


def test_safetensors(tmp_path):
    save_file(STATE, tmp_path / "w.safetensors")
    assert torch.equal(load_weights(tmp_path / "w.safetensors")["weight"], STATE["weight"])


def test_a_pickle_of_code_is_refused_and_does_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": STATE, "extra": Evil()}, "w.pt")
    with pytest.raises(UserError, match=r"w\.pt is a pickle that would run code"):
        load_weights("w.pt")
    assert not (tmp_path / "hacked").exists()


def test_a_module_that_was_saved_whole(tmp_path):
    whole = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Sequential(nn.Linear(2, 2)))
    torch.save({"model": whole, "epoch": 3}, tmp_path / "whole.pt")
    loaded = fill(
        nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Sequential(nn.Linear(2, 2))), tmp_path / "whole.pt"
    )
    for name, value in whole.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


def renamed(prefix, state):
    return {f"{prefix}{name}": value for name, value in state.items()}


AVERAGED = {name: value + 1 for name, value in STATE.items()}
TRAINERS = {
    "wrapped twice": renamed("module._orig_mod.", STATE),
    "a part was compiled": {"net": renamed("_orig_mod.module.", STATE), "acc": 93.1},
    "Lightning with a loss": {
        "state_dict": {**renamed("backbone.", STATE), "loss.weight": torch.ones(5)},
        "hyper_parameters": {"when": datetime.datetime.now(), "out": Path("/tmp"), "lr": np.float32(1)},
    },
    "an optimiser": {"optimizer": {"state": {0: renamed("", AVERAGED)}}, "network": STATE},
    "a loss beside": {"model": STATE, "loss": torch.tensor(0.1)},
    "numpy": {"weights": {name: value.numpy() for name, value in STATE.items()}},
    "arguments": {"args": argparse.Namespace(lr=0.1), "deep": {"er": {"params": STATE}}},
}


@pytest.mark.parametrize("content", TRAINERS.values(), ids=TRAINERS)
def test_checkpoints_as_trainers_write_them(tmp_path, content):
    torch.save(content, tmp_path / "w.ckpt")
    assert torch.equal(fill(nn.Linear(3, 2), tmp_path / "w.ckpt").weight, STATE["weight"])


AVERAGES = {
    "timm": ({"state_dict": STATE, "state_dict_ema": AVERAGED}, "taking state_dict_ema"),
    "model_ema": ({"model": STATE, "model_ema": AVERAGED}, "taking model_ema"),
    "Lightning": (
        {"state_dict": renamed("net.", STATE) | renamed("ema.module.", AVERAGED)},
        "taking state_dict.ema.mod",
    ),
}


@pytest.mark.parametrize(("content", "said"), AVERAGES.values(), ids=AVERAGES)
def test_an_average_is_taken_and_said_to_be(tmp_path, caplog, content, said):
    torch.save(content, tmp_path / "w.pt")
    assert torch.equal(fill(nn.Linear(3, 2), tmp_path / "w.pt").weight, AVERAGED["weight"])
    assert said in caplog.text


def test_two_networks_that_fit_alike_are_asked_about(tmp_path):
    torch.save({"netG": STATE, "netD": AVERAGED}, tmp_path / "w.pt")
    with pytest.raises(UserError, match="holds this network 2 times: netG, netD"):
        fill(nn.Linear(3, 2), tmp_path / "w.pt")
    torch.save({"netG": STATE, "netD": {"weight": torch.zeros(1)}}, tmp_path / "w.pt")
    assert torch.equal(fill(nn.Linear(3, 2), tmp_path / "w.pt").weight, STATE["weight"])


def test_networks_that_are_wrapped_themselves(tmp_path):
    torch.save(renamed("model.", STATE), tmp_path / "w.pt")
    assert torch.equal(fill(nn.DataParallel(nn.Linear(3, 2)), tmp_path / "w.pt").module.weight, STATE["weight"])
    assert torch.equal(fill(torch.compile(nn.Linear(3, 2)), tmp_path / "w.pt").weight, STATE["weight"])


def test_numbers_of_another_kind_are_refused(tmp_path):
    for kind in (torch.complex64, torch.int64):
        torch.save({name: value.to(kind) for name, value in STATE.items()}, tmp_path / "w.pt")
        with pytest.raises(UserError, match=r"weight is of (complex64|int64), not float32"):
            fill(nn.Linear(3, 2), tmp_path / "w.pt")


def test_a_state_dict_within_itself_ends(tmp_path):
    state = {}
    state["state_dict"] = state
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(UserError, match="holds no tensors"):
        load_weights(tmp_path / "w.pt")


def test_libraries_cannot_unpickle_code_either(tmp_path):
    torch.save(Evil(), tmp_path / "w.pt")
    with pytest.raises(Exception, match=r"[Ww]eights.only"), plain_tensors_only():
        torch.load(tmp_path / "w.pt", weights_only=False)
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ
    with pytest.raises(ValueError, match="x"), environment(HOME="/elsewhere"):
        raise ValueError("x")
    assert os.environ["HOME"] != "/elsewhere"


def test_files_that_hold_no_weights(tmp_path):
    (tmp_path / "text.pth").write_text("not a network")
    (tmp_path / "cut.safetensors").write_bytes(b"\x10")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save(STATE, tmp_path / "half.pth")
    (tmp_path / "half.pth").write_bytes((tmp_path / "half.pth").read_bytes()[:400])
    for name, message in [
        ("none.pth", "There is no weights file"),
        ("text.pth", "of another kind"),
        ("cut.safetensors", "cannot be read as weights"),
        ("half.pth", "is cut short"),
        ("list.pth", "no tensors by name"),
    ]:
        with pytest.raises(UserError, match=message):
            load_weights(tmp_path / name)


def test_weights_of_another_network_say_what_differs(tmp_path):
    save_file({"weight": torch.zeros(4, 3), "scale": torch.zeros(1)}, tmp_path / "w.safetensors")
    differ = r"bias is missing; scale is not a part of it; weight has shape \(4, 3\), not"
    with pytest.raises(UserError, match=rf"{differ}.*file's names: \w+, \w+; the network's: weight, bias"):
        fill(nn.Linear(3, 2), tmp_path / "w.safetensors")


def test_a_url_is_fetched_into_the_folder_of_data_and_its_hash_checked(monkeypatch, tmp_path):
    asked = {}

    def fetch(url, path, size=None, sha256=None, hint=""):
        asked.update(url=url, path=path, sha256=sha256)
        return path

    monkeypatch.setattr("neuronx.targets.weights.fetch", fetch)
    monkeypatch.setenv("NEURONX_DATA", str(tmp_path))
    path = weights_file("https://x.org/a/net-7d8c4031.pt?raw=true")
    assert path == tmp_path / "weights" / "net-7d8c4031.pt" and asked["sha256"] == "7d8c4031"
    assert hash_in("resnet18_places365.pth.tar") is None
    assert weights_file("~/w.pth").is_absolute()
