"""Mistakes a user can mend: one sentence that says what is wrong, where, and what would be right."""

import difflib
import functools
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

Call = TypeVar("Call", bound=Callable[..., Any])


class UserError(Exception):
    """A mistake in what the user gave us. The command line prints it as one line and exits with code 2."""

    def __init__(self, message: object = "") -> None:
        # torch's loaders send an error of a worker process as the text of its traceback, whose last line says it.
        sent = re.fullmatch(r"Caught \w+ in DataLoader worker process.*\n[\w.]+: (.+?)\s*", str(message), re.DOTALL)
        super().__init__(sent[1] if sent else message)


class Unsuitable(UserError):
    """The images or the network lack what a method needs, such as labels or masks; other methods may do."""


def unknown(kind: str, name: str, known: Iterable[str], hint: str = "") -> UserError:
    """Builds the error for a name that does not exist, with the nearest names that do.

    Args:
        kind: What the name should have named, such as "layer".
        name: What the user wrote.
        known: All names that exist.
        hint: One more sentence, such as where to see the full list.
    """
    known = list(known)
    near = difflib.get_close_matches(name, known, n=5, cutoff=0.4) or known[:5]
    nearest = f" Nearest: {', '.join(near)}." if near else ""
    return UserError(f"There is no {kind} `{name}`.{nearest}{' ' + hint if hint else ''}")


def brief(value: object) -> str:
    """A value as a message shows it: its kind only where it is long."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"<{type(value).__name__}>"


def first_line(error: Exception) -> str:
    """What an error of someone else's code says, in one line."""
    text = " ".join(str(error).split())
    return (text if isinstance(error, UserError) else text[:200]).rstrip(".") or type(error).__name__


def line_of(error: Exception) -> str:
    """Where the user's own code, or a library of networks, raised an error, as " (mynets.py, line 12)"; "" nowhere."""
    if isinstance(error, SyntaxError):
        return ""  # says so itself
    known = [sys.modules[name].__file__ for name in ("neuronx", "torch", "hydra", "importlib") if name in sys.modules]
    others = [Path(file).resolve().parent for file in known if file]
    found, trace = "", error.__traceback__
    while trace is not None:
        file = Path(trace.tb_frame.f_code.co_filename)
        if file.is_file() and not any(folder in file.resolve().parents for folder in others):
            found = f" ({file.name}, line {trace.tb_lineno})"
        trace = trace.tb_next
    return found


WORDS = (
    (r"\bclip\.(weights|tokenizer)=(FILE|DIR) \(judge\.\1=\2\)", r"clip=Clip(..., \1=\2), or judge= likewise"),
    (r" ?\(data=[^)]*\)( or known factors)?", ""),
    (r"show=layers lists them all", "print(model) shows them all"),
    (r"show=layers", "print(model)"),
    (r"\blayers=(?=[\w.]*\w)([\w.]+)", r'layer="\1"'),
    (r"concepts=file concepts\.path=(\w+)", r"words=\1"),
    (r"\b(?:explain|sim)\.\w+\.(\w)", r"\1"),
    (r"\b(?:milan|judge|clip|concepts|data)\.([a-z])", r"\1"),
    (r"\bexplain=([a-z_]+)", r'method="\1"'),
    (r"\bexplain=", "method="),
    (r"\bconcepts=", "words="),
    (r"\b(judge|clip|sim|describe|search|solver|rerank|similarity)=([a-z][a-z_0-9]*)\b", r'\1="\2"'),
    (r"\(given as root\)", "(given as images)"),
    (r"\broot=DIR", "images=DIR"),
    (r"\bdata\.splits= is", "splits is"),
)
"""What the command line calls something, and what Python does."""


def in_python(call: Call) -> Call:
    """Has the messages of mistakes name arguments instead of words of the command line."""

    @functools.wraps(call)
    def wrapped(*args: Any, **options: Any) -> Any:
        try:
            return call(*args, **options)
        except UserError as error:
            text = str(error)
            for typed, argument in WORDS:
                text = re.sub(typed, argument, text)
            raise type(error)(text) from error.__cause__

    return wrapped  # type: ignore[return-value]
