"""Fetching files: once, checked, resumed where it broke off, and quick to say so when there is no network."""

import hashlib
import http.client
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from neuronx.errors import UserError
from neuronx.progress import progress_bar

CONNECT_SECONDS = 8.0
STALL_SECONDS = 20.0
ATTEMPTS = 3


def fetch(url: str, path: str | Path, size: int | None = None, sha256: str | None = None, hint: str = "") -> Path:
    """Returns `path`, downloaded from `url` unless it is there already.

    What arrives goes to `path` with `.part` behind its name, from which an interrupted download goes on; the file gets
    its name only when it is whole and right. Processes that want the same file wait for the first.

    Args:
        url: `https:`, `http:` or `file:`.
        path: Where the file belongs; folders are made.
        size: Of the file in bytes, where known. A file of another size that is already there is fetched anew.
        sha256: Its hex digest, or the first digits of it, where known; checked after the download.
        hint: What else the user can do without a network, such as "or set target.x.weights=FILE".

    Raises:
        UserError: No connection within seconds, a broken one, a file that is not the right one, or a full disk.
    """
    path = Path(path).expanduser()
    if _is_right(path, size):
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock")):
            if _is_right(path, size):
                return path
            part = path.with_name(f"{path.name}.part")
            _download(url, part, size, f"put the file at {path}{' ' + hint if hint else ''}")
            _verify(part, url, size, sha256)
            part.replace(path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}.") from error
    return path


def check_reachable(url: str, hint: str) -> None:
    """Raises UserError with the hint unless a server answers within seconds; any answer will do.

    For libraries that download by themselves, and would try for minutes.
    """
    try:
        _open(url, 0).close()
    except urllib.error.HTTPError:
        return
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise UserError(f"{url} cannot be reached ({reason}). Without a network, {hint}.") from error


def fetch_from_hub(repository: str, names: Sequence[str], hint: str) -> Path:
    """The first of some files that a repository of the Hugging Face hub has: from the hub's own cache, or downloaded.

    Args:
        repository: Such as "timm/resnet34.a1_in1k".
        names: Of files, the one preferred first.
        hint: What else the user can do, such as "give the file with target.x.weights=FILE".

    Raises:
        UserError: No connection within seconds, no such repository, or none of the files in it.
    """
    from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError

    for name in names:
        if isinstance(cached := try_to_load_from_cache(repository, name), str):
            return Path(cached)
    check_reachable(constants.ENDPOINT, hint)
    for name in names:
        try:
            return Path(hf_hub_download(repository, name))
        except EntryNotFoundError:
            continue
        except Exception as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"{repository} cannot be fetched from the hub ({reason}): {hint}.") from error
    raise UserError(f"{repository} on the hub has none of {', '.join(names)}: {hint}.")


def _is_right(path: Path, size: int | None) -> bool:
    return path.is_file() and size in (None, path.stat().st_size)


def _download(url: str, part: Path, size: int | None, offline: str) -> None:
    """Appends to `part` until the server says that it is whole, starting afresh a few times when the line breaks."""
    for _ in range(ATTEMPTS):
        done = part.stat().st_size if part.is_file() else 0
        if size is not None and done >= size:
            return
        try:
            response = _open(url, done)
        except urllib.error.HTTPError as error:
            if error.code == 416 and done:  # nothing after what we have: begin anew
                part.unlink()
                continue
            raise UserError(f"{url} answers {error.code} {error.reason}; fetch it elsewhere and {offline}.") from error
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise UserError(f"{url} cannot be reached ({reason}). Without a network, {offline}.") from error
        with response:
            resumed = getattr(response, "status", None) == 206
            length = response.headers.get("Content-Length")
            total = int(length) + (done if resumed else 0) if length else None
            if _copy(response, part, "ab" if resumed else "wb", total):
                return
    raise UserError(
        f"The connection to {url} broke off {ATTEMPTS} times; run again to go on where it stopped, or {offline}."
    )


def _copy(response: Any, part: Path, mode: str, total: int | None) -> bool:
    """Writes the response to `part`; whether all of it came, as far as the server said how much there would be."""
    name = part.name.removesuffix(".part")
    with part.open(mode) as file, progress_bar(name, total, of_bytes=True) as bar:
        bar.advance(file.tell())
        while True:
            try:
                block = response.read(1 << 20)
            except (OSError, http.client.HTTPException):
                return False
            if not block:
                break
            file.write(block)
            bar.advance(len(block))
        file.flush()
        os.fsync(file.fileno())
        return total in (None, file.tell())


def _open(url: str, start: int) -> Any:
    """Opens a URL from a byte on, giving up after a few seconds whatever name servers and addresses do meanwhile."""
    request = urllib.request.Request(url, headers={"User-Agent": "neuronx"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    outcome: list[Any] = []

    def attempt() -> None:
        try:
            outcome.append(urllib.request.urlopen(request, timeout=STALL_SECONDS))
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(CONNECT_SECONDS)
    if not outcome:
        raise TimeoutError(f"no answer within {CONNECT_SECONDS:.0f} seconds")
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0]


def _verify(part: Path, url: str, size: int | None, sha256: str | None) -> None:
    """Raises UserError, and deletes the file, unless it has the size and digest that it should have."""
    found = part.stat().st_size
    wrong = f"it has {found} bytes, not {size}" if size not in (None, found) else ""
    if not wrong and sha256 is not None:
        digest = _digest(part)
        wrong = "" if digest.startswith(sha256.lower()) else f"its sha256 is {digest}, not {sha256}"
    if wrong:
        part.unlink()
        raise UserError(f"What {url} sent is not the file expected: {wrong}. It was deleted.")


def _digest(path: Path) -> str:
    total = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            total.update(block)
    return total.hexdigest()
