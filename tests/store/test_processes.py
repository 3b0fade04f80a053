"""Runs that are killed, and processes of a run that are lost: whoever comes later finds what is right."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from neuronx.store import processes

JOB = Path(__file__).with_name("store_job.py")
SUM = 66 * 1000


def job(store: Path, *words: str) -> subprocess.Popen:
    environment = os.environ | {"NEURONX_CACHE": str(store), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(JOB.parents[2])}
    return subprocess.Popen([sys.executable, JOB, *words], env=environment, stdout=-1, stderr=-1, text=True)


def until(true, seconds: float = 60) -> None:
    start = time.monotonic()
    while not true():
        assert time.monotonic() - start < seconds
        time.sleep(0.05)


def alive(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_alone_on_first_is_a_call():
    assert processes.on_first(lambda: 3) == 3 and processes.is_first()


def test_whether_a_process_has_ended_is_known_on_its_own_machine_only():
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    machine, number, born = processes.process().split("-")
    assert int(number) == os.getpid()
    assert not processes.is_over(f"x@{machine}-{number}-{born}.00.bin")
    assert processes.is_over(f"x@{machine}-{ended.pid}-{born}.00.bin")
    assert not processes.is_over(f"x@0000ffff-{ended.pid}-{born}.00.bin")


def test_kill_9_and_the_next_run_goes_on_and_sweeps(tmp_path):
    killed = job(tmp_path, "each", "1", str(tmp_path), "0.3")
    until(lambda: len(list(tmp_path.rglob("block-*"))) >= 4)
    killed.kill()
    killed.wait()
    assert not list(tmp_path.rglob("manifest.json"))
    (entry,) = tmp_path.glob("numbers/*")
    (entry / f".block-11.bin@{processes.process().split('-')[0]}-{killed.pid}-0123.tmp").write_bytes(b"half")
    again = job(tmp_path, "each", "1", str(tmp_path))
    assert (again.communicate(timeout=60)[0], again.returncode) == (f"{SUM}\n", 0)
    names = sorted(path.name.split(".")[0] for path in entry.iterdir())
    assert names == ["manifest", "tensors"], "what the killed run has left is gone"


def test_runs_at_once_share_a_store(tmp_path):
    runs = [job(tmp_path, "each", "1", str(tmp_path), seconds) for seconds in ("0.05", "0.07", "0.02")]
    assert [(run.communicate(timeout=90)[0], run.returncode) for run in runs] == [(f"{SUM}\n", 0)] * 3
    assert len(list(tmp_path.rglob("*@*"))) == 0


@pytest.mark.slow
def test_two_processes_share_the_work(tmp_path):
    run = job(tmp_path, "each", "2", str(tmp_path))
    assert run.communicate(timeout=120)[0].split() == [str(SUM)] * 2 and not run.returncode


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "rank", "seconds"), [(signal.SIGTERM, 0, ()), (signal.SIGKILL, 0, ("1",)), (signal.SIGKILL, 1, ("1",))]
)
def test_a_lost_process_ends_all(tmp_path, how, rank, seconds):
    run = job(tmp_path / "store", "wait", "2", str(tmp_path), *seconds)
    until(lambda: len(list(tmp_path.glob("*-*"))) == 2)
    numbers = {int(name) % 10: int(number) for name, number in (path.name.split("-") for path in tmp_path.glob("*-*"))}
    time.sleep(2)
    os.kill(numbers[rank], how)
    start = time.monotonic()
    try:
        until(lambda: run.poll() is not None and not any(map(alive, numbers.values())), 20)
        print(f"all ended after {time.monotonic() - start:.1f} s")
    finally:
        for number in numbers.values():
            if alive(number):
                os.kill(number, signal.SIGKILL)
        run.wait()


@pytest.mark.slow
@pytest.mark.parametrize(("how", "rank"), [(signal.SIGTERM, 0), (signal.SIGKILL, 1), (signal.SIGKILL, 0)])
def test_a_pass_of_two_processes_ends_together_and_another_run_goes_on(tmp_path, how, rank):
    script = JOB.parents[1] / "recording" / "job.py"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(JOB.parents[2])}

    def record(store: str, devices: str, seconds: str) -> subprocess.Popen:
        words = [sys.executable, script, "record", devices, "101", seconds]
        return subprocess.Popen(words, env=environment | {"NEURONX_CACHE": str(tmp_path / store)}, stdout=-1, stderr=-1)

    def children(number: int) -> list[int]:
        return [int(child) for child in Path(f"/proc/{number}/task/{number}/children").read_text().split()]

    lost = record("lost", "2", "1")
    until(lambda: len(list(tmp_path.glob("lost/*/*/shard-*"))) >= 4, 90)
    numbers = [lost.pid, *children(lost.pid)]
    assert len(numbers) == 2
    os.kill(numbers[rank], how)
    until(lambda: lost.poll() is not None and not any(map(alive, numbers)), 20)
    assert not list(tmp_path.glob("lost/*/*/manifest.json"))
    assert [record("lost", "1", "0").wait(), record("whole", "1", "0").wait()] == [0, 0]
    whole, again = (
        {str(path.relative_to(tmp_path / name)): path.read_bytes() for path in (tmp_path / name).rglob("*.*")}
        for name in ("whole", "lost")
    )
    assert again == whole
