"""From what people typed to descriptions: lower case, spelling, and no words that only say that there are images.

The steps and their order are those of the MILANNOTATIONS. Their authors' tables (78 prefixes, 116 replacements, 11
suffixes) are not reproduced: the tables here are our own, with the entries that are known, and all are arguments.
"""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from neuronx.errors import UserError
from neuronx.tables.csv import any_case, read_csv, write_csv

log = logging.getLogger("neuronx")

_OPENINGS = ("these", "they", "these images", "these pictures", "the images", "the pictures", "images", "pictures")
_VERBS = ("are", "all are", "show", "all show", "have", "all have", "contain", "all contain", "depict", "all depict")
PREFIXES = (
    *(f"{opening} {verb} " for opening in _OPENINGS for verb in _VERBS),
    *("this is ", "it is ", "there is ", "there are ", "i see ", "the highlighted areas are ", "all of these are "),
)
"""Beginnings that say nothing of the unit."""

REPLACEMENTS = {
    " , ": ", ",
    " ,": ", ",
    " .": ".",
    "alot": "a lot",
    "aswell": "as well",
    "infront": "in front",
    "ofthe": "of the",
    "inthe": "in the",
    "onthe": "on the",
    "andthe": "and the",
    "withthe": "with the",
    "ontop": "on top",
    "dont": "don't",
    "arent": "aren't",
}
"""Joined words and misplaced spaces, and what is meant. Of letters alone, only whole words are replaced."""

SUFFIXES = (".", ",", ";", " is shown", " are shown", " are visible", " in them")
"""Ends that say nothing of the unit."""

EXACT = {"none of the above": "nothing"}
"""Whole answers, and what is meant."""


@dataclass(frozen=True)
class CleaningRules:
    """The tables of `clean`, in the order in which they are applied.

    Attributes:
        spelling: Misspelt word -> right word; of whole words.
        prefixes: Removed from the beginning.
        replacements: Text -> what stands for it, anywhere; keys of letters alone only as whole words.
        suffixes: Removed from the end.
        exact: Whole description -> what stands for it.
        workers: Worker -> replacements in that person's descriptions only, applied last.
    """

    spelling: Mapping[str, str] = field(default_factory=dict)
    prefixes: tuple[str, ...] = PREFIXES
    replacements: Mapping[str, str] = field(default_factory=lambda: REPLACEMENTS)
    suffixes: tuple[str, ...] = SUFFIXES
    exact: Mapping[str, str] = field(default_factory=lambda: EXACT)
    workers: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


DEFAULT = CleaningRules()


def clean(text: str, rules: CleaningRules = DEFAULT, worker: str = "") -> str:
    """A description from what a person typed: `These images show dogs.` becomes `dogs`.

    Beginnings and ends are removed, longest first, until none fits any more, so that the order of a table decides
    nothing (about 100 of the 11,712 published descriptions of ResNet-152 still end in " in them"). White space becomes
    single spaces.

    Args:
        text: What was typed.
        rules: The tables.
        worker: Who typed it.

    Returns:
        The description; empty if nothing is left.
    """
    text = _replaced(" ".join(text.lower().split()), rules.spelling)
    while prefix := max((one for one in rules.prefixes if text.startswith(one)), key=len, default=""):
        text = text[len(prefix) :]
    text = " ".join(_replaced(text, rules.replacements).split())
    while suffix := max((one for one in rules.suffixes if text.endswith(one)), key=len, default=""):
        text = text[: -len(suffix)].rstrip()
    text = rules.exact.get(text, text).strip()
    return _replaced(text, rules.workers.get(worker, {})).strip()


def clean_answers(answers: str | Path, path: str | Path, rules: CleaningRules = DEFAULT) -> Path:
    """Makes `annotations.csv` of the table of answers that Mechanical Turk returns.

    Rows with a `RejectionTime` are left out, and so are those of which nothing remains, which are counted in the log.

    Args:
        answers: A CSV with the columns `Input.layer`, `Input.unit` and `Answer.summary`; `RejectionTime` and
            `WorkerId` where there are any.
        path: Where to write the columns layer, unit and summary, in the order of the answers.
        rules: The tables.

    Raises:
        UserError: If a column is missing, a unit is no whole number from 0, or nothing remains; it names the file.
    """
    needed = ("Input.layer", "Input.unit", "Answer.summary")
    columns, rows = read_csv(answers, any_case(*needed, "RejectionTime", "WorkerId"))
    if missing := [name for name in needed if name not in columns]:
        raise UserError(f"{answers} has no column `{missing[0]}`, only {', '.join(columns)}.")
    kept, empty = [], 0
    for row in rows:
        if row.cells.get("RejectionTime", "").strip():
            continue
        if (unit := row.whole("Input.unit")) < 0:
            raise row.wrong("Input.unit", f"units count from 0, found {unit}")
        text = clean(row.cells["Answer.summary"], rules, row.cells.get("WorkerId", ""))
        empty += not text
        if text:
            kept.append((row.cells["Input.layer"], unit, text))
    if not kept:
        raise UserError(f"{answers}: nothing remains of {len(rows)} answers, since all were rejected or say nothing.")
    if empty:
        log.warning("%s: of %d answers nothing remains; left out", answers, empty)
    return write_csv(path, ("layer", "unit", "summary"), kept)


def _replaced(text: str, table: Mapping[str, str]) -> str:
    """Keys of letters alone (and apostrophes) are replaced as whole words, all others anywhere; longest first."""
    if not table:
        return text
    keys = sorted(table, key=len, reverse=True)
    words = [re.escape(key) for key in keys if key.replace("'", "").isalpha()]
    others = [re.escape(key) for key in keys if not key.replace("'", "").isalpha()]
    for some in (rf"(?<![\w'])(?:{'|'.join(words)})(?![\w'])" if words else "", "|".join(others)):
        if some:
            text = re.sub(some, lambda found: table[found[0]], text)
    return text
