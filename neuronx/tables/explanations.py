"""Explanations to and from files: whatever others published, and what we write ourselves."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from neuronx.errors import UserError, brief, unknown
from neuronx.tables.csv import TableRow, read_csv, write_csv
from neuronx.tables.schemas import explain_row, noted_columns, recognise, spelling
from neuronx.types import Cell, Explanation, Unit, dotted, unsplit

SLOTS = 10
"""Pairs of weight and concept in a published linear table; ours has more where an explanation is longer."""

PUBLISHED_NAME = re.compile(
    r"(?P<target>.+_(?:imagenet|places365|cifar100?)|[^-]+(?=-))[_-](?P<layer>.+?)(?:_(?P<method>original))?"
)
"""How published files are called: `resnet50_imagenet_layer4`, `resnet18-layer1`, `resnet18-layer4_original`."""

RANGES = {
    "sim correlation": (-1.0, 1.0),
    "val correlation": (-1.0, 1.0),
    "sim ablation(optim)": (-math.inf, 1.0),
    "sim ablation(norm)": (-math.inf, 1.0),
    "iou": (0.0, 1.0),
    "auc": (0.0, 1.0),
}
"""Between which numbers a noted number must lie, but for rounding."""

ROUNDING = 1e-4
"""Of numbers in published files."""


@dataclass(frozen=True)
class ExplanationFile:
    """What one file holds.

    Attributes:
        path: The file.
        target: Name of the network that it is about, as far as the file's name tells; "" when it does not.
        method: Whose explanations they are: as given, or as the names of the file and its folder tell.
        layers: The layers that it is about, whether they were asked for or not.
        explanations: Those of the layers asked for, in the order of the file.
        lines: The line of the file that each of them stands in.
    """

    path: Path
    target: str
    method: str
    layers: tuple[str, ...]
    explanations: list[Explanation]
    lines: tuple[int, ...] = ()

    def check_numbers(self) -> None:
        """Raises UserError for a number beside an explanation that cannot be, with its line."""
        for explanation, line in zip(self.explanations, self.lines, strict=bool(self.lines)):
            for name, value in explanation.notes:
                low, high = RANGES.get(name, (-math.inf, math.inf))
                if math.isinf(value) or not low - ROUNDING <= value <= high + ROUNDING:
                    limits = f" up to {high:g}" if math.isinf(low) else f" from {low:g} to {high:g}"
                    expected = f"a number{limits if name in RANGES else ''}"
                    raise UserError(f"{self.path}, line {line}: expected {expected} as {name}, found {value:g}.")

    def check(self, images: int, units: Mapping[str, int]) -> None:
        """Makes sure that it can be about so many images, and so many units of each of some layers.

        Raises:
            UserError: An image or a unit that is not among them, or a part of a unit that is not split: of a split unit
                there are two or more parts, counted from 0. With the line.
        """
        wrong = unsplit([explanation.unit for explanation in self.explanations])
        for explanation, line in zip(self.explanations, self.lines, strict=bool(self.lines)):
            unit = explanation.unit
            if unit.index >= (count := units.get(unit.layer, math.inf)):
                raise UserError(
                    f"{self.path}, line {line}: there is no unit {unit.index}, since {unit.layer or 'the output'} has "
                    f"units 0 to {count - 1}. Is the file about another network?"
                )
            if explanation.unit in wrong:
                raise UserError(
                    f"{self.path}, line {line}, column `part`: {explanation.unit} is a part of a unit that is not "
                    "split; the parts of a unit are two or more, counted from 0."
                )
            if beyond := [image for image in explanation.evidence if image >= images]:
                raise UserError(
                    f"{self.path}, line {line}, column `evidence`: there is no image {beyond[0]}, since there are "
                    f"{images}, 0 to {images - 1}. Was the file made with other pictures?"
                )


def read_explanations(
    path: str | Path, layer: str | None = None, *, published_labels: bool = False
) -> list[Explanation]:
    """Reads the explanations of one file in any of the published layouts (`neuronx.tables.schemas`).

    Where several people described a unit, the first of them counts, and a note says how many `annotators` there were.

    Args:
        path: The file.
        layer: Its layer; from a file of several layers, the one to read. By default the file's `layer` column, else
            what its name tells, as in `resnet50_imagenet_layer4.csv`.
        published_labels: Clean the labels of Network Dissection exactly as Linear-Explanations did, mistakes included.

    Raises:
        UserError: For an unknown layout, a missing column, a cell that is not a number (with file, line and column), a
            unit that stands twice, a layer that cannot be told or is not in the file.
    """
    file = _read(path, layer, None, (), published_labels)
    _check_any([file], [layer] if layer else [])
    return file.explanations


def read_files(
    given: "str | Path | Sequence[str | Path | Mapping[str, Any]]",
    layers: Sequence[str] | None = None,
    targets: Sequence[str] = (),
) -> list[ExplanationFile]:
    """Reads a file, a folder with all tables in it, a pattern with `*`, or a list of these.

    A method is called as given; else as the end of `<target>_<layer>_<method>.csv` says, which is how we write files;
    else as the folder of a file in a subfolder or of one called `<target>_<layer>.csv`; else as the file.

    Args:
        given: What the user wrote; entries of a list may be mappings with `file` and, where needed, `layer` and
            `method`.
        layers: The layers to keep; all by default. A file that does not say its layer is taken to be of the only one.
        targets: Names of networks that file names may begin with, beside those published.

    Raises:
        UserError: As `read_explanations`, and when a folder has no tables or nothing is left.
    """
    entries = given if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    if not entries:
        raise UserError("The list of explanations is empty; name a file or a folder.")
    found = [file for entry in entries for file in _entry(entry, layers, targets)]
    _check_any(found, layers or [])
    for file in found:
        file.check_numbers()
    return [file for file in found if file.explanations]


def by_method(files: Sequence[ExplanationFile]) -> dict[str, list[Explanation]]:
    """All explanations by method. Raises UserError when two files explain the same unit in the name of one method."""
    sources: dict[tuple[str, Unit], Path] = {}
    methods: dict[str, list[Explanation]] = {}
    for file in files:
        for one in file.explanations:
            other = sources.setdefault((file.method, one.unit), file.path)
            if other != file.path:
                raise UserError(
                    f"{one.unit} is explained by {file.method} in {other} and in {file.path}; name the files to use."
                )
        methods.setdefault(file.method, []).extend(file.explanations)
    return methods


def write_explanations(path: str | Path, explanations: Sequence[Explanation]) -> Path:
    """Writes the published layout: linear when one of them is, else plain descriptions; reading gives them back.

    Further notes follow as columns of their own, then `part` and `evidence` (image ids joined by `;`) where there are
    any, `made_by` (names and digests joined by `;`), last `support` (train/test images of each term). A term that is
    named 0 and weighs 0 cannot be told from an empty slot, and is left out.
    """
    if wrong := [one for one in explanations if not isinstance(one, Explanation)]:
        raise UserError(f"A table of explanations cannot hold {brief(wrong[0])}.")
    linear = any(one.is_linear for one in explanations)
    first = ["val correlation"] if linear else []
    named = dict.fromkeys(name for one in explanations for name, _ in one.notes)
    others = [name for name in named if name not in first]
    slots = max([SLOTS, *(len(one.terms) for one in explanations)]) if linear else 0
    body = [f"{what}{slot}" for slot in range(slots) for what in ("weight", "concept")] + ["bias"]
    parts = any(one.unit.part is not None for one in explanations)
    evidence = any(one.evidence for one in explanations)
    columns = ["layer", "unit", *first, *(body if linear else ["description"]), *others]
    made = any(one.made_by for one in explanations)
    support = any(one.support for one in explanations)
    columns += ["part"] * parts + ["evidence"] * evidence + ["made_by"] * made + ["support"] * support

    def row(one: Explanation) -> list[Cell]:
        notes = dict(one.notes)
        cells: list[Cell] = [one.unit.layer, one.unit.index, *(notes.get(name) for name in first)]
        if linear:
            pairs = [(weight, concept) for concept, weight in one.terms if weight != 0 or concept != "0"]
            pairs += [(0.0, "0")] * (slots - len(pairs))
            cells += [cell for pair in pairs for cell in pair] + [one.bias]
        else:
            cells.append(one.terms[0][0] if one.terms else "")
        cells += [notes.get(name) for name in others]
        cells += [one.unit.part] * parts + [";".join(map(str, one.evidence))] * evidence
        return cells + [";".join(one.made_by)] * made + [one.support_text] * support

    return write_csv(path, columns, [row(one) for one in explanations])


def _entry(
    entry: "str | Path | Mapping[str, Any]", layers: Sequence[str] | None, targets: Sequence[str]
) -> list[ExplanationFile]:
    if isinstance(entry, Mapping):
        if extra := sorted(set(entry) - {"file", "layer", "method"}):
            raise unknown("key of an entry of explanations", extra[0], ["file", "layer", "method"])
        if "file" not in entry:
            raise UserError(f"An entry of explanations needs `file`; found {dict(entry)}.")
        layer = None if entry.get("layer") is None else str(entry["layer"])
        asked = layers if layer is None else None
        found = [_read(path, layer, asked, targets, False, base) for path, base in _paths(str(entry["file"]))]
        _check_any(found, [layer] if layer is not None else layers or [])
        return [replace(file, method=str(entry["method"])) for file in found] if entry.get("method") else found
    return [_read(path, None, layers, targets, False, base) for path, base in _paths(str(entry))]


def _paths(given: str) -> list[tuple[Path, Path | None]]:
    """The tables meant, each with the folder that was given, if any."""
    path = Path(given).expanduser()
    if path.is_dir():
        folder = path / "explanations" if (path / "explanations").is_dir() else path
        if found := sorted(folder.rglob("*.csv")):
            return [(one, folder) for one in found]
        raise UserError(f"There is no table (*.csv) in {folder}.")
    if "*" in given and not path.exists():
        return [(one, None) for one in sorted(path.parent.glob(path.name))] or [(path, None)]
    return [(path, None)]


def _read(
    path: str | Path,
    layer: str | None,
    asked: Sequence[str] | None,
    targets: Sequence[str],
    published_labels: bool,
    folder: Path | None = None,
) -> ExplanationFile:
    """Reads one file; `layer` is what it is of whatever its name tells, `asked` are the layers to keep."""
    columns, rows = read_csv(path, spelling)
    path = Path(path)
    schema = recognise(path, columns)
    told = [dotted(row.cells["layer"]) for row in rows] if "layer" in columns else []
    wanted = [dotted(name) for name in ([layer] if layer is not None else asked or [])]
    if told:
        target, named, method = _split_at_layer(path.stem, list(dict.fromkeys(told)))
    else:
        target, named, method = _split_name(path.stem, wanted, targets)
        of = wanted[0] if layer is not None else named or (wanted[0] if len(wanted) == 1 else "")
        if not of:
            raise UserError(
                f"{path} does not say which layer it is about: it has no `layer` column. Type layers=layer4 or "
                f"explanations=[{{file:{path.name},layer:layer4}}]."
            )
        told = [of] * len(rows)
    noted = noted_columns(columns, rows, schema)
    units: dict[Unit, tuple[TableRow, Explanation, int]] = {}
    for row, of in zip(rows, told, strict=True):
        if wanted and of not in wanted:
            continue
        one = explain_row(row, schema, of, noted, published_labels)
        before = units.get(one.unit)
        if before and not schema.several:
            raise row.wrong(schema.unit, f"{one.unit} stands a second time; the first is in line {before[0].line}")
        units[one.unit] = (before[0], before[1], before[2] + 1) if before else (row, one, 1)
    explanations = [
        replace(one, notes=(*one.notes, ("annotators", float(people)))) if schema.several else one
        for _, one, people in units.values()
    ]
    method = method or _method(path, folder, bool(named))
    lines = tuple(row.line for row, *_ in units.values())
    return ExplanationFile(path, target, method, tuple(dict.fromkeys(told)), explanations, lines)


def _split_at_layer(stem: str, layers: Sequence[str]) -> tuple[str, str, str]:
    """Target, layer and method of a file named after one of the layers; "" for what its name does not tell."""
    for layer in sorted(layers, key=len, reverse=True):
        if match := re.fullmatch(rf"(.+?)[_-]{re.escape(layer)}(?:[_-](.+))?", dotted(stem)):
            return match[1], layer, match[2] or ""
    return "", "", ""


def _split_name(stem: str, layers: Sequence[str], targets: Sequence[str]) -> tuple[str, str, str]:
    """The same for a file whose content does not tell its layer: by the layers asked for, the targets, or custom."""
    if any(found := _split_at_layer(stem, layers)):
        return found
    for target in sorted(targets, key=len, reverse=True):
        if match := re.fullmatch(rf"{re.escape(target)}[_-](.+)", dotted(stem)):
            return target, match[1], ""
    match = PUBLISHED_NAME.fullmatch(dotted(stem))
    return (match["target"], match["layer"], match["method"] or "") if match else ("", "", "")


def _method(path: Path, folder: Path | None, named: bool) -> str:
    parent = path.resolve().parent
    if folder is not None and parent != folder.resolve():
        return parent.relative_to(folder.resolve()).as_posix()
    return parent.name if named else path.stem


def _check_any(files: Sequence[ExplanationFile], layers: Sequence[str]) -> None:
    if not any(file.explanations for file in files):
        there = list(dict.fromkeys(layer for file in files for layer in file.layers))
        where = str(files[0].path) if len(files) == 1 else f"Of the {len(files)} files, none"
        verb = "explains no unit" if len(files) == 1 else "explains a unit"
        raise UserError(f"{where} {verb} of {', '.join(layers)}; there is {', '.join(there[:8])}.")
