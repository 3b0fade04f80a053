"""Legends: what the numbers, or the colours, in a picture of labels stand for."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from neuronx.data.text import lines
from neuronx.errors import UserError
from neuronx.tables.csv import read_csv

_LINE = re.compile(r'["\']?(\d+(?:[\s,;]+\d+[\s,;]+\d+)?)["\']?\s*[\s,;:=]\s*["\']?(.*?)["\']?')
_NUMBER_COLUMNS = ("id", "idx", "index", "number", "label", "value")


@dataclass(frozen=True)
class Legend:
    """The meaning of labels.

    Attributes:
        where: It stands, for messages.
        names: By number; a colour is the number red * 65536 + green * 256 + blue.
        colours: Whether labels are colours.
    """

    where: str
    names: Mapping[int, str]
    colours: bool = False

    def spell(self, number: int) -> str:
        """A label as people write it: 7, or the colour 128 64 0."""
        return f"colour {number >> 16} {number >> 8 & 255} {number & 255}" if self.colours else f"label {number}"

    def numbers(self, given: Sequence[int | str], option: str) -> frozenset[int]:
        """The numbers of labels given as numbers, colours or names.

        Raises:
            UserError: For a name that the legend does not have; a number need not be in the legend.
        """
        named = {name: [n for n, other in self.names.items() if other == name] for name in self.names.values()}
        found: set[int] = set()
        for one in given:
            key = None if isinstance(one, str) and one in named else _key(one)
            if key is None and one not in named:
                raise UserError(f"{option} names `{one}`, which is neither a number nor a name of {self.where}.")
            found.update(named[str(one)] if key is None else [key[0]])
        return frozenset(found)


def read_legend(given: str | Path | Mapping[int | str, str] | Sequence[str] | None) -> Legend:
    """Reads a legend.

    Args:
        given: {number: name}; or names in the order of their numbers, from 0; or a file. A file is JSON of either; or
            a CSV with a column `name` and either a number (`id`, `index`, ...) or `r`, `g` and `b`; or a text with a
            number (or three, for a colour) and a name on each line: "0 sky", "0,sky" or "0: sky"; "#" starts a comment.

    Raises:
        UserError: If it is missing, cannot be read so, gives a number two names, or mixes numbers and colours.
    """
    if given is None:
        raise UserError("Say what the labels stand for: data.legend=FILE, or 'data.legend={0:sky,1:road}'.")
    where = str(given) if isinstance(given, str | Path) else "data.legend"
    pairs = list(_file(Path(given).expanduser()) if isinstance(given, str | Path) else _parsed(given, where))
    names: dict[int, str] = {}
    kinds: set[bool] = set()
    for key, name in pairs:
        parsed = _key(key)
        if parsed is None or not isinstance(name, str) or not name.strip():
            raise UserError(f"{where} says `{key}: {name}`; expected the number of a label and its name.")
        number, colour = parsed
        if names.setdefault(number, name.strip()) != name.strip():
            raise UserError(f"{where} calls label {key} both `{names[number]}` and `{name.strip()}`.")
        kinds.add(colour)
    if len(kinds) != 1:
        raise UserError(f"{where} mixes numbers and colours." if kinds else f"{where} names no labels.")
    return Legend(where, names, kinds.pop())


def _key(key: object) -> tuple[int, bool] | None:
    """The number that a key stands for and whether it is a colour; None when it is neither."""
    if isinstance(key, Sequence) and not isinstance(key, str):
        key = " ".join(map(str, key))
    parts = re.split(r"[\s,;]+", str(key).strip())
    if isinstance(key, bool) or not all(re.fullmatch(r"\d+", part) for part in parts):
        return None
    if len(parts) == 1:
        return int(parts[0]), False
    if len(parts) == 3 and all(int(part) < 256 for part in parts):
        red, green, blue = map(int, parts)
        return (red << 16) + (green << 8) + blue, True
    return None


def _parsed(given: object, where: str) -> Iterator[tuple[object, object]]:
    if isinstance(given, Mapping):
        yield from given.items()
    elif isinstance(given, Sequence) and not isinstance(given, str):
        yield from enumerate(given)
    else:
        raise UserError(f"{where} is neither {{number: name}} nor a list of names.")


def _file(path: Path) -> Iterator[tuple[object, object]]:
    text = lines(path)
    if path.suffix.lower() == ".json":
        try:
            yield from _parsed(json.loads("\n".join(text)), str(path))
        except ValueError as error:
            raise UserError(f"The legend {path} is not JSON: {error}") from None
        return
    told = [(number, line.partition("#")[0].strip()) for number, line in enumerate(text, 1)]
    told = [(number, line) for number, line in told if line]
    if told and not _LINE.fullmatch(told[0][1]) and "," in told[0][1]:
        yield from _table(path)
        return
    for number, line in told:
        match = _LINE.fullmatch(line)
        if match is None:
            raise UserError(f"{path}, line {number}: expected a label's number and its name, found `{line[:60]}`.")
        yield match[1], match[2]


def _table(path: Path) -> Iterator[tuple[object, object]]:
    columns, rows = read_csv(path)
    lower = {column.lower(): column for column in columns}
    number = next((lower[name] for name in _NUMBER_COLUMNS if name in lower), None)
    keys = [number] if number else [lower.get(channel) for channel in "rgb"]
    if "name" not in lower or None in keys:
        raise UserError(f"{path} needs a column `name` and one of {', '.join(_NUMBER_COLUMNS)}, or r, g and b.")
    for row in rows:
        yield " ".join(row.cells[key].strip() for key in keys if key), row.cells[lower["name"]]
