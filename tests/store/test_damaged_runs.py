"""Everything that a run keeps is damaged: the next run notices, says so, makes it anew and prints the same."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WORDS = ["target=shapes_resnet", "layers=layer4", "units=0:6", "data.size=200", "logger=[csv]", "trainer=cpu",
         "explain=[le_clip,net_dissect,compositional,milan,pure]", "sim=[correlation]"]  # fmt: skip


def evaluate(folder: Path, name: str) -> tuple[bytes, str]:
    environment = os.environ | {"NEURONX_CACHE": str(folder / "store"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, ROOT / "evaluate.py", *WORDS, f"hydra.run.dir={folder / name}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    return (folder / name / "scores.csv").read_bytes(), done.stdout + done.stderr


def damage(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    if how == "flipped":
        data[middle : middle + 64] = bytes(byte ^ 0x5A for byte in data[middle : middle + 64])
    path.write_bytes(data if how == "flipped" else data[: middle if how == "cut" else 0])


@pytest.mark.slow
def test_whatever_is_damaged_is_made_anew(tmp_path):
    want, _ = evaluate(tmp_path, "whole")
    entries = [folder for folder in (tmp_path / "store").glob("*/*") if folder.is_dir()]
    assert {folder.parent.name for folder in entries} >= {
        "recordings", "exemplars", "texts", "tallies", "formulas", "milan-features", "milan-captions", "circuits",
        "circuit-features",
    }  # fmt: skip
    for how, manifests in (("cut", False), ("flipped", False), ("emptied", False), ("emptied", True)):
        damaged = [
            path
            for folder in entries
            for path in folder.iterdir()
            if (path.name == "manifest.json") == manifests and path.stat().st_size
        ]
        for path in damaged:
            damage(path, how)
        found, said = evaluate(tmp_path, f"{how}-{manifests}")
        assert found == want, (how, manifests)
        assert said.count("is damaged, and is made anew") >= len(entries) // 2
    assert not list((tmp_path / "store").rglob("*@*"))
