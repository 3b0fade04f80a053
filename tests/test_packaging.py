"""The wheel carries callbacks, configs and checkpoints inside `neuronx`, and runs anywhere."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


@pytest.mark.slow
def test_the_wheel_holds_everything_under_one_name(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"neuronx"}
    for part in ("configs/evaluate.yaml", "configs/explain/le_label.yaml", "callbacks/__init__.py", "py.typed"):
        assert f"neuronx/{part}" in names
    shipped = {path.name for path in (ROOT / "checkpoints").glob("*.safetensors")}
    assert {Path(name).name for name in names if name.endswith(".safetensors")} == shipped
    assert "neuronx/evaluate.py" not in names and "evaluate.py" not in names


@pytest.mark.slow
def test_the_wheel_runs_elsewhere(wheel, tmp_path):
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    code = (
        "import sys, neuronx; print(neuronx.__file__); from neuronx.command.cli import evaluate_main; evaluate_main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "show=data", f"hydra.run.dir={tmp_path / 'run'}"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site), "NEURONX_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(site)) and "shapes" in done.stdout
