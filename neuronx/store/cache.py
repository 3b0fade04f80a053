"""The store: what was computed once from the same content is never computed again, nor mistaken for something else.

An entry is a folder named by the digest of its key, the canonical JSON of everything that the content depends on.
Its files are written atomically, and the sha256 of each is part of its name, so that any number of runs may write at
once, and damage shows when a file is read. There are two kinds of files:

- What was published is listed by `manifest.json`, which is written last, with the sha256 of each file.
- Blocks stand for themselves: features of a few units, say, which any later run finds. Those of a `Draft` belong to one
  run, which makes an entry of them; the name of its process is behind an @ in their names. Another run of the same work
  takes over copies of them, and whoever publishes removes those of runs that have ended.
"""

import atexit
import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from neuronx.errors import UserError
from neuronx.store.processes import is_over, on_first, process
from neuronx.types import Plain

if TYPE_CHECKING:
    from torch import Tensor

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


log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
TENSORS = "tensors.safetensors"
FORMAT = 2
"""Of manifests and names; entries of another one are not looked at."""
ABANDONED_SECONDS = 7 * 86400
"""What nobody has published or written to for so long was left by a run that ended, wherever it ran."""
REPLACED_SECONDS = 3600
"""A published file that another run's replaced is kept for so long, for whoever was about to read it."""
UNKEYED = "unkeyed-"
"""Begins a part of a key that stands for something whose content cannot be told; see `unkeyed`."""


def cache_root() -> Path:
    """The folder of all stores: `$NEURONX_CACHE`, or `~/.cache/neuronx`."""
    return Path(os.environ.get("NEURONX_CACHE") or "~/.cache/neuronx").expanduser()


def data_root() -> Path:
    """The folder of downloaded data sets and weights: `$NEURONX_DATA`, or `data` in the cache."""
    return Path(os.environ.get("NEURONX_DATA") or cache_root() / "data").expanduser()


def digest(content: Plain) -> str:
    """The sha256 (64 hex digits) of the canonical JSON of `content`; one that says so where a part of it is unkeyed."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return UNKEYED * (f'"{UNKEYED}' in text) + hashlib.sha256(text.encode()).hexdigest()


def sha256_of(path: Path) -> str:
    """The sha256 (64 hex digits) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Contents:
    """What was published in an entry.

    Attributes:
        files: The name that each file was given -> where it is.
        facts: Whatever was published with them.
    """

    files: dict[str, Path]
    facts: dict[str, Plain]

    def tensors(self) -> "dict[str, Tensor]":
        """Those that were published as tensors."""
        from safetensors.torch import load_file

        return load_file(self.files[TENSORS])


@dataclass(frozen=True)
class Entry:
    """One folder of the store.

    Attributes:
        path: The folder; it exists once something has been written.
        key: What the content depends on, kept in the manifest so that people can read it.
    """

    path: Path
    key: Plain

    def open(self) -> Contents | None:
        """What was published; None where nothing was, or where it is damaged, which is logged.

        Every byte is read and compared with the manifest, at about one second for a GB.
        """
        manifest = self.path / MANIFEST
        try:
            facts = json.loads(manifest.read_bytes())
            right = facts.pop("sha256") == digest(facts)
            right = right and all(sha256_of(self.path / name) == sha for name, sha in facts["files"].items())
        except FileNotFoundError as missing:
            if missing.filename == str(manifest):
                return None
            right = False
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            right = False
        if right:
            return Contents({_plain(name): self.path / name for name in facts["files"]}, facts["facts"])
        log.warning("%s in the store is damaged, and is made anew.", self.path)
        manifest.unlink(missing_ok=True)
        return None

    def publish(self, files: Mapping[str, Data], **facts: Plain) -> Contents:
        """Writes files and, last of all, the manifest that lists them; removes the drafts of runs that have ended."""
        with on_disk(self.path):
            written = dict(self._write(name, data) for name, data in files.items())
            self._list(written, facts)
        paths = {_plain(path.name): path for path in written}
        _sweep(self.path, paths)
        return Contents(paths, facts)

    def publish_folder(self, **facts: Plain) -> None:
        """Publishes the files that are in the entry's folder, under their own names."""
        files = [path for path in self.path.rglob("*") if path.is_file() and path.name != MANIFEST]
        self._list({path: sha256_of(path) for path in files}, facts)

    def _list(self, files: Mapping[Path, str], facts: Mapping[str, Plain]) -> None:
        listed: dict[str, Plain] = {str(path.relative_to(self.path)): sha for path, sha in files.items()}
        manifest: dict[str, Plain] = {"key": self.key, "facts": dict(facts), "files": listed}
        manifest["sha256"] = digest(manifest)
        write_atomic(self.path / MANIFEST, json.dumps(manifest, indent=1, sort_keys=True).encode())

    def write(self, name: str, data: Data) -> Path:
        """Writes one block; its content's digest becomes part of the name."""
        with on_disk(self.path):
            return self._write(name, data)[0]

    def _write(self, name: str, data: Data) -> tuple[Path, str]:
        digests: list[str] = []

        def named(sha: str) -> str:
            digests.append(sha)
            return _named(name, sha)

        return write_atomic(self.path / name, data, named), digests[0]

    def sound(self, names: Iterable[str]) -> dict[str, Path]:
        """Of some blocks those that are there, each checked: name -> where it is."""
        there = self.blocks("")
        return {name: there[name] for name in names if name in there and is_sound(there[name])}

    def blocks(self, prefix: str) -> dict[str, Path]:
        """Blocks whose names begin so: the name that each was given -> where it is. They are not checked."""
        return {_plain(path.name): path for path in sorted(self.path.glob(f"{prefix}*"))}

    def remove(self) -> None:
        """Deletes the entry, the manifest first."""
        (self.path / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(self.path, ignore_errors=True)


@dataclass(frozen=True)
class Draft:
    """The blocks of which one run makes an entry.

    Attributes:
        entry: The entry.
        run: The first process of the run.
    """

    entry: Entry
    run: str

    def write(self, name: str, data: Data) -> Path:
        """Writes one block, in any process of the run."""
        return self.entry.write(f"{Path(name).stem}@{self.run}{Path(name).suffix}", data)

    def blocks(self, prefix: str) -> list[Path]:
        """Those of this run."""
        return sorted(self.entry.path.glob(f"{prefix}*@{self.run}.*"))

    def publish(self, files: Mapping[str, Data], **facts: Plain) -> Contents:
        """Makes the entry, unless another run was faster; the blocks are removed in either case."""
        contents = self.entry.open()
        if contents is None:
            return self.entry.publish(files, **facts)
        _sweep(self.entry.path, contents.files)
        return contents

    def adopt(self, prefix: str) -> list[Path]:
        """Takes over copies of what other runs have; damaged blocks are deleted. For the first process alone."""
        for path in self.entry.path.glob(f"{prefix}*@*"):
            own = path.with_name(re.sub(r"@[^.]*", f"@{self.run}", path.name))
            with suppress(FileExistsError, FileNotFoundError):
                _link(path, own)
            if own.exists() and not is_sound(own):
                path.unlink(missing_ok=True)
        return self.blocks(prefix)


def entry(kind: str, key: Plain) -> Entry:
    """The entry of `key` among the things of one kind (`recordings`, `texts`, ...), whether it is there or not.

    Where a part of the key is unkeyed, it is an entry that goes with this process.
    """
    name = digest([FORMAT, key])
    if not name.startswith(UNKEYED):
        return Entry(cache_root() / kind / name[:32], key)
    folder = cache_root() / "unkeyed"
    for path in folder.glob("*@*"):
        if is_over(path.name):
            shutil.rmtree(path, ignore_errors=True)
    path = folder / f"{kind}-{name.removeprefix(UNKEYED)[:32]}@{process()}"
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return Entry(path, key)


def collection(kind: str, key: Plain, **facts: Plain) -> Entry:
    """The entry of a growing number of blocks that stand for themselves; its manifest only says what they are."""
    place = entry(kind, key)
    if place.open() is None:
        place.publish({}, **facts)
    return place


def packed(tensors: "Mapping[str, Tensor]") -> dict[str, Data]:
    """Tensors as a file to publish, for `Contents.tensors`."""
    from safetensors.torch import save

    return {TENSORS: save({name: tensor.contiguous() for name, tensor in tensors.items()})}


def read_or_make(
    place: Callable[[], Entry], make: "Callable[[], Mapping[str, Tensor]]", **facts: Plain
) -> "dict[str, Tensor]":
    """The tensors of an entry, made where they are not there. All processes of a run call this, and make alike."""
    found, drafts = open_or_draft(lambda: {"": place()})
    if drafts:
        made = make()
        found[""] = on_first(lambda: drafts[""].publish(packed(made), **facts))
    return found[""].tensors()


def open_or_draft(places: "Callable[[], Mapping[str, Entry]]") -> tuple[dict[str, Contents], dict[str, Draft]]:
    """What some entries hold, and drafts of those that are not there, for all processes as the first one finds it."""

    def look_up() -> tuple[dict[str, Contents], dict[str, Draft]]:
        entries = places()
        found = {name: contents for name, place in entries.items() if (contents := place.open()) is not None}
        return found, {name: Draft(place, process()) for name, place in entries.items() if name not in found}

    return on_first(look_up)


def read_or_build(place: Entry, build: Callable[[Path], None]) -> Path:
    """An entry that is a folder of files of any kind, built where it is not there. All processes of a run call this.

    It is built beside its place and renamed into it, unless another run was faster.
    """

    def publish() -> None:
        if place.open() is None:
            Entry(draft, place.key).publish_folder()
            place.remove()
            draft.rename(place.path)
        for left in (draft, *(path for path in draft.parent.glob("*@*") if is_over(path.name))):
            shutil.rmtree(left, ignore_errors=True)

    if on_first(place.open) is None:
        draft = on_first(lambda: place.path.with_name(f"{place.path.name}@{process()}"))
        build(draft)
        on_first(publish)
    return place.path


def is_sound(path: Path) -> bool:
    """Whether a block has the content that its name tells; a damaged one is logged and deleted."""
    try:
        if sha256_of(path).startswith(path.name.split(".")[1]):
            return True
    except FileNotFoundError:
        return False
    log.warning("%s in the store is damaged, and is made anew.", path)
    path.unlink(missing_ok=True)
    return False


@contextmanager
def on_disk(folder: Path) -> Iterator[None]:
    """Turns a failing write into a mistake that the user can mend."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(
            f"The store cannot be written at {folder} ({reason}); free some space, or set NEURONX_CACHE to a folder "
            "that has it. What was made so far is kept."
        ) from error


def _named(name: str, sha: str) -> str:
    """A file's name with a digest of its content in it."""
    return f"{Path(name).stem}.{sha[:16]}{Path(name).suffix}"


def _link(path: Path, copy: Path) -> None:
    try:
        os.link(path, copy)
    except (FileExistsError, FileNotFoundError):
        raise
    except OSError:  # a file system without hard links
        shutil.copyfile(path, copy)


def _plain(name: str) -> str:
    """The name that a file was given."""
    return re.sub(r"\.[0-9a-f]{16}(?=\.|$)", "", name)


def _sweep(folder: Path, published: Mapping[str, Path]) -> None:
    """Removes what runs that have ended left in an entry that is published, and entries that were never finished."""
    now = time.time()
    for path in folder.iterdir():
        with suppress(OSError):
            age, name = now - path.stat().st_mtime, path.name
            ended = "@" in name and (process() in name or is_over(name) or age > ABANDONED_SECONDS)
            # Of two runs that publish at once, one has its files replaced.
            replaced = _plain(name) in published and path not in published.values() and age > REPLACED_SECONDS
            if ended or replaced:
                path.unlink()
    for other in folder.parent.iterdir():
        with suppress(OSError):
            if now - other.stat().st_mtime > ABANDONED_SECONDS and not (other / MANIFEST).exists():
                shutil.rmtree(other, ignore_errors=True)
