"""How published tables of explanations are laid out, and how a row of each becomes an `Explanation`.

A layout is recognised by its columns, never by the name of a file. Readers rely on as few columns as possible.
"""

import ast
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from neuronx.errors import UserError
from neuronx.tables.csv import TableRow, any_case
from neuronx.types import Explanation, Unit

STORED = "sim "
"""How the columns start in which published files keep scores, as in `sim correlation`."""

NUMBERS = ("val correlation", "similarity")
"""Columns that must hold numbers wherever they stand; so must those of stored scores."""


def whole_phrase(text: str, row: TableRow, column: str) -> str:
    """A description as it stands."""
    return text


def first_phrase(text: str, row: TableRow, column: str) -> str:
    """The best of a list of (phrase, score) pairs as FALCON prints it; nothing when the list is empty."""
    try:
        pairs = ast.literal_eval(text)
        return str(pairs[0][0]) if pairs else ""
    except (ValueError, SyntaxError, TypeError, IndexError, MemoryError, RecursionError):
        raise row.wrong(column, f"expected a list of (phrase, score) pairs, found `{text[:60]}`") from None


def broden_label(label: str) -> str:
    """A label of Broden, or a formula of labels, as words.

    `purple-c` is purple color, `casino-indoor-s` is casino, indoor: -c marks colours, -s scenes, both at the end only.
    """
    label = re.sub(r"-s(?![\w-])", "", re.sub(r"-c(?![\w-])", " color", label))
    return label.replace("_", " ").replace("-", ", ")


def broden_label_as_published(label: str) -> str:
    """The same as Linear-Explanations cleans it: marks are replaced wherever they stand.

    So `bakery-shop-s` becomes bakeryhop and `plastic-clear` plastic colorlear. Only of use to reproduce their files.
    """
    return label.replace("-c", " color").replace("_", " ").replace("-s", "").replace("-", ", ")


@dataclass(frozen=True)
class Schema:
    """One layout of plain descriptions.

    Attributes:
        name: Of the layout, for messages.
        needs: The columns that it is recognised by.
        unit: The column of the unit's number.
        description: The column of the description.
        first: The number of the first unit: 1 where a table counts from 1.
        several: Whether several people describe one unit; the first of them counts.
        notes: Columns of numbers to keep, and what to call them.
        phrase: From the description's cell to the description.
    """

    name: str
    needs: tuple[str, ...]
    unit: str = "unit"
    description: str = "description"
    first: int = 0
    several: bool = False
    notes: Mapping[str, str] = field(default_factory=dict)
    phrase: Callable[[str, TableRow, str], str] = whole_phrase


LINEAR = Schema("linear", ("unit", "weight0", "concept0", "bias"))
NET_DISSECT = Schema(
    "Network Dissection", ("unit", "category", "label", "score"), description="label", first=1, notes={"score": "iou"}
)
COMPOSITIONAL = Schema(
    "compositional", ("unit", "category", "label", "score", "length"), description="label", notes={"score": "iou"}
)
PLAIN = Schema("plain", ("unit", "description"))
SCHEMAS = (
    LINEAR,
    COMPOSITIONAL,
    NET_DISSECT,
    Schema("AMT", ("unit", "annotator", "description"), several=True, notes={"precision": "precision"}),
    Schema("MILANNOTATIONS", ("unit", "summary"), description="summary", several=True),
    Schema("INVERT", ("neuron", "concept", "metric"), unit="neuron", description="concept", notes={"metric": "auc"}),
    Schema(
        "FALCON",
        ("group", "concept_set_noun_phrases"),
        unit="group",
        description="concept_set_noun_phrases",
        phrase=first_phrase,
    ),
    Schema("Describe-and-Dissect", ("Neuron ID", "Label 1"), unit="Neuron ID", description="Label 1"),
    PLAIN,
)


OWN = ("layer", "part", "evidence", "made_by", "support")
"""Columns that any table may have beside those of its layout."""

_known = any_case(
    *OWN,
    *NUMBERS,
    *(name for schema in SCHEMAS for name in (*schema.needs, *schema.notes, schema.unit, schema.description)),
)


def spelling(column: str) -> str:
    """The name of a column as the layouts have it, however it is capitalised in a file."""
    return column.lower() if re.fullmatch(rf"(weight|concept)\d+|{STORED}.*", column, re.IGNORECASE) else _known(column)


def recognise(path: Path, columns: Sequence[str]) -> Schema:
    """Finds the layout of a table by its columns.

    Raises:
        UserError: When no layout fits; it names the column that is missing from the nearest one.
    """
    for schema in SCHEMAS:
        if set(schema.needs) <= set(columns):
            _check_slots(path, columns, schema)
            return schema
    if any(column.endswith(" Rating") for column in columns):
        raise UserError(f"{path} holds people's ratings of descriptions, not explanations of units.")
    nearest = max(reversed(SCHEMAS), key=lambda schema: len(set(schema.needs) & set(columns)) / len(schema.needs))
    if not set(nearest.needs) & set(columns):
        layouts = "; ".join(f"{schema.name}: {', '.join(schema.needs)}" for schema in SCHEMAS)
        raise UserError(f"{path} is no table of explanations that we know. Columns of those that we know: {layouts}.")
    missing = next(column for column in nearest.needs if column not in columns)
    raise UserError(
        f"{path} has no column `{missing}`, which a {nearest.name} table needs; it has {', '.join(columns[:8])}."
    )


def _check_slots(path: Path, columns: Sequence[str], schema: Schema) -> None:
    """Raises UserError where a linear table has a weight without its concept, or a slot is left out."""
    if schema is not LINEAR:
        return
    slots: dict[str, set[int]] = {"weight": set(), "concept": set()}
    for column in columns:
        if (slot := re.fullmatch(r"(weight|concept)(\d+)", column)) is not None:
            slots[slot[1]].add(int(slot[2]))
    for what, other in (("weight", "concept"), ("concept", "weight")):
        if alone := sorted(slots[what] - slots[other]):
            raise UserError(f"{path} has a column `{what}{alone[0]}` but no column `{other}{alone[0]}`.")
    if gap := sorted(set(range(len(slots["weight"]))) - slots["weight"]):
        raise UserError(
            f"{path}, line 1: there are no columns `weight{gap[0]}` and `concept{gap[0]}`, but "
            f"`weight{max(slots['weight'])}`; number the slots from 0 without a gap."
        )


def explain_row(row: TableRow, schema: Schema, layer: str, noted: Mapping[str, str], as_published: bool) -> Explanation:
    """Reads one row.

    Args:
        row: The row.
        schema: The layout of its table.
        layer: The layer that it is about.
        noted: The columns of numbers to keep, and what to call them.
        as_published: Whether to clean the labels of Network Dissection as Linear-Explanations did.

    Raises:
        UserError: Where a cell is not what it should be.
    """
    number = row.whole(schema.unit)
    if number < schema.first:
        raise row.wrong(schema.unit, f"found {number}, but {schema.name} tables count units from {schema.first}")
    part = row.whole("part") if row.cells.get("part", "").strip() else None
    if part is not None and part < 0:
        raise row.wrong("part", f"found {part}, but the parts of a unit are counted from 0")
    terms, bias = _linear(row) if schema is LINEAR else (_described(row, schema, as_published), 0.0)
    return Explanation(
        unit=Unit(layer, number - schema.first, part),
        terms=terms,
        bias=bias,
        evidence=_evidence(row),
        notes=tuple(
            (name, value) for column, name in noted.items() if not math.isnan(value := row.number_or_nan(column))
        ),
        made_by=tuple(filter(None, row.cells.get("made_by", "").split(";"))),
        support=_support(row, len(terms)),
    )


def noted_columns(columns: Sequence[str], rows: Sequence[TableRow], schema: Schema) -> dict[str, str]:
    """The columns to keep as notes and their names.

    Linear and plain tables may carry any columns beside their own: those all of whose cells are numbers are kept.
    """
    kept = dict(schema.notes)
    own = {*OWN, *schema.needs}
    for column in columns:
        if column in own or re.fullmatch(r"(weight|concept)\d+|Unnamed.*|", column):
            continue
        known = column in NUMBERS or column.startswith(STORED)
        if known or (schema in (LINEAR, PLAIN) and all(_is_number(row, column) for row in rows)):
            kept[column] = column
    return kept


def _is_number(row: TableRow, column: str) -> bool:
    try:
        row.number_or_nan(column)
    except UserError:
        return False
    return True


def _linear(row: TableRow) -> tuple[tuple[tuple[str, float], ...], float]:
    terms = []
    slot = 0
    unused: int | None = None
    while f"weight{slot}" in row.cells:
        weight, concept = row.number_or_nan(f"weight{slot}"), row.cells[f"concept{slot}"]
        # Unused slots are 0 in both columns, 0.0 once through pandas. A weight tells that a concept is really named 0.
        if concept in ("0", "0.0", "") and (weight == 0 or math.isnan(weight)):
            unused = slot if unused is None else unused
            slot += 1
            continue
        if unused is not None:
            raise row.wrong(f"weight{unused}", f"slot {unused} is empty, but slot {slot} after it is not")
        if concept == "":
            raise row.wrong(f"concept{slot}", "there is a weight but no concept")
        terms.append((concept, row.number(f"weight{slot}")))
        slot += 1
    return tuple(terms), row.number("bias")


def _described(row: TableRow, schema: Schema, as_published: bool) -> tuple[tuple[str, float], ...]:
    phrase = schema.phrase(row.cells[schema.description], row, schema.description)
    if schema in (NET_DISSECT, COMPOSITIONAL):
        phrase = broden_label_as_published(phrase) if as_published else broden_label(phrase)
    return ((phrase, 1.0),) if phrase else ()


def _evidence(row: TableRow) -> tuple[int, ...]:
    text = row.cells.get("evidence", "")
    if not re.fullmatch(r"(\d+(;\d+)*)?", text):
        raise row.wrong("evidence", f"expected image numbers joined by `;`, found `{text[:60]}`")
    return tuple(int(number) for number in text.split(";") if number)


def _support(row: TableRow, terms: int) -> tuple[tuple[float, float], ...]:
    text = row.cells.get("support", "")
    if not text:
        return ()
    number = r"\d+(?:\.\d+)?(?:e\+?\d+)?"
    pairs = [re.fullmatch(rf"({number})/({number})", pair) for pair in text.split(";")]
    if len(pairs) != terms or not all(pairs):
        raise row.wrong("support", f"expected train/test images of {terms} terms, joined by `;`, found `{text[:60]}`")
    return tuple((float(pair[1]), float(pair[2])) for pair in pairs if pair)
