"""Signs of life: nothing of short work, a bar on a terminal, one line a minute in a log."""

import io
import logging
import sys

import pytest

from neuronx import progress as signs
from neuronx.progress import progress, progress_bar, where_to_look


class Terminal(io.StringIO):
    """Standard error that is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on by ten seconds at each look."""
    monkeypatch.setattr(signs.time, "monotonic", iter(range(0, 10**6, 10)).__next__)


def test_items_come_through_in_order_and_short_work_shows_nothing(monkeypatch, caplog):
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert list(progress([3, 1, 2], "counting")) == [3, 1, 2]
    assert list(progress(iter("ab"), "counting")) == ["a", "b"]
    assert sys.stderr.getvalue() == "" and not caplog.records


def test_a_terminal_shows_a_bar_with_name_and_count_and_is_clean_afterwards(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(signs, "DELAY", 0)
    monkeypatch.setenv("TERM", "xterm")
    with progress_bar("reading cats", 4) as bar:
        for _ in range(4):
            bar.advance()
    shown = sys.stderr.getvalue()
    assert "reading cats" in shown and "/4" in shown
    assert shown.rstrip().endswith("\x1b[2K")  # the line is wiped


def test_a_bar_goes_away_when_the_work_fails(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(signs, "DELAY", 0)
    terminal = sys.stderr
    with pytest.raises(KeyError), progress_bar("reading cats", 4) as bar:
        bar.advance()
        raise KeyError
    assert bar._shown is None and sys.stderr is terminal


def test_two_bars_stand_below_each_other(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(signs, "DELAY", 0)
    assert [list(progress("ab", f"inner {n}")) for n in progress([0, 1], "outer")] == [["a", "b"]] * 2


def test_a_log_gets_a_line_a_minute(clock, caplog):
    caplog.set_level(logging.INFO)
    assert len(list(progress(range(24), "searching"))) == 24  # a step takes ten seconds
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 4
    assert lines[0] == "searching: 25%, about 3 min left"


def test_without_a_total_the_log_counts(clock, caplog):
    caplog.set_level(logging.INFO)
    list(progress(iter(range(12)), "searching"))
    assert [record.getMessage() for record in caplog.records] == ["searching: 6 done", "searching: 12 done"]


def test_the_pages_of_a_run_are_named(tmp_path):
    assert where_to_look(tmp_path) == f"Files: {tmp_path}"
    (tmp_path / "units").mkdir()
    for name in ("units/index.html", "scores.html"):
        (tmp_path / name).write_text("")
    assert where_to_look(tmp_path).splitlines()[1] == f"Open: {tmp_path}/scores.html, {tmp_path}/units/index.html"
