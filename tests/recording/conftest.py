"""The small network and pictures that the tests of recording share."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def job():
    """The module that also runs as a process of its own."""
    spec = importlib.util.spec_from_file_location("recording_job", Path(__file__).with_name("job.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def run():
    """Starts the module as a process of its own that keeps its store in a folder; its output can be read."""

    def start(store: Path, *arguments: str) -> subprocess.Popen:
        environment = os.environ | {"NEURONX_CACHE": str(store), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, Path(__file__).with_name("job.py"), *arguments]
        return subprocess.Popen(command, env=environment, stdout=-1, stderr=-3, text=True)

    return start


@pytest.fixture(scope="session")
def files():
    """All files of a folder, by name."""

    def read(store: Path) -> dict[str, bytes]:
        paths = [path for path in sorted(store.rglob("*")) if path.is_file() and not path.name.startswith(".")]
        return {str(path.relative_to(store)): path.read_bytes() for path in paths}

    return read


@pytest.fixture(scope="module")
def eager():
    """Makes tallies look for a higher floor at every chance."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("neuronx.recording.tally.SLACK", 0)
        yield patch
