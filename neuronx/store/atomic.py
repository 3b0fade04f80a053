"""The only way to write a file: a reader sees the old one or the new one, never half."""

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from neuronx.store.processes import process

Data = bytes | Iterable[bytes]


def write_atomic(path: str | Path, data: Data, named: Callable[[str], str] | None = None) -> Path:
    """Writes `data` (whole, or part by part) to a temporary file beside `path`, flushes it and renames it into place.

    Folders are made as needed. On any failure (a full disk, say) the temporary file is removed and `path` is as before.

    Args:
        path: Of the file.
        data: Its content.
        named: From the sha256 of the content to the file's name, where that is to be part of it.

    Returns:
        Where the file is.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:80]}@{process()}.")
    sha = hashlib.sha256()
    try:
        with os.fdopen(handle, "wb") as file:
            for part in [data] if isinstance(data, bytes) else data:
                file.write(part)
                if named is not None:
                    sha.update(part)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        path = path if named is None else path.with_name(named(sha.hexdigest()))
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path
