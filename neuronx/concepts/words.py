"""Word lists: what a CLIP may say about a unit. Read when first asked for, always distinct, never with a blank."""

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from neuronx.data.files import lines
from neuronx.data.published import published
from neuronx.errors import UserError
from neuronx.tables.csv import any_case, read_csv

if TYPE_CHECKING:
    from neuronx.data.probe import Probe

log = logging.getLogger(__name__)

FETCHED = ("3k", "10k", "20k", "nouns")
"""Published lists that are fetched as they are; 3k, 10k and 20k are common English words, the last two by frequency."""

_INSTEAD = "use a list of your own with concepts=file concepts.path=FILE"


class Words:
    """A list of words or phrases, cheap to make: nothing is read until the words are asked for."""

    def __init__(
        self, source: "Sequence[str] | str | Path | Callable[[Probe | None], Iterable[str]]", name: str | None = None
    ) -> None:
        """Names a list without reading it.

        Args:
            source: The words themselves; or the name of a list (`3k`, `10k`, `20k`, `nouns`, `broden`,
                `imagenet_labels`); or a text file with one a line; or a function that builds them for a probe (None
                where no probe is at hand).
            name: Of the list, for messages.
        """
        self.source = source
        self._latest: tuple[Probe | None, tuple[str, ...]] | None = None
        self.name = name or (str(source) if isinstance(source, str | Path) else "given")

    def of(self, probe: "Probe | None") -> tuple[str, ...]:
        """The distinct words to use on this probe, first occurrence kept; "nan" and "null" are words like others."""
        if not callable(self.source):
            return self.names
        if self._latest is None or self._latest[0] is not probe:
            self._latest = probe, distinct(self.source(probe), self.name)
        return self._latest[1]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The distinct words of a list that does not depend on the probe."""
        if callable(self.source):
            return self.of(None)
        return distinct(_read(self.source) if isinstance(self.source, str | Path) else self.source, self.name)


def distinct(words: Iterable[str], name: str) -> tuple[str, ...]:
    """Strips the words, drops blank ones and exact repetitions (the first stays) and logs how many of each.

    Raises:
        UserError: If nothing is left.
    """
    stripped = [word.strip() for word in words]
    full = [word for word in stripped if word]
    kept = tuple(dict.fromkeys(full))
    if not kept:
        raise UserError(f"The word list `{name}` holds no words; it needs one a line.")
    blank, repeated = len(stripped) - len(full), len(full) - len(kept)
    if blank or repeated:
        log.info("word list %s: %d words; left out: %d blank, %d repeated", name, len(kept), blank, repeated)
    return kept


def file(path: str) -> Words:
    """The words of a text file, one a line."""
    return Words(lambda probe: lines(path), str(path))


def broden(path: str | None = None, as_published: bool = False) -> Words:
    """The names of Broden's labels, made readable.

    Args:
        path: Broden's own `label.csv` to build them from; None takes the list published with Linear Explanations.
        as_published: Keep the six names that the published cleaning corrupted ("desertand" for "desert, sand").
    """

    def read(probe: "Probe | None") -> list[str]:
        if path is not None:
            return clean(_labels(path), as_published)
        names = lines(published("concepts/broden_labels_clean.txt", _INSTEAD))
        return names if as_published else mend(names)

    return Words(read, "broden")


def imagenet_labels(path: str | None = None) -> Words:
    """The names of the 1000 ImageNet classes: as torchvision carries them, as "published", or the lines of a file."""

    def read(probe: "Probe | None") -> Sequence[str]:
        from neuronx.data.imagenet import torchvision_names

        if path is None:
            return torchvision_names()
        return lines(published("classes/imagenet.txt", _INSTEAD) if path == "published" else path)

    return Words(read, "imagenet_labels")


def labels() -> Words:
    """The names of the probe's classes and superclasses."""

    def read(probe: "Probe | None") -> list[str]:
        if probe is None:
            raise ValueError("these words depend on the probe: ask words.of(probe)")
        return [name.replace("_", " ") for name in (*probe.class_names, *probe.hierarchy)]

    return Words(read, "labels")


def combined(broden: Words, nouns: Words) -> Words:
    """The published recipe: class names, superclass names, Broden's labels, nouns; the first of equal words is kept.

    Class and superclass names are the probe's. Linear Explanations (Oikarinen and Weng, 2024), concept sets.
    """

    def read(probe: "Probe | None") -> list[str]:
        if probe is None:
            raise ValueError("these words depend on the probe: ask words.of(probe)")
        superclasses = [name.replace("_", " ") for name in probe.hierarchy]
        return [*probe.class_names, *superclasses, *broden.of(probe), *nouns.of(probe)]

    return Words(read, "combined")


def default(shapes: Words, natural: Words) -> Words:
    """The list `natural` for natural pictures, `shapes` for generated ones and where no pictures are at hand."""

    def read(probe: "Probe | None") -> Sequence[str]:
        return (natural if probe is not None and probe.domain == "natural" else shapes).of(probe)

    return Words(read, "default")


def _read(source: str | Path) -> Sequence[str]:
    if source in FETCHED:
        return lines(published(f"concepts/{source}.txt", _INSTEAD))
    if source in ("broden", "imagenet_labels"):
        return (broden() if source == "broden" else imagenet_labels()).names
    return lines(source)


def _labels(path: str) -> list[str]:
    columns, rows = read_csv(path, any_case("name"))
    if "name" not in columns:
        raise UserError(f"{path} is not Broden's label.csv: it has no column `name`.")
    return [row.cells["name"] for row in rows]


# What the published cleaning made of six names, because it replaced "-c" and "-s" inside words too.
_CORRUPTED = {
    "plastic colorlear": "plastic, clear",
    "field colorultivated": "field, cultivated",
    "subway station colororridor": "subway station, corridor",
    "waterfall colorascade": "waterfall, cascade",
    "desertand": "desert, sand",
    "bakeryhop": "bakery, shop",
}


def clean(names: Iterable[str], as_published: bool = False) -> list[str]:
    """Turns raw names of `label.csv` into words, in order; the unlabelled "-" and empty names are left out.

    A final "-c" becomes " color", a final "-s" goes ("(scene)" is appended where the word is there already), "_"
    becomes a space and any other "-" a comma and a space.

    Args:
        names: As in Broden, such as "subway_station-corridor-s".
        as_published: Replace "-c" and "-s" wherever they stand, as the published list was made.
    """
    words: list[str] = []
    seen: set[str] = set()
    for name in names:
        if name in ("", "-"):
            continue
        word = name.replace("_", " ")
        if as_published:
            word = word.replace("-c", " color")
            scene, word = "-s" in word, word.replace("-s", "")
        else:
            word = word.removesuffix("-c") + " color" if word.endswith("-c") else word
            scene, word = word.endswith("-s"), word.removesuffix("-s")
        if scene and word in seen:
            word += "(scene)"
        word = word.replace("-", ", ")
        words.append(word)
        seen.add(word)
    return words


def mend(words: Iterable[str]) -> list[str]:
    """Puts right the six names that the published cleaning corrupted."""
    return [_CORRUPTED.get(word, word) for word in words]
