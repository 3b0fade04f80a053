"""Files: images, byte by byte, and which of them are pictures; texts with one entry a line."""

import hashlib
import io
import json
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from neuronx.errors import UserError
from neuronx.progress import progress
from neuronx.store.cache import digest, entry

log = logging.getLogger(__name__)

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pgm", ".webp", ".tif", ".tiff"})


def open_rgb(path: Path) -> Image.Image:
    """The picture in a file, in RGB."""
    with Image.open(path) as picture:
        return picture.convert("RGB")


def pictures_in(root: Path, suffixes: frozenset[str] = SUFFIXES) -> list[str]:
    """Paths of all image files under a folder, relative to it, in the order of torchvision's ImageFolder."""
    found = []
    for folder, _, names in sorted(os.walk(root, followlinks=True)):
        here = os.path.relpath(folder, root)
        found += [os.path.normpath(f"{here}/{name}") for name in sorted(names) if Path(name).suffix.lower() in suffixes]
    return found


def contents(root: Path, paths: Sequence[str], name: str) -> list[str | None]:
    """The sha256 of each file's bytes, or None for a file that does not decode as a picture.

    Every byte is read and every picture decoded once, by threads; the outcome is kept in the store under the files'
    names, sizes, inodes and times of change, so a changed file is always read again, and nothing else is.

    Args:
        root: The folder.
        paths: Of the files, relative to it.
        name: Of the data, for the progress bar.
    """
    stats = [(root / path).stat() for path in paths]
    facts = [[path, s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino] for path, s in zip(paths, stats, strict=True)]
    place = entry("pictures", {"root": str(root.resolve()), "files": digest(facts)})
    if (kept := place.open()) is not None:
        return json.loads(kept.files["contents.json"].read_text())
    with ThreadPoolExecutor() as pool:
        found = list(progress(pool.map(_content, (root / p for p in paths)), f"reading {name}", len(paths)))
    place.publish({"contents.json": json.dumps(found).encode()})
    return found


def _content(path: Path) -> str | None:
    data = path.read_bytes()
    try:
        with Image.open(io.BytesIO(data)) as picture:
            picture.draft("RGB", (1, 1))  # JPEG: all of the file is parsed, but an eighth of the size is computed
            picture.load()
    except Exception:  # what PIL raises on damaged files is of a dozen kinds
        return None
    return hashlib.sha256(data).hexdigest()


def readable(found: Sequence[str | None], paths: Sequence[str], name: str, most: float) -> list[int]:
    """Positions of the files that are pictures; names and counts the others.

    Args:
        found: Of each file, its digest or None.
        paths: Of the files.
        name: Of the data.
        most: The share of files, in [0, 1], that may be broken.

    Raises:
        UserError: If more are, or all.
    """
    broken = [path for path, content in zip(paths, found, strict=True) if content is None]
    if broken:
        shown = ", ".join(broken[:5]) + (", ..." if len(broken) > 5 else "")
        text = f"{len(broken)} of {len(paths)} images of `{name}` do not decode: {shown}"
        if len(broken) > most * len(paths) or len(broken) == len(paths):
            raise UserError(f"{text}. At most a share of {most:g} may be skipped (data.max_unreadable).")
        log.warning("%s; skipped", text)
    return [position for position, content in enumerate(found) if content is not None]


def lines(path: str | Path) -> list[str]:
    """The lines of a UTF-8 text, whether ended by LF, CRLF or a bare CR; a final line end makes no extra line.

    Raises:
        UserError: If the file is missing or is not UTF-8.
    """
    path = Path(path).expanduser()
    try:
        # Text mode translates all three line ends; str.splitlines would also split at form feeds and the like.
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"The list {path} cannot be read: {error.strerror} (looked for from {Path.cwd()}).") from None
    except UnicodeDecodeError as error:
        raise UserError(f"The list {path} is not UTF-8 text (byte {error.start}); save it as UTF-8.") from None
    return text.removesuffix("\n").split("\n")
