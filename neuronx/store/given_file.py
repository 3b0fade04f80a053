"""Files that a user gave: checked before they are opened, so that nothing waits for a pipe or reads a device."""

import os
import stat
from pathlib import Path

from neuronx.errors import UserError

_POINTER = b"version https://git-lfs.github.com/spec/"


def given_file(path: str | Path, what: str = "file") -> Path:
    """The path of a file that can be read to its end.

    Args:
        path: As the user wrote it; `~` is the home folder.
        what: What the file should be, for the message, such as "weights file".

    Raises:
        UserError: No such file, a folder, a pipe or device, an empty file, one without permission, a git-lfs pointer.
    """
    path = Path(path).expanduser()
    try:
        if not path.exists():
            raise UserError(f"There is no {what} {path}.")
        if path.is_dir():
            raise UserError(f"{path} is a folder; a {what} is needed.")
        if not path.is_file():
            raise UserError(f"{path} is a pipe or a device; a {what} is needed.")
        if path.stat().st_size == 0:  # so are the files of /proc, some of which never end
            raise UserError(f"{path} is empty (0 bytes); a {what} is needed.")
        with path.open("rb") as file:
            head = file.read(len(_POINTER))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"The {what} {path} cannot be read: {reason.lower()}.") from None
    check_pointer(path, head, what)
    return path


def check_pointer(path: str | Path, data: str | bytes, what: str = "file") -> None:
    """Raises UserError where the content of a file is a git-lfs pointer."""
    head = data[: len(_POINTER)]
    if (head.encode(errors="replace") if isinstance(head, str) else head) == _POINTER:
        raise UserError(
            f"{path} is a git-lfs pointer: it names the {what} but does not hold it; fetch it with `git lfs pull`."
        )


def check_ends(path: Path, what: str = "file") -> None:
    """Raises UserError for what may never end: devices, pipes with a name, files of /proc. `<(command)` does end."""
    if str(path).startswith(("/dev/fd/", "/dev/stdin", "/proc/self/fd/")):
        return
    try:
        kind = path.stat().st_mode
    except OSError:  # who reads it says why
        return
    if stat.S_ISFIFO(kind) or stat.S_ISCHR(kind) or stat.S_ISBLK(kind) or stat.S_ISSOCK(kind):
        raise UserError(f"{path} is a pipe or a device; a {what} is needed.")
    if os.path.realpath(path).startswith("/proc/"):
        raise UserError(f"{path} is a file of the system, which may have no end; a {what} is needed.")
