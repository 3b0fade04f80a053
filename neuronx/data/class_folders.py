"""Which files are the pictures of a data set and which classes their folders are, by name or by number."""

import hashlib
import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from neuronx.data.files import PictureFile, lines
from neuronx.data.published import FILES
from neuronx.data.segmentation import Segmentation
from neuronx.data.walk import pictures_in
from neuronx.errors import UserError, brief

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Listing:
    """Which files are the images of a data set, in its order.

    Attributes:
        folder: That holds them.
        paths: Relative to the folder.
        labels: Class index of each; None without labels.
        classes: Folder or name of each class, in class order.
        numbers: By which the class folders are called, where they are, in class order.
        segmentation: Makes what the images' pixels show from the positions of the images that could be read, their
            files, and whether they are turned upright.
    """

    folder: Path
    paths: Sequence[str]
    labels: Sequence[int] | None = None
    classes: Sequence[str] = ()
    numbers: Sequence[int] | None = None
    segmentation: Callable[[Sequence[int], Sequence[PictureFile], bool], Segmentation] | None = None


def class_folders(root: Path) -> Listing:
    """Subfolders are classes, as in torchvision's ImageFolder; without any, the folder's own images.

    Classes come in the order of their names; those that are called by numbers, in the order of the numbers.

    Raises:
        UserError: If the subfolders are parts of a data set, train and val, or one that holds the classes.
    """
    found = pictures_in(root)
    paths = [path for path in found if os.sep in path]
    if not paths:
        return Listing(root, found)
    if len(paths) < len(found):
        log.warning("%d pictures beside the class folders of %s are left out", len(found) - len(paths), root)
    classes = list(dict.fromkeys(path.partition(os.sep)[0] for path in paths))
    _no_parts(root, classes, paths)
    if (numbers := numbered(classes)) and numbers != sorted(numbers):
        classes = [folder for _, folder in sorted(zip(numbers, classes, strict=True))]
        first = ", ".join(classes[:3])
        log.warning("the class folders of %s count as numbers (%s, ...), not as text as in ImageFolder", root, first)
    index = {folder: label for label, folder in enumerate(classes)}
    labels = [index[path.partition(os.sep)[0]] for path in paths]
    return Listing(root, paths, labels, classes, sorted(numbers) if numbers else None)


_PART = re.compile(
    r"(train|training|val|valid|validation|test|testing|dev|eval)([ _-]?(\d+|set|images?|data|split))?", re.IGNORECASE
)
"""What the folder of a part of a data set is called: train, val2017, test_set."""


def _no_parts(root: Path, classes: Sequence[str], paths: Sequence[str]) -> None:
    """Refuses folders that hold class folders in their turn: parts of a data set, or all of it."""
    parts = [folder for folder in classes if _PART.fullmatch(folder)]
    if len(parts) > 1:
        raise UserError(
            f"{root} holds the parts of a data set ({', '.join(parts)}), no class folders: give one of them, such as "
            f"data.root={root / parts[0]}."
        )
    if len(classes) == 1 and any(path.count(os.sep) > 1 for path in paths):
        raise UserError(
            f"{root} holds one folder with all pictures, {classes[0]}: if its folders are the classes, give "
            f"data.root={root / classes[0]}."
        )


def numbered(folders: Sequence[str]) -> list[int] | None:
    """The numbers of folders that are called by one each and by the same text before it: 7, 007 or class_7.

    None where they are not so. WordNet ids are names.
    """
    found = [re.fullmatch(r"(.*?)([0-9]+)", folder) for folder in folders]
    parts = [(match[1], int(match[2])) for match in found if match]
    if len(parts) < len(folders) or len({before for before, _ in parts}) > 1:
        return None
    if len({number for _, number in parts}) < len(parts) or all(re.fullmatch(r"n\d{8}", name) for name in folders):
        return None
    return [number for _, number in parts]


def named(
    given: str | Path | Sequence[str] | Mapping[str, str], listing: Listing, data: str
) -> tuple[tuple[str, ...], list[int]]:
    """The names of the classes, in class order, and the class of each folder.

    A list of names goes with numbered folders by number, from 0 or, where the last number is that of the names, from 1;
    with others in their order.

    Args:
        given: The names, or a text file with one a line, or {folder: name}.
        listing: Of the data set.
        data: Its name, for messages.

    Raises:
        UserError: If the names do not fit the folders, one is blank, or one stands there twice.
    """
    folders, numbers, count = listing.classes, listing.numbers, len(listing.classes)
    if isinstance(given, Mapping):
        return _of_folders(given, folders, data), list(range(count))
    names, where = read_names(given, data)
    plain = numbers is None or list(numbers) in (list(range(count)), list(range(1, count + 1)))
    if len(names) == count and (plain or given is folders):
        return names, list(range(count))
    if numbers is None:
        raise UserError(f"{where} has {len(names)} names, but `{data}` has {count} classes.")
    if not plain and 0 in numbers and max(numbers) < len(names):
        return names, list(numbers)
    if not plain and 0 not in numbers and max(numbers) == len(names):
        return names, [number - 1 for number in numbers]
    raise UserError(
        f"{where} has {len(names)} names, but the {count} class folders of `{data}` are numbered {min(numbers)} to "
        f"{max(numbers)}: a list has a name for every number from 0, or from 1 to the last. "
        "Or name them one by one: 'data.class_names={FOLDER:NAME,...}'."
    )


def read_names(given: str | Path | Sequence[str], data: str) -> tuple[tuple[str, ...], str]:
    """The names of classes, and where they stand, for messages.

    Raises:
        UserError: For a blank name, or one that stands there twice and not in a published list.
    """
    where = str(given) if isinstance(given, str | Path) else "class_names"
    read = lines(given) if isinstance(given, str | Path) else list(given)
    names = [_name(name, f"{where}, entry {number}") for number, name in enumerate(read, 1)]
    while names and not names[-1]:
        names.pop()
    if "" in names:
        raise UserError(f"Line {names.index('') + 1} of {where} is blank; every class of `{data}` needs a name.")
    if twice := next((name for name in names if names.count(name) > 1), None):
        published = {sha256 for name, (_, _, sha256) in FILES.items() if name.startswith("classes/")}
        # ImageNet's published names have two missiles, and lines that end by CR.
        if hashlib.sha256("\r".join(names).encode()).hexdigest() not in published:
            raise UserError(f"{where} has the class `{twice}` twice; every class of `{data}` needs its own name.")
    return tuple(names), where


def _of_folders(given: Mapping[str, str], folders: Sequence[str], data: str) -> tuple[str, ...]:
    names = {str(folder): _name(name, f"class_names, {folder}") for folder, name in given.items()}
    if wrong := sorted(set(names) ^ set(folders)):
        what = "no name for" if wrong[0] in folders else "a name for"
        have = "" if wrong[0] in folders else f", which `{data}` does not have"
        raise UserError(f"class_names has {what} the class folder `{wrong[0]}`{have}.")
    return read_names([names[folder] for folder in folders], data)[0]


def _name(name: object, where: str) -> str:
    if isinstance(name, bool) or not isinstance(name, str | int):
        raise UserError(f"{where}: {brief(name)} is no name of a class.")
    return str(name).strip()
