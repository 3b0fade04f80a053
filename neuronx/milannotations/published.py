"""The published MILANNOTATIONS: names of models and of groups of them, and the zips, unpacked whole or not at all."""

import shutil
import stat
import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from filelock import FileLock

from neuronx.errors import UserError, unknown
from neuronx.milannotations.layer import layers_in
from neuronx.progress import Bar, progress_bar
from neuronx.store.download import fetch

BASE = tuple(
    f"{network}/{data}" for network in ("alexnet", "resnet152", "biggan") for data in ("imagenet", "places365")
)
"""The models that people described first, in the order in which every group has them."""

ANNOTATED = (*BASE, "dino_vits8/imagenet")
"""All models with published annotations, three for each unit."""
ANNOTATIONS = 3


def _named(*parts: str) -> tuple[str, ...]:
    """Those of the base whose network or data set is one of `parts`."""
    return tuple(key for key in BASE if set(key.split("/")) & set(parts))


GROUPS: dict[str, tuple[str, ...]] = {
    "base": BASE,
    "cls": _named("alexnet", "resnet152"),
    "gen": _named("biggan"),
    **{part: _named(part) for part in ("imagenet", "places365", "alexnet", "resnet152", "biggan")},
    **{f"not-{one.replace('/', '-')}": tuple(key for key in BASE if key != one) for one in BASE},
}
"""Group -> its models."""

_TORCHVISION = (
    *("alexnet", "densenet121", "densenet201", "mobilenet_v2", "resnet18", "resnet34", "resnet50", "resnet101"),
    *("resnet152", "shufflenet_v2_x1_0", "squeezenet1_0", "vgg11", "vgg13", "vgg16", "vgg19"),
)
_NAMED = (
    *(f"{name}/{data}" for name in _TORCHVISION for data in ("imagenet", "imagenet-blurred")),
    "resnet18/places365",
)
UNANNOTATED = tuple(key for key in _NAMED if key not in ANNOTATED)
"""Models that MILAN names and nobody annotated: their exemplars were never published."""

HOST = "http://milan.csail.mit.edu/data"
"""Where MILAN's authors keep the zips, one for each model, without checksums."""
BLOCK = 1 << 20


def from_imagenet(key: str) -> bool:
    """Whether a model's exemplars are ImageNet's validation images, which may not be handed out with the masks."""
    network, _, data = key.partition("/")
    return data == "imagenet" and network != "biggan"


class Damaged(UserError):
    """A zip that no second attempt to unpack will mend."""


def download(key: str, root: str | Path, host: str = HOST) -> Path:
    """Fetches and unpacks the annotations of a model: gigabytes. Goes on where an earlier attempt broke off.

    A zip that lies beside the models already (`<root>/alexnet-imagenet.zip`) is unpacked without asking the network,
    and stays; one that was fetched is deleted when it is unpacked.

    Args:
        key: One of `ANNOTATED`.
        root: Gets the folder `<root>/<key>`. If that is there and holds layers, nothing is done.
        host: A mirror's address, without the name of the zip.

    Returns:
        The folder of the model.

    Raises:
        UserError: No connection, a zip that is cut short or damaged (it is deleted if it was fetched), one that would
            write elsewhere or holds links, or a full disk. No part of a model's folder is left behind.
    """
    if key not in ANNOTATED:
        raise unknown("published model", key, ANNOTATED)
    root = Path(root).expanduser()
    folder, zipped = root / key, root / f"{key.replace('/', '-')}.zip"
    if _is_there(folder):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{folder.name}.lock")):
            if _is_there(folder):
                return folder
            for stale in folder.parent.glob(f".{folder.name}.*"):  # of a process that was killed
                if stale.is_dir():
                    shutil.rmtree(stale)
            given = zipped.is_file()
            fetch(f"{host}/{zipped.name}", zipped)
            try:
                unpack(zipped, folder)
            except Damaged:
                if not given:
                    zipped.unlink()
                raise
            if not given:
                zipped.unlink()
            return folder
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror or error}.") from error


def unpack(zipped: Path, folder: Path) -> Path:
    """Unpacks a zip of layers' folders into `folder`, which appears when everything is there and whole.

    Raises:
        Damaged: If the zip is cut short or broken, names a path outside its folder, holds links, a path twice or no
            layers. It names the zip.
        UserError: If there is no space for it, or `folder` is there and not empty.
    """
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{folder} is there, but holds no layers; move it away before {zipped.name} is unpacked.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Beside the folder, so that it can be renamed into place.
    being = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        with zipfile.ZipFile(zipped) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            for entry in entries:
                _check(entry, zipped)
            total = sum(entry.file_size for entry in entries)
            if total > (free := shutil.disk_usage(being).free):
                raise UserError(f"{zipped} takes {_gb(total)} unpacked, and {folder.parent} has {_gb(free)} left.")
            with progress_bar(f"unpacking {zipped.name}", total, of_bytes=True) as bar:
                for entry in entries:
                    _extract(archive, entry, being, bar)
        if not layers_in(being):
            raise Damaged(f"{zipped} holds no layers, folders with masks.npy, at its top.")
        being.chmod(0o755)
        being.replace(folder)
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise Damaged(f"{zipped} holds a path twice: {Path(str(error.filename)).relative_to(being)}.") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        raise Damaged(f"{zipped} is no zip, cut short or damaged ({error}); delete it and fetch it again.") from error
    finally:
        shutil.rmtree(being, ignore_errors=True)
    return folder


def _is_there(folder: Path) -> bool:
    """Whether there is more than the empty folder that a failed download of MILAN's own code leaves."""
    return folder.is_dir() and bool(layers_in(folder))


def _check(entry: zipfile.ZipInfo, zipped: Path) -> None:
    """Raises Damaged unless an entry is a plain file within the folder, on every system."""
    path = PurePosixPath(entry.filename)
    # A backslash or a colon is a way out on Windows, and an original name that zipfile cut at a null byte hides one.
    whole = entry.orig_filename in (entry.filename, entry.filename.replace("/", "\\"))
    if path.is_absolute() or ".." in path.parts or set("\\:") & set(entry.orig_filename) or not whole:
        raise Damaged(f"{zipped} has a path outside its folder, `{entry.orig_filename!r}`; nothing was unpacked.")
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        raise Damaged(f"{zipped} holds something that is no file, such as a link: {entry.filename}; nothing unpacked.")


def _extract(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, folder: Path, bar: Bar) -> None:
    path = folder / entry.filename
    path.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(entry) as source, path.open("xb") as file:
        # Reads no more than the entry says, and compares its checksum at the end.
        while block := source.read(BLOCK):
            file.write(block)
            bar.advance(len(block))


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
