"""How commands end: in one line for a mistake, with a traceback for a fault of ours, after Ctrl-C with 130."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from neuronx.command.attempts import Attempts
from neuronx.command.mistakes import Unfinished, explain_mistake, mistakes_end_in_one_line
from neuronx.command.start import interrupts_end_in_one_line
from neuronx.errors import UserError
from neuronx.store.cache import digest

ROOT = Path(__file__).resolve().parents[2]


def raised(work):
    try:
        work()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def test_an_error_in_code_of_the_users_is_told_with_its_place(tmp_path, monkeypatch):
    (tmp_path / "their_colours.py").write_text(
        "class Odd:\n    def __iter__(self):\n        raise LookupError('no such colour')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    from their_colours import Odd

    error = raised(lambda: Attempts().run("part", lambda: list(Odd())))
    assert explain_mistake(error) == "their_colours.py, line 3, in __iter__: no such colour."


def test_an_error_of_ours_keeps_its_traceback():
    error = raised(lambda: digest(object()))
    assert explain_mistake(error) is None
    with pytest.raises(TypeError), mistakes_end_in_one_line():
        raise error


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/full/scores.csv"), "/full/scores.csv: no space left"),
        (PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/locked"), "/locked: permission denied"),
        (MemoryError("Unable to allocate 373. GiB"), "There is not enough memory: Unable to allocate 373. GiB."),
        (UserError("Caught UserError in DataLoader worker process 0.\nOriginal Traceback\nUserError: x.png is broken."),
         "x.png is broken."),
        (UserError("two\nlines"), "two lines"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(error, line, monkeypatch, capsys):
    monkeypatch.setattr("neuronx.command.mistakes._is_users", lambda file: False)  # or this test would be
    with pytest.raises(SystemExit) as end, mistakes_end_in_one_line():
        raise error
    said = capsys.readouterr().err
    assert end.value.code == 2
    assert said.startswith(f"error: {line}") and said.count("\n") == 1


def test_what_fails_late_leaves_the_rest(capsys):
    attempts = Attempts()
    assert attempts.run("first", lambda: 1) == 1
    assert attempts.run("second", lambda: digest(object())) is None
    assert "TypeError" in capsys.readouterr().err, "a fault of ours keeps its traceback"

    def third():
        raise UserError("No head.")

    assert attempts.run("third", third) is None
    with pytest.raises(SystemExit) as end, mistakes_end_in_one_line():
        attempts.close("results/x")
    assert end.value.code == 1
    said = capsys.readouterr().err
    assert "third (No head)" in said and "results/x" in said


def test_the_first_part_must_succeed():
    with pytest.raises(UserError, match="No head"):
        Attempts().run("first", lambda: (_ for _ in ()).throw(UserError("No head.")))
    Attempts().close("nothing failed")
    assert issubclass(Unfinished, Exception) and not issubclass(Unfinished, UserError)


def test_an_interrupt_is_remembered_when_another_exit_code_covers_it(capsys):
    before = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(SystemExit) as end, interrupts_end_in_one_line():
            try:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(1)
            except KeyboardInterrupt:
                sys.exit(1)  # as Lightning does
    finally:
        signal.signal(signal.SIGINT, before)
    assert end.value.code == 130
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("seconds", [0.7, 2.5])
def test_ctrl_c_while_it_starts_is_one_line(seconds, own_cache):
    command = [sys.executable, str(ROOT / "evaluate.py"), "data.size=3000", "data.seed=99", "logger=[csv]"]
    process = subprocess.Popen(
        command, cwd=own_cache.parent, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    time.sleep(seconds)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert said.splitlines()[-1].startswith("Interrupted") and "Traceback" not in said
