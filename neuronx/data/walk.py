"""Which files under a folder are its pictures: what other programs leave there is not, and links end somewhere."""

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from neuronx.errors import UserError

log = logging.getLogger(__name__)

SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".ppm", ".pgm", ".pbm", ".pnm", ".tif", ".tiff", ".webp", ".gif")
) | {".jp2", ".avif", ".heic", ".heif"}
_LEFT_BEHIND = frozenset(
    ("__MACOSX", "Thumbs.db", "ehthumbs.db", "desktop.ini", "@eaDir", "$RECYCLE.BIN", "System Volume Information")
)
"""What other programs leave in folders, beside files and folders whose name begins with a dot."""


def pictures_in(root: Path, suffixes: frozenset[str] = SUFFIXES) -> list[str]:
    """Paths of all pictures under a folder, relative to it, in the order of torchvision's ImageFolder.

    Hidden files and folders are left out. Where all kinds of pictures are asked for, one line counts the other files.

    Raises:
        UserError: For a folder that may not be read, a link that leads back, a pipe or device called like a picture, or
            a name that is not UTF-8.
    """
    found: list[tuple[str, str, str]] = []
    skipped: Counter[str] = Counter()
    here = root.resolve()
    for folder, entry in _files(root, "", {_identity(each): each for each in (here, *here.parents)}):
        _, dot, suffix = entry.name.lower().rpartition(".")
        if dot + suffix not in suffixes:
            skipped[dot + suffix if dot else "without ending"] += 1
            continue
        if not _told(entry.is_file) and Path(entry.path).exists():
            raise UserError(f"{entry.path} is a pipe or a device, no picture: remove it.")
        found.append((folder.partition(os.sep)[0], folder, entry.name))
    if skipped and suffixes is SUFFIXES:
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in skipped.most_common(5))
        log.warning("%d files in %s are skipped by their endings: %s", skipped.total(), root, kinds)
    paths = [f"{folder}{os.sep}{name}" if folder else name for _, folder, name in sorted(found)]
    try:
        "".join(paths).encode()
    except UnicodeEncodeError as error:
        near = ascii(error.object[max(0, error.start - 9) : error.end + 9])
        raise UserError(f"A name in {root} is not UTF-8: {near}. Rename the file or folder.") from None
    return paths


def _files(folder: Path, name: str, above: dict[tuple[int, int], Path]) -> Iterator[tuple[str, "os.DirEntry[str]"]]:
    """All files under a folder, each with its folder relative to the first.

    Args:
        folder: To look into.
        name: Of the folder, relative to the first.
        above: The folders that lead to it, by device and inode.
    """
    try:
        with os.scandir(folder) as entries:
            kept = [entry for entry in entries if not entry.name.startswith(".") and entry.name not in _LEFT_BEHIND]
    except OSError as error:
        raise UserError(f"The folder {folder} cannot be read: {(error.strerror or str(error)).lower()}.") from None
    for entry in kept:
        if not _told(entry.is_dir):
            yield name, entry
            continue
        inner = folder / entry.name
        if (identity := _identity(inner)) in above:
            raise UserError(
                f"{inner} is a link that leads back to {above[identity]}: its pictures would count again and again. "
                "Remove the link, or give another folder as data.root=DIR."
            )
        yield from _files(inner, f"{name}{os.sep}{entry.name}" if name else entry.name, {**above, identity: inner})


def _identity(folder: Path) -> tuple[int, int]:
    found = folder.stat()
    return found.st_dev, found.st_ino


def _told(what: Callable[[], bool]) -> bool:
    try:
        return what()
    except OSError:  # a link to itself, or to where nobody may look
        return False
