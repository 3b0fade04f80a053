"""The main job as a user runs it: whole commands in processes of their own, on a small embedded world."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SMALL = ["target=shapes_resnet", "layers=layer4", "data.size=600", "data.batch_size=50", "logger=csv"]


def command(*arguments: str, folder: Path) -> list[str]:
    return [sys.executable, str(ROOT / "evaluate.py"), *arguments, f"hydra.run.dir={folder}"]


def environment(cache: Path) -> dict[str, str]:
    return {**os.environ, "NEURONX_CACHE": str(cache), "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"}


def evaluate(*arguments: str, folder: Path, cache: Path) -> list[dict[str, str]]:
    """Runs the command and returns its leaderboard."""
    done = subprocess.run(
        command(*arguments, folder=folder), env=environment(cache), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return rows(folder / "leaderboard.csv")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def means(board: list[dict[str, str]]) -> dict[str, float]:
    return {row["method"]: float(row["mean"]) for row in board}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> tuple[Path, Path]:
    """The folder of a plain run, and its cache."""
    folder, cache = tmp_path_factory.mktemp("run"), tmp_path_factory.mktemp("cache")
    evaluate(*SMALL, folder=folder, cache=cache)
    return folder, cache


@pytest.mark.slow
def test_the_leaderboard_has_methods_floors_and_a_ceiling(undisturbed):
    found = means(rows(undisturbed[0] / "leaderboard.csv"))
    methods = ("le_label", "le_clip", "clip_dissect", "net_dissect", "milan")
    assert set(found) == {"ceiling", *methods, *(f"{floor}-{m}" for m in methods for floor in ("shuffled", "random"))}
    for method in methods:
        assert found["ceiling"] > found[method] > found[f"shuffled-{method}"] + 0.05
    for name in ("scores.csv", "comparisons.csv", "scores.html", "config.yaml", "run.json"):
        assert (undisturbed[0] / name).is_file()
    assert len(rows(undisturbed[0] / "explanations" / "shapes_resnet_layer4_le_clip.csv")) == len(
        {row["unit"] for row in rows(undisturbed[0] / "scores.csv")}
    )


# The command, which here saves after every batch, and counts the pictures that it looks at.
WATCHED = """
import os, sys
from neuronx.command.cli import evaluate_main
from neuronx.recording import forward_pass
from neuronx.world.pictures.probe import ShapesProbe

assert forward_pass.SAVE_SECONDS > 0
forward_pass.SAVE_SECONDS = 0.0
load = ShapesProbe.load

def counted(self, rows):
    with open(os.environ["LOADED"], "a") as file:
        print(len(rows), file=file)
    return load(self, rows)

ShapesProbe.load = counted
evaluate_main()
"""


def watched(folder: Path, cache: Path) -> subprocess.Popen:
    arguments = [sys.executable, "-c", WATCHED, *SMALL, f"hydra.run.dir={folder}"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(arguments, env=environment(cache) | {"LOADED": f"{folder}.loaded"}, cwd=ROOT, **quiet)


def loaded(folder: Path) -> int:
    """How many pictures a watched run looked at."""
    return sum(map(int, Path(f"{folder}.loaded").read_text().split()))


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_resumes_to_the_same_bytes(undisturbed, tmp_path):
    whole, cache = tmp_path / "whole", tmp_path / "cache"
    assert watched(whole, tmp_path / "other").wait(timeout=500) == 0
    kept: dict[Path, int] = {}
    for number, (kind, files) in enumerate((("recordings", 3), ("exemplars", 2), ("milan-features", 1))):
        running = watched(tmp_path / f"killed-{number}", cache)
        while len([path for path in cache.glob(f"{kind}/*/*") if "shard" in path.name or kind != "recordings"]) < files:
            assert running.poll() is None, f"the run was over before {kind} had {files} files"
            time.sleep(0.01)
        running.send_signal(signal.SIGKILL)
        running.wait()
        assert not (tmp_path / f"killed-{number}" / "scores.csv").exists()
        published = {path: path.stat().st_mtime_ns for path in cache.rglob("manifest.json")}
        assert kept.items() <= published.items(), "what was finished before is not made again"
        assert number == 0 or published, "later moments find finished entries"
        kept = published
    resumed = tmp_path / "resumed"
    assert watched(resumed, cache).wait(timeout=500) == 0
    assert kept.items() <= {path: path.stat().st_mtime_ns for path in cache.rglob("manifest.json")}.items()
    for name in ("scores.csv", "leaderboard.csv", "comparisons.csv"):
        for other in (undisturbed[0], whole):
            assert (resumed / name).read_bytes() == (other / name).read_bytes()
    looked = [loaded(folder) for folder in (*(tmp_path / f"killed-{number}" for number in range(3)), resumed)]
    assert sum(looked) < 1.2 * loaded(whole), f"each run goes on where the last was killed: {looked}, {loaded(whole)}"


@pytest.mark.slow
def test_a_terminated_run_ends_promptly(tmp_path):
    running = subprocess.Popen(
        command(*SMALL, "data.size=60000", folder=tmp_path / "run"),
        env=environment(tmp_path / "cache"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    time.sleep(25)
    assert running.poll() is None
    running.terminate()
    assert running.wait(timeout=20) != 0


@pytest.mark.slow
def test_two_processes_find_what_one_finds(undisturbed, tmp_path):
    ddp = ["trainer.devices=2", "trainer.strategy=ddp", "trainer.accelerator=cpu"]
    evaluate(*SMALL, *ddp, folder=tmp_path / "two", cache=tmp_path / "cache")
    one, two = rows(undisturbed[0] / "scores.csv"), rows(tmp_path / "two" / "scores.csv")
    assert len(one) == len(two)
    for a, b in zip(one, two, strict=True):
        assert {k: v for k, v in a.items() if k not in ("value", "sem")} == {
            k: v for k, v in b.items() if k not in ("value", "sem")
        }
        assert float(a["value"] or 0) == pytest.approx(float(b["value"] or 0), abs=1e-10)


@pytest.mark.slow
def test_half_precision_stays_close(undisturbed, tmp_path):
    found = means(evaluate(*SMALL, "trainer.precision=bf16-mixed", folder=tmp_path / "run", cache=tmp_path / "cache"))
    exact = means(rows(undisturbed[0] / "leaderboard.csv"))
    for method in ("ceiling", "le_label", "le_clip", "clip_dissect", "net_dissect"):
        assert found[method] == pytest.approx(exact[method], abs=0.005)


@pytest.mark.slow
def test_written_explanations_can_be_scored_again(undisturbed, tmp_path):
    folder, cache = undisturbed
    again = evaluate(*SMALL, f"explanations={folder / 'explanations'}", folder=tmp_path / "again", cache=cache)
    before = means(rows(folder / "leaderboard.csv"))
    for method in ("le_label", "le_clip", "clip_dissect", "net_dissect", "milan"):
        assert means(again)[method] == pytest.approx(before[method], abs=1e-9)


@pytest.mark.slow
def test_two_judges_and_chosen_units(undisturbed, tmp_path):
    board = evaluate(*SMALL, "units=0:8", "judge=[shapes_judge,labels]", folder=tmp_path / "run", cache=undisturbed[1])
    assert {row["judge"] for row in board} == {"shapes_judge", "labels"}
    parts = ("n_units", "n_unjudged", "n_inactive", "n_untested")
    assert all(sum(int(row[part]) for part in parts) == 8 for row in board)
