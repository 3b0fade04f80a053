"""Signs of life: a bar with the time left on a terminal, one line a minute in a log; at the end, where to look."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from neuronx.store.processes import is_first

DELAY = 1.0
"""Work that is over within these seconds shows nothing."""

EVERY = 60.0
"""Seconds between two lines in a log."""

log = logging.getLogger("neuronx")

T = TypeVar("T")


class StderrHandler(logging.StreamHandler):
    """Writes to what `sys.stderr` is at the time: while a bar is shown, lines then appear above it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Writes a line."""
        self.stream = sys.stderr
        super().emit(record)


class Bar:
    """How far some work is.

    Args:
        name: What is done, as it stands before the bar.
        total: Steps of the work; None where nobody knows.
        of_bytes: Steps are bytes.
    """

    def __init__(self, name: str, total: float | None = None, of_bytes: bool = False) -> None:
        self.name, self.total, self.of_bytes, self.done = name, total, of_bytes, 0.0
        self.begun = self.said = time.monotonic()
        self._shown: Progress | None = None
        self._watched = sys.stderr.isatty()

    def advance(self, steps: float = 1) -> None:
        """Says that so many more steps are done."""
        self.done += steps
        now = time.monotonic()
        if self._shown is not None:
            self._shown.update(self._shown.task_ids[0], description=self.name, completed=self.done, total=self.total)
        elif now - self.begun < DELAY or not is_first():
            return
        elif self._watched:
            count = DownloadColumn() if self.of_bytes else MofNCompleteColumn()
            columns = TextColumn("{task.description}"), BarColumn(), count, TimeRemainingColumn(compact=True)
            self._shown = Progress(*columns, console=Console(stderr=True), transient=True)
            self._shown.add_task(self.name, total=self.total, completed=int(self.done))
            self._shown.start()
        elif now - self.said >= EVERY:
            self.said = now
            log.info(f"{self.name}: {self._in_words(now)}")

    def close(self) -> None:
        """Takes the bar away."""
        if self._shown is not None:
            self._shown.stop()
            self._shown = None

    def _in_words(self, now: float) -> str:
        if not self.total:
            return f"{self.done:,.0f} done"
        left = (now - self.begun) * (self.total / self.done - 1)
        rest = f"{left / 60:.0f} min" if left >= 60 else f"{left:.0f} s"
        return f"{self.done / self.total:.0%}, about {rest} left"


@contextmanager
def progress_bar(name: str, total: float | None = None, of_bytes: bool = False) -> Iterator[Bar]:
    """A bar that is taken away at the end, also when the work fails.

    Args:
        name: What is done.
        total: Steps of the work.
        of_bytes: Steps are bytes.
    """
    bar = Bar(name, total, of_bytes)
    try:
        yield bar
    finally:
        bar.close()


def progress(items: Iterable[T], name: str, total: int | None = None) -> Iterator[T]:
    """Yields items and shows how many of them are done.

    Args:
        items: A step each.
        name: What is done.
        total: Number of items where they have no length.
    """
    with progress_bar(name, len(items) if total is None and isinstance(items, Sized) else total) as bar:
        for item in items:
            yield item
            bar.advance()


def where_to_look(folder: str | Path) -> str:
    """Names a run's folder, and the pages in it that a browser opens: at most three, those at its top first."""
    found = (page for page in Path(folder).rglob("*.html") if "wandb" not in page.relative_to(folder).parts)
    pages = sorted(found, key=lambda page: (len(page.parts), page))
    more = f" and {len(pages) - 3} more" if len(pages) > 3 else ""
    opened = [f"Open: {', '.join(map(str, pages[:3]))}{more}"] if pages else []
    return "\n".join([f"Files: {folder}", *opened])
