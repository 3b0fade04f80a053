"""The processes of a run: which is the first, what it decides for all, and how they end together."""

import atexit
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable
from hashlib import sha256
from typing import TYPE_CHECKING, Any, TypeVar

from neuronx.errors import UserError

if TYPE_CHECKING:
    from lightning import Trainer

T = TypeVar("T")

ORDERLY_SECONDS = 10.0
"""A process that got SIGTERM has this long to write down what it has, and then ends in any case."""

_MACHINE = sha256(socket.gethostname().encode()).hexdigest()[:8]
_BORN = secrets.token_hex(4)


def is_first() -> bool:
    """Whether this is the first of all processes, the one that writes and prints."""
    from lightning.pytorch.utilities import rank_zero_only

    return getattr(rank_zero_only, "rank", 0) in (0, None)


def on_first(work: Callable[[], T]) -> T:
    """Runs `work` in the first process once all have come here; all get what it returns, or raise its UserError.

    Whether something is in the store is decided in this way: if each process looked for itself, they might disagree,
    and then wait for each other in different places.
    """
    from torch import distributed

    if not (distributed.is_available() and distributed.is_initialized()):
        return work()
    distributed.barrier()
    outcome: list[Any] = [None, None]
    if distributed.get_rank() == 0:
        try:
            outcome = [work(), None]
        except UserError as mistake:
            outcome = [None, mistake]
    distributed.broadcast_object_list(outcome, src=0)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


def start(runner: "Trainer") -> None:
    """Starts the other processes of a trainer now, rather than at its first pass, so that `on_first` is of all of them.

    From then on all end within 20 seconds when one is lost, or gets SIGTERM or SIGINT.
    """
    from lightning.pytorch.strategies import DDPStrategy
    from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
    from torch import distributed

    strategy = runner.strategy
    if runner.world_size == 1 or not isinstance(strategy, DDPStrategy) or distributed.is_initialized():
        return
    if strategy.launcher is None:  # one of the others, or started by torchrun
        strategy.setup_environment()
    elif isinstance(strategy.launcher, _SubprocessScriptLauncher):
        strategy.launcher.launch(strategy.setup_environment, trainer=runner)
    else:  # forks for each pass, and starts nothing before
        return
    # Gloo's threads abort the process when they still run while its libraries are unloaded.
    atexit.register(_disconnect)
    _end_together(of_another=strategy.local_rank > 0)


def _disconnect() -> None:
    """Ends this process's part in the group; Lightning does this for NCCL only, and may have done it."""
    from torch import distributed

    if distributed.is_initialized():
        distributed.destroy_process_group()


def process() -> str:
    """This process as part of a file's name, unlike any other on any machine."""
    return f"{_MACHINE}-{os.getpid()}-{_BORN}"


def is_over(name: str) -> bool:
    """Whether the process in a file's name, behind an @, is known to have ended: it ran on this machine."""
    machine, number, *_ = name.rpartition("@")[2].split("-")
    if machine != _MACHINE:
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _end_together(of_another: bool) -> None:
    """Watches from a thread, since a process that waits for another one in a collective handles no signal.

    What becomes of the parent counts where that is `of_another` process of the run; the first one's is a shell.
    """
    parent, (reader, writer) = os.getppid(), os.pipe()
    os.set_blocking(writer, False)
    os.set_blocking(reader, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def watch() -> None:
        ending: int = signal.SIGTERM
        while not of_another or os.getppid() == parent:
            time.sleep(1)
            try:
                received = os.read(reader, 64)
            except BlockingIOError:
                continue
            if signal.SIGTERM in received or signal.SIGINT in received:
                ending = signal.SIGTERM if signal.SIGTERM in received else signal.SIGINT
                break
        time.sleep(ORDERLY_SECONDS)
        os._exit(128 + ending)

    threading.Thread(target=watch, daemon=True, name="end-together").start()
