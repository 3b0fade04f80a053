import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


def found_by(script: str, batch_size: int, folder: Path) -> tuple[list, list, list]:
    """What a script finds on one process, and on each of two."""
    found = []
    for devices in (1, 2):
        out = folder / f"scores-{devices}.json"
        command = [sys.executable, str(Path(__file__).with_name(script)), str(devices), str(batch_size), str(out)]
        subprocess.run(command, check=True, timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1"})
        found += [json.loads(out.with_suffix(f".{rank}").read_text()) for rank in range(devices)]
    alone, first, second = found
    return alone, first, second


@pytest.mark.slow
def test_two_processes_find_the_same(tmp_path):
    """Each process goes through all numbers that are recorded already."""
    alone, first, second = found_by("two_processes.py", 16, tmp_path)
    assert first == second == alone
    assert len(alone) == 36 and {row[2] for row in alone} == {101}


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [16, 500])  # with 500 the second process has no images
def test_two_processes_find_the_same_ablation_scores_and_effects(tmp_path, batch_size):
    """31 test images, by a linear head and by the network's tail."""
    alone, first, second = found_by("two_processes_ablation.py", batch_size, tmp_path)
    assert first == second
    assert {row[2] for row in alone[:-2]} == {"avg", "avg, shift"}
    assert [row[1] for row in alone[-2:]] == ["tail", "linear"]
    for a, b in zip(alone, first, strict=True):
        assert a[:5] == b[:5]
        assert a[5:] == pytest.approx(b[5:], abs=1e-6, rel=1e-6)
