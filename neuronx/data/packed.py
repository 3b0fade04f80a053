"""Pictures that lie packed: a zip of folders, tar shards as WebDataset writes them, parquet tables.

They are unpacked into the store once, as a folder of pictures, and read from there like any other folder.
"""

import json
import os
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from neuronx.data.class_folders import Listing
from neuronx.data.files import lines
from neuronx.data.folder import FolderProbe
from neuronx.data.items import LABELS, PICTURES, Targets, targets_of
from neuronx.data.walk import SUFFIXES
from neuronx.errors import UserError, brief
from neuronx.progress import progress
from neuronx.store.cache import entry, read_or_build

Sample = tuple[str, bytes, Any]
"""What a picture is called, its encoded bytes, and its target as JSON can hold it; None where it has none."""


def zipped(root: str | Path | None = None, *, inside: str = "", name: str | None = None, **options: Any) -> FolderProbe:
    """Pictures in a zip file, in one folder for each class, or flat and without labels.

    Args:
        root: The zip file.
        inside: The folder in it that holds the class folders; one that holds everything need not be named.
        name: Used in tables; the file's by default.
        options: Of `FolderProbe`.

    Raises:
        UserError: If there is no such file, it is no zip, encrypted or broken, or no such folder is in it.
    """
    (path,) = _files(root, ".zip", "a zip file")

    def unpack(folder: Path) -> None:
        try:
            with zipfile.ZipFile(path) as archive:
                members = [one for one in archive.infolist() if Path(one.filename).suffix.lower() in SUFFIXES]
                for member in progress(members, f"unpacking {path.name}"):
                    archive.extract(member, folder / "pictures")
        except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError) as error:
            why = "it is encrypted" if "encrypted" in str(error) else "it is no zip file, or damaged"
            raise UserError(f"{path} cannot be unpacked: {why}.") from None
        (folder / "pictures").mkdir(exist_ok=True)

    folder = _unpacked([path], unpack) / "pictures"
    where = folder / inside
    if not where.is_dir() or not where.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"There is no folder {inside} in {path} (data.inside={inside}).")
    while not inside and len(there := [one for one in where.iterdir() if one.name not in ("__MACOSX",)]) == 1:
        if not there[0].is_dir() or not any(one.is_dir() for one in there[0].iterdir()):
            break
        where = there[0]
    try:
        return FolderProbe(where, name=name or path.stem, **options)
    except UserError as error:
        text = str(error).replace(f"data.root={folder}{os.sep}", "data.inside=").replace(str(folder), str(path))
        raise UserError(text) from None


def webdataset(root: str | Path | None = None, *, name: str | None = None, **options: Any) -> FolderProbe:
    """Pictures in tar files as WebDataset writes them: `key.jpg`, and `key.cls` or `key.json` with its class.

    The classes' names may stand beside the shards, one a line, in `classnames.txt` or `classes.txt`.

    Args:
        root: A tar file, a folder of them, or a pattern with `*`.
        name: Used in tables; that of the file or folder by default.
        options: Of `FolderProbe`.

    Raises:
        UserError: If there is no such file, one is no tar, a picture stands twice, or targets are no classes.
    """
    shards = _files(root, ".tar", "a tar file, or a folder of them")
    names = next((one for at in ("classnames.txt", "classes.txt") if (one := shards[0].parent / at).is_file()), None)
    return _probe(shards, _tar_samples, name or _name(root, shards), lines(names) if names else (), options)


def parquet(
    root: str | Path | None = None,
    *,
    image: str | None = None,
    label: str | None = None,
    name: str | None = None,
    **options: Any,
) -> FolderProbe:
    """Pictures in parquet tables, as Hugging Face stores them: encoded bytes in one column, classes in another.

    Args:
        root: A parquet file, a folder of them, or a pattern with `*`.
        image: Column of the pictures; the one called `image` or the like by default.
        label: Column of the classes; the one called `label` or the like by default.
        name: Used in tables; that of the file or folder by default.
        options: Of `FolderProbe`.

    Raises:
        UserError: If pyarrow is not installed, there is no such file or column, or targets are no classes.
    """
    try:
        import pyarrow.parquet as pq
    except ImportError:
        raise UserError(
            "data=parquet reads tables with pyarrow, which is not installed: pip install pyarrow."
        ) from None
    tables = _files(root, ".parquet", "a parquet file, or a folder of them")
    try:
        schema = pq.read_schema(tables[0])
    except Exception as error:  # pyarrow raises errors of its own
        raise UserError(f"{tables[0]} is no parquet table, or damaged.") from error
    picture = _column(image, PICTURES, schema.names, "image", tables[0])
    target = _column(label, LABELS, schema.names, "label", tables[0], needed=False)

    def samples(path: Path) -> Iterator[Sample]:
        columns = [picture] + [target] * (target is not None)
        for batch in pq.ParquetFile(path).iter_batches(256, columns=columns):
            for row in batch.to_pylist():
                given = row[picture]
                data = given.get("bytes") if isinstance(given, Mapping) else given
                if not isinstance(data, bytes):
                    raise UserError(f"{path}, column `{picture}`: {brief(given)} is no encoded picture.")
                yield "", data, row[target] if target is not None else None

    known = _feature_names(schema.metadata, target)
    return _probe(tables, samples, name or _name(root, tables), known, options, facts=[picture, target])


def huggingface(
    root: str | Path | None = None, *, split: str | None = None, name: str | None = None, **options: Any
) -> Any:
    """A data set of the library `datasets` that was saved on disk (`save_to_disk`).

    Args:
        root: Its folder.
        split: Of those that it has, such as train; the only one by default.
        name: Used in tables; the folder's by default.
        options: Of `InMemoryProbe`.

    Raises:
        UserError: If the library is not installed, the folder is no such data set, or several splits are there.
    """
    from neuronx.data.in_memory import probe_of

    try:
        import datasets
    except ImportError:
        raise UserError(
            "data=huggingface needs the library datasets, which is not installed: pip install datasets."
        ) from None
    if root is None or not Path(root).expanduser().is_dir():
        raise UserError(f"There is no folder {root} (given as data.root): give one that save_to_disk has written.")
    path = Path(root).expanduser()
    try:
        found = datasets.load_from_disk(str(path))
    except Exception as error:
        raise UserError(f"{path} is no data set that save_to_disk has written.") from error
    if isinstance(found, Mapping):
        if split is None and len(found) == 1:
            split = next(iter(found))
        if split not in found:
            raise UserError(
                f"{path} holds the splits {', '.join(found)}: say which, as in data.split={next(iter(found))}."
            )
        found = found[split]
    return probe_of(found, name=name or path.resolve().name, **options)


def _probe(
    files: Sequence[Path],
    samples: Callable[[Path], Iterator[Sample]],
    name: str,
    classes: Sequence[str],
    options: Mapping[str, Any],
    facts: Sequence[str | None] = (),
) -> FolderProbe:
    """The pictures of some files, unpacked, with the labels that their targets are."""

    def unpack(folder: Path) -> None:
        targets: dict[str, Any] = {}
        for number, path in enumerate(progress(files, f"unpacking {name}")):
            for called, data, target in samples(path):
                place = f"{number:05d}/{called}" if called else f"{number:05d}/{len(targets):08d}{_ending(data)}"
                if place in targets:
                    raise UserError(f"{path} has the picture {called} twice.")
                file = folder / "pictures" / place
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(data)
                targets[place] = target
        (folder / "targets.json").write_text(json.dumps(targets))

    folder = _unpacked(files, unpack, *facts)
    targets = json.loads((folder / "targets.json").read_text())
    said = targets_of(list(targets.values()), name, classes) if targets else Targets()
    names = said.names or tuple(classes)
    labels = None if said.labels is None else said.labels.tolist()
    if labels is not None and (not names or max(labels) >= len(names) or min(labels) < 0):
        if names or min(labels) < 0:
            raise UserError(f"`{name}` has labels {min(labels)} to {max(labels)}, but {len(names)} class names.")
        names = tuple(f"class {number}" for number in range(max(labels) + 1))
    listing = Listing(folder / "pictures", list(targets), labels, names)
    probe = FolderProbe(folder / "pictures", name=name, list_images=lambda _: listing, **options)
    if said.label_sets is not None:
        place = {path: row for row, path in enumerate(targets)}
        probe.label_sets = said.label_sets[torch.tensor([place[path] for path in probe.paths])]
        probe.class_names = names or tuple(f"class {number}" for number in range(said.label_sets.shape[1]))
    return probe


def _tar_samples(path: Path) -> Iterator[Sample]:
    """The pictures of a shard; a sample's files follow each other, called by one key."""
    try:
        with tarfile.open(path) as archive:
            key, picture, target = "", None, None
            for member in archive:
                if not member.isfile() or Path(member.name).name.startswith("."):
                    continue
                folder, _, file = member.name.rpartition("/")
                stem, _, kind = file.partition(".")
                if f"{folder}/{stem}" != key:
                    if picture is not None:
                        yield (*picture, target)
                    key, picture, target = f"{folder}/{stem}", None, None
                data = archive.extractfile(member)
                content = b"" if data is None else data.read()
                if f".{kind.lower().rpartition('.')[2]}" in SUFFIXES:
                    picture = file, content
                elif kind.lower() in ("cls", "json", "label", "labels"):
                    target = _target(content, kind.lower(), f"{path}, {member.name}")
            if picture is not None:
                yield (*picture, target)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise UserError(f"{path} is no tar file, or damaged.") from error


def _target(content: bytes, kind: str, where: str) -> Any:
    """What stands in a sample's file: a number, a name, or what its JSON says."""
    try:
        text = content.decode().strip()
        found = json.loads(text) if kind == "json" else int(text) if text.lstrip("-").isdecimal() else text
    except ValueError:
        raise UserError(f"{where} is no {'JSON' if kind == 'json' else 'text'}.") from None
    if isinstance(found, Mapping):
        return next((found[key] for key in LABELS if key in found), None)
    return found


def _files(root: str | Path | None, ending: str, kind: str) -> list[Path]:
    """The files that are meant, sorted by name."""
    if root is None or root == "":
        raise UserError(f"Say where the pictures are: data.root= is {kind}.")
    path = Path(root).expanduser()
    if "*" in path.name and not path.exists():
        found = sorted(path.parent.glob(path.name))
    else:
        found = sorted(path.glob(f"*{ending}")) if path.is_dir() and ending != ".zip" else [path]
    if not found or not all(one.is_file() for one in found):
        raise UserError(f"There is no {ending} file at {path} (given as data.root); it is {kind}.")
    return found


def _name(root: str | Path | None, files: Sequence[Path]) -> str:
    return files[0].stem if len(files) == 1 else Path(str(root)).expanduser().resolve().name.replace("*", "")


def _unpacked(files: Sequence[Path], unpack: Callable[[Path], None], *facts: str | None) -> Path:
    """The folder of the store in which some files are unpacked; once, unless they change."""
    stats = [(path.resolve(), path.stat()) for path in files]
    key = [[str(path), found.st_size, found.st_mtime_ns, found.st_ino] for path, found in stats]

    def build(folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        unpack(folder)

    return read_or_build(entry("unpacked", {"files": key, "read": list(facts)}), build)


def _ending(data: bytes) -> str:
    return ".jpg" if data[:2] == b"\xff\xd8" else ".png" if data[1:4] == b"PNG" else ".img"


def _column(
    given: str | None, usual: Sequence[str], have: Sequence[str], option: str, path: Path, needed: bool = True
) -> str | None:
    """The column that is meant."""
    found = given if given is not None else next((one for one in usual if one in have), None)
    if (found is None and needed) or (found is not None and found not in have):
        raise UserError(
            f"{path} has no column `{found or option}`; it has {', '.join(have[:8])}: data.{option}=COLUMN."
        )
    return found


def _feature_names(metadata: Mapping[bytes, bytes] | None, column: str | None) -> tuple[str, ...]:
    """Names of the classes, as Hugging Face writes them into the head of a table."""
    try:
        feature = json.loads((metadata or {})[b"huggingface"])["info"]["features"][column]
        return tuple((feature.get("feature") or feature)["names"])
    except (KeyError, TypeError, ValueError, AttributeError):
        return ()
