"""How a command ends: a user's mistake is one line, a fault of ours keeps its traceback, Ctrl-C says so."""

import os
import re
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hydra.errors import HydraException, InstantiationException
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from neuronx.command.typed import unmarked
from neuronx.errors import UserError, first_line, unknown


class Unfinished(Exception):
    """A late part of a run failed; what the others found is written."""


@contextmanager
def mistakes_end_in_one_line() -> Iterator[None]:
    """Turns a mistake found by us, by Hydra, by the machine or in code of the user's into one line and exit code 2.

    What a late part of a run has not done is one line and exit code 1.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, BrokenPipeError):  # whoever reads our output has seen enough, as `| head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return
        line = explain_mistake(error)
        if line is None:
            raise
        print(f"error: {' '.join(line.splitlines())}", file=sys.stderr)
        raise SystemExit(1 if isinstance(error, Unfinished) else 2) from None


def explain_mistake(error: Exception) -> str | None:
    """One line for a mistake that the user can mend; None when it is a fault of ours."""
    for cause in _causes(error):
        if isinstance(cause, UserError | Unfinished):
            return _without_worker(str(cause))
    if isinstance(error, HydraException | OmegaConfBaseException) and not isinstance(error, InstantiationException):
        return _of_hydra(error)
    for cause in reversed(list(_causes(error))):
        if line := _in_user_code(cause) or _of_machine(cause) or _of_yaml(cause):
            return line
    if isinstance(error, InstantiationException):
        text = unmarked(" ".join(str(error).split()))
        known = isinstance(error.__cause__, (ImportError, TypeError)) or "Error locating target" in text
        return text if known else None
    return None


def _without_worker(text: str) -> str:
    """A message without the traceback that torch adds to what happens in a process that reads pictures."""
    if re.match(r"Caught \w+ in DataLoader worker process", text):
        return text.rstrip().splitlines()[-1].partition(": ")[2]
    return text


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def _of_hydra(error: Exception) -> str:
    """What Hydra or OmegaConf has to say, in our words where we know better."""
    text = unmarked(" ".join(str(error).split())).removesuffix("Set the environment variable HYDRA_FULL_ERROR=1")
    if choice := re.search(r"Could not find '(\w+)/(.+?)' Available options in '\w+': (.+?) Config search path", text):
        group, name, choices = choice.groups()
        return str(unknown(f"choice of {group}=", name, choices.split(), f"All: {', '.join(choices.split())}."))
    if option := re.match(r"Could not override '([^']+)'\. To append to your config use", text):
        return _unknown_option(option[1], error.__cause__)
    if group := re.match(r"Could not override '([^']+)'\. No match in the defaults list", text):
        return f"There is no group `{group[1]}` in this command; --help lists those of both commands."
    if word := re.search(r"(?:parsing override|when parsing) '(.*?)'", text):
        return f"`{word[1]}` is no option; an option is written key=value, as in layers=layer4."
    return text


def _unknown_option(name: str, cause: BaseException | None) -> str:
    """The options beside one that does not exist."""
    beside = getattr(cause, "parent_node", None)
    wrong = getattr(cause, "full_key", None) or name
    if beside is None:
        return f"There is no option `{name}`. The options of a choice are those of its YAML in configs/."
    above, _, _ = wrong.rpartition(".")
    known = [f"{above}.{key}" if above else str(key) for key in beside if not str(key).startswith(("_", "hydra"))]
    return str(unknown("option", wrong, known, "The options of a choice are those of its YAML in configs/."))


def _of_machine(error: BaseException) -> str | None:
    """What the machine refuses: a full disk, no permission, a file where a folder should be, memory, a device."""
    if isinstance(error, OSError) and error.errno is not None and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror.lower()}."
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return f"There is not enough memory: {_said(error)}. Fewer images at a time (batch_size) or layers need less."
    if type(error).__name__ == "MisconfigurationException":
        return f"Lightning refuses the options of trainer=: {_said(error)}."
    return None


def _said(error: BaseException) -> str:
    return first_line(error)  # type: ignore[arg-type]


def _of_yaml(error: BaseException) -> str | None:
    if isinstance(error, YAMLError):
        return f"A configuration file is no valid YAML: {_said(error)}."
    if isinstance(error, UnicodeDecodeError):
        return f"A file is no UTF-8 text: {_said(error)}."
    return None


def _in_user_code(error: BaseException) -> str | None:
    """Where code of the user's raised an error, and its message; None where ours or a library's did on our behalf."""
    place, frames = None, error.__traceback__
    begun = False
    while frames is not None:
        file = frames.tb_frame.f_code.co_filename
        if _is_ours(file):
            begun, place = True, None
        elif begun and _is_users(file):
            place = f"{_short(file)}, line {frames.tb_lineno}, in {frames.tb_frame.f_code.co_name}"
        frames = frames.tb_next
    if place is None and isinstance(error, SyntaxError) and error.filename and _is_users(error.filename):
        place = f"{_short(error.filename)}, line {error.lineno}"
    return None if place is None else f"{place}: {_said(error)}."


_HOUSE = Path(__file__).resolve().parents[1]
_OURS = tuple(f"{place}{os.sep}" for place in (_HOUSE, _HOUSE.parent / "callbacks"))
_LIBRARIES = tuple(
    f"{Path(sysconfig.get_paths()[place]).resolve()}{os.sep}"
    for place in ("stdlib", "platstdlib", "purelib", "platlib")
)


def _is_ours(file: str) -> bool:
    return str(Path(file).resolve()).startswith(_OURS)


def _is_users(file: str) -> bool:
    return not file.startswith("<") and not _is_ours(file) and not str(Path(file).resolve()).startswith(_LIBRARIES)


def _short(file: str) -> str:
    return os.path.relpath(file) if Path(file).is_relative_to(Path.cwd()) else file
