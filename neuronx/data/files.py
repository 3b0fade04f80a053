"""Files: pictures, byte by byte, and what each of them is; texts with one entry a line."""

import hashlib
import io
import json
import logging
import threading
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import PIL
from PIL import Image, UnidentifiedImageError

from neuronx.data.pixels import Scale, check_colours, extent, is_deep, is_wide, orientation, rgb, scale_of, size_read
from neuronx.errors import UserError
from neuronx.progress import progress
from neuronx.store.cache import digest, entry
from neuronx.store.given_file import check_ends, check_pointer

log = logging.getLogger(__name__)

LARGEST = 2**30
"""Pixels; a file that says it has more is taken for a trap."""


@dataclass(frozen=True)
class PictureFile:
    """What the file of a picture holds.

    Attributes:
        content: The sha256 of its bytes.
        fault: Why it is no picture that can be read; empty for one that can.
        size: (height, width) as stored.
        turn: Its EXIF orientation, 1 to 8.
        extent: The least and largest grey value of a picture of more than eight bits.
        floats: Whether these are floats.
        frames: How many pictures the file holds; the first is read.
    """

    content: str = ""
    fault: str = ""
    size: tuple[int, int] = (0, 0)
    turn: int = 1
    extent: tuple[float, float] | None = None
    floats: bool = False
    frames: int = 1

    def lies(self, upright: bool = True) -> tuple[int, int]:
        """(height, width) of the picture as EXIF turns it, or as it is stored."""
        return self.size[::-1] if upright and self.turn >= 5 else self.size

    def shown(self, upright: bool = True) -> tuple[int, int]:
        """(height, width) of the picture that is read, which is reduced where it is large."""
        height, width = self.lies(upright)
        return size_read(width, height)[::-1]


def open_rgb(path: Path, scale: Scale | None = None, upright: bool = True) -> Image.Image:
    """The picture in a file, in RGB and upright; see `neuronx.data.pixels`.

    Args:
        path: The file.
        scale: Of the grey values of its data set; its own by default.
        upright: Turned as its EXIF orientation says; False leaves it as it is stored.
    """
    with opened(path) as picture:
        picture.draft("RGB", size_read(*picture.size))  # a large JPEG is decoded at a half, a quarter or an eighth
        return rgb(picture, scale, upright)


@contextmanager
def opened(source: Path | io.BytesIO) -> Iterator[Image.Image]:
    """Opens a picture, however large. It is decoded inside the context: PIL refuses large ones outside."""
    try:
        picture = Image.open(source)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        with _LARGE:
            kept, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            try:
                with Image.open(source) as picture:
                    yield picture
            finally:
                Image.MAX_IMAGE_PIXELS = kept
    else:
        with picture:
            yield picture


_LARGE = threading.Lock()
"""Held while a picture beyond PIL's limit is read: threads share the limit, and one such picture fills the memory."""


def examined(root: Path, paths: Sequence[str], name: str) -> list[PictureFile]:
    """What each of some files holds.

    Every byte is read and every picture decoded once, by threads; the outcome is kept in the store under the files'
    names, sizes, inodes and times of change, so a changed file is always read again, and nothing else is.

    Args:
        root: The folder.
        paths: Of the files, relative to it.
        name: Of the data, for the progress bar.
    """
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # large pictures are read reduced
    warnings.filterwarnings("ignore", "Corrupt EXIF data")  # turns nothing
    places = [root / path for path in paths]
    facts = digest(list(map(_facts, places)))
    place = entry("picture_files", {"root": str(root.resolve()), "files": facts, "pillow": PIL.__version__})
    if (kept := place.open()) is not None:
        return [_restored(*values) for values in json.loads(kept.files["files.json"].read_text())]
    with ThreadPoolExecutor() as pool:
        # Some files at a time: handing out each alone would take a third of the time.
        parts = pool.map(lambda at: list(map(_examine, places[at : at + 32])), range(0, len(places), 32))
        found = list(progress(chain.from_iterable(parts), f"reading {name}", len(paths)))
    place.publish({"files.json": json.dumps([list(vars(one).values()) for one in found]).encode()})
    return found


def _restored(content: str, fault: str, size: list[int], turn: int, grey: list[float], *more: Any) -> PictureFile:
    """From what JSON made of the fields: tuples come back as lists."""
    return PictureFile(content, fault, (size[0], size[1]), turn, (grey[0], grey[1]) if grey else None, *more)


def _facts(path: Path) -> list[str | int]:
    try:
        found = path.stat()
    except OSError:  # a link that leads nowhere
        return [str(path)]
    return [str(path), found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def _examine(path: Path) -> PictureFile:
    try:
        data = path.read_bytes()
    except OSError as error:
        return PictureFile(fault=(error.strerror or "cannot be read").lower())
    content = hashlib.sha256(data).hexdigest()
    try:
        with opened(io.BytesIO(data)) as picture:
            if picture.width * picture.height > LARGEST:
                return PictureFile(content, f"{picture.width} x {picture.height} pixels are too many")
            return _decoded(picture, content)
    except Exception as error:  # what PIL raises on damaged files is of a dozen kinds
        return PictureFile(content, why_no_picture(data, error))


def _decoded(picture: Image.Image, content: str) -> PictureFile:
    """Decodes a picture that was opened; raises whatever PIL does."""
    frames = int(getattr(picture, "n_frames", 1)) if picture.format in ("TIFF", "GIF") else 1
    wide, turn = is_wide(picture), orientation(picture)
    tags = getattr(picture, "tag_v2", {})  # PIL gives a TIFF's size as shown
    size = (tags.get(257, picture.height), tags.get(256, picture.width))
    picture.draft("RGB", (1, 1))  # JPEG: all of the file is parsed, but an eighth of the size is computed
    picture.load()
    check_colours(picture, wide)
    if not is_deep(picture):
        if picture.mode not in ("L", "RGB"):
            rgb(picture.crop((0, 0, 1, 1)))
        return PictureFile(content, size=size, turn=turn, frames=frames)
    if (found := extent(picture)) is None:
        return PictureFile(content, "holds no finite number")
    return PictureFile(content, "", size, turn, found, picture.mode == "F", frames)


def why_no_picture(data: bytes, error: Exception) -> str:
    """Why bytes are no picture, in a few words."""
    if isinstance(error, UserError):
        return str(error)
    if not data:
        return "is empty"
    if data.startswith(b"version https://git-lfs"):
        return "is a git-lfs pointer: git lfs pull"
    if data[4:8] == b"ftyp" and data[8:12] in (b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"heim", b"heis"):
        return "is HEIC: save it as JPEG or PNG"
    return "is no picture" if isinstance(error, UnidentifiedImageError) else "is damaged or cut short"


def readable(found: Sequence[PictureFile], paths: Sequence[str], name: str, most: float) -> list[int]:
    """Positions of the files that are pictures; names and counts the others.

    Args:
        found: What each file holds.
        paths: Of the files.
        name: Of the data.
        most: The share of files, in [0, 1], that may be broken.

    Raises:
        UserError: If more are, or all.
    """
    broken = [f"{path} ({file.fault})" for path, file in zip(paths, found, strict=True) if file.fault]
    if broken:
        shown = ", ".join(broken[:5]) + (", ..." if len(broken) > 5 else "")
        text = f"{len(broken)} of {len(paths)} images of `{name}` do not decode: {shown}"
        if len(broken) > most * len(paths) or len(broken) == len(paths):
            raise UserError(f"{text}. At most a share of {most:g} may be skipped (data.max_unreadable).")
        log.warning("%s; skipped", text)
    return [position for position, file in enumerate(found) if not file.fault]


def scale_for(found: Sequence[PictureFile], name: str) -> Scale:
    """The scale of a data set's grey values beyond eight bits; says it, and how many files hold several pictures."""
    deep = [file for file in found if file.extent]
    scale = scale_of(
        [file.extent for file in deep if file.extent and not file.floats],
        [file.extent for file in deep if file.extent and file.floats],
    )
    for kind, (black, white) in ((False, scale.whole), (True, scale.floats)):
        if count := sum(file.floats == kind for file in deep):
            what = "floats" if kind else "more than 8 bits"
            log.warning("%d pictures of %s are grey of %s: %g is black, %g white", count, name, what, black, white)
    if several := sum(file.frames > 1 for file in found):
        log.warning("%d files of %s hold several pictures; the first of each is read", several, name)
    return scale


def lines(path: str | Path) -> list[str]:
    """The lines of a UTF-8 text, whether ended by LF, CRLF or a bare CR; a final line end makes no extra line.

    Raises:
        UserError: If the file is missing or is not UTF-8.
    """
    path = Path(path).expanduser()
    check_ends(path, "list")
    try:
        # Text mode translates all three line ends; str.splitlines would also split at form feeds and the like.
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"The list {path} cannot be read: {error.strerror} (looked for from {Path.cwd()}).") from None
    except UnicodeDecodeError as error:
        raise UserError(f"The list {path} is not UTF-8 text (byte {error.start}); save it as UTF-8.") from None
    check_pointer(path, text, "list")
    return text.removesuffix("\n").split("\n")
