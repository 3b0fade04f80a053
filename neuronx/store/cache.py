"""A content-keyed store: what was computed once from the same content is never computed again, nor mistaken.

An entry is a folder named by the sha256 of its key, the canonical JSON of everything that the content depends on.
Files are written into it one by one, each atomically; the entry counts only once its manifest has been renamed into
place, last of all. A killed run therefore leaves shards to resume from, and never a manifest that lies.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from neuronx.store.atomic import write_atomic
from neuronx.types import Plain


def cache_root() -> Path:
    """The folder of all stores: `$NEURONX_CACHE`, or `~/.cache/neuronx`."""
    return Path(os.environ.get("NEURONX_CACHE") or "~/.cache/neuronx").expanduser()


def data_root() -> Path:
    """The folder of downloaded data sets and weights: `$NEURONX_DATA`, or `data` in the cache."""
    return Path(os.environ.get("NEURONX_DATA") or cache_root() / "data").expanduser()


def digest(content: Plain) -> str:
    """The sha256 (64 hex digits) of the canonical JSON of `content`."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Entry:
    """One folder of the store.

    Attributes:
        path: The folder; it exists once something has been written.
        key: What the content depends on, kept in the manifest so that people can read it.
    """

    path: Path
    key: Plain

    @property
    def complete(self) -> bool:
        """Whether the entry was published: every file is there and whole."""
        return (self.path / "manifest.json").is_file()

    def write(self, name: str, data: bytes | Iterable[bytes]) -> Path:
        """Writes one file atomically, whole or part by part, and returns its path."""
        return write_atomic(self.path / name, data)

    def publish(self, **facts: Plain) -> None:
        """Renames the manifest into place: from now on the entry is complete."""
        manifest = json.dumps({"key": self.key, **facts}, indent=1, sort_keys=True)
        self.write("manifest.json", manifest.encode())

    def manifest(self) -> dict[str, Plain]:
        """What `publish` was given, and the key."""
        return json.loads((self.path / "manifest.json").read_text())

    def remove(self) -> None:
        """Deletes the entry, the manifest first."""
        (self.path / "manifest.json").unlink(missing_ok=True)
        shutil.rmtree(self.path, ignore_errors=True)


def entry(kind: str, key: Plain) -> Entry:
    """The entry of `key` among the things of one kind (`recordings`, `weights`, ...), complete or not."""
    return Entry(cache_root() / kind / digest(key)[:32], key)
