"""Several processes learn what one does, and a run that was killed ends as if it had not been."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).resolve()
pytestmark = pytest.mark.slow


def command(out, *arguments):
    out.mkdir()
    return [sys.executable, str(HERE.with_name("captioner_processes.py")), str(out), *map(str, arguments)]


def environment(tmp_path):
    return os.environ | {"NEURONX_CACHE": str(tmp_path / "store"), "PYTHONPATH": str(HERE.parents[4])}


def run(tmp_path, name, *arguments):
    subprocess.run(command(tmp_path / name, *arguments), check=True, env=environment(tmp_path), timeout=600)
    return tmp_path / name


def test_two_processes_have_the_losses_of_one(tmp_path):
    one, two = run(tmp_path, "one", 1, 4, "same"), run(tmp_path, "two", 2, 4)
    curves = [json.loads((folder / "curve.json").read_text()) for folder in (one, two)]
    assert len(curves[0]) == len(curves[1]) == 8
    for alone, together in zip(*curves, strict=True):
        assert alone == pytest.approx(together, abs=1e-5)
    weights = [torch.load(folder / "weights.pt", weights_only=True) for folder in (one, two)]
    for name, value in weights[0].items():
        if name == "decoder.attention.bias":  # the softmax does not see it, and its gradient is rounding
            continue
        torch.testing.assert_close(value, weights[1][name], atol=1e-3, rtol=1e-3)


def test_a_killed_run_ends_as_if_it_had_not_been(tmp_path):
    whole = run(tmp_path, "whole", 1, 30)
    process = subprocess.Popen(command(tmp_path / "killed", 1, 30), env=environment(tmp_path))
    written = tmp_path / "killed" / "decoder.ckpt"
    until = time.monotonic() + 300
    while not written.exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert written.exists() and not (tmp_path / "killed" / "curve.json").exists()
    again = run(tmp_path, "again", 1, 30, tmp_path / "killed" / "decoder.ckpt")
    weights = [torch.load(folder / "weights.pt", weights_only=True) for folder in (whole, again)]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
