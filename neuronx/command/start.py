"""The two commands as programs: Ctrl-C at any moment, while they import too, is one line and exit code 130."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def evaluate() -> None:
    """`python evaluate.py`, or `neuronx-evaluate` once installed."""
    with interrupts_end_in_one_line():
        from neuronx.command.cli import evaluate_main

        evaluate_main()


def train() -> None:
    """`python train.py`, or `neuronx-train` once installed."""
    with interrupts_end_in_one_line():
        from neuronx.command.cli import train_main

        train_main()


@contextmanager
def interrupts_end_in_one_line() -> Iterator[None]:
    """Turns Ctrl-C into one line, of the first process only, and exit code 130; a second one ends at once.

    The signal is remembered, since Lightning exits with a code of its own when it is interrupted in a pass.
    """
    received = 0

    def note(*_: Any) -> None:
        nonlocal received
        received += 1
        if received > 1:
            os._exit(130)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, note)
    try:
        yield
    except BaseException:
        if not received:
            raise
    if received:
        if os.environ.get("LOCAL_RANK", "0") == "0":
            print("Interrupted; what is stored so far is kept.", file=sys.stderr)
        sys.exit(130)
