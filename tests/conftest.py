"""Fixtures that every room shares."""

from pathlib import Path

import pytest
import torch

import neuronx.configs  # noqa: F401  lets Hydra find the choices that have no file

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Small tensors: a second thread costs more than it brings."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Every test has an empty store of its own."""
    monkeypatch.setenv("NEURONX_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("NEURONX_DATA", raising=False)
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data beside the checkout; tests that need it skip where it is absent."""
    folder = ROOT.parent / "shared"
    if not (folder / "data").is_dir():
        pytest.skip("the real data (../shared/data) is not on this machine")
    return folder


@pytest.fixture(scope="session")
def trainer():
    """A trainer factory as the command line makes it, quiet and on the CPU."""
    from functools import partial

    from neuronx.recording.trainer import make

    return partial(make, accelerator="cpu", enable_progress_bar=False)
