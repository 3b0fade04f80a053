"""What `evaluate.py experiment=` does: run one experiment, keep a record of it, log its tables and print them."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from neuronx.experiments.given import Experiment, Given
from neuronx.report.evaluation import now, write_record
from neuronx.store.processes import is_first
from neuronx.types import Cell, Plain, Table


def run(
    experiment: Experiment, given: Given, config: str | None = None, loggers: Sequence[Any] = (), **facts: Plain
) -> str:
    """Runs an experiment, prints what it found and where its files are; in the first process only.

    Args:
        experiment: What to find out.
        given: Networks, images and methods, and the folder that gets the experiment's files.
        config: The composed configuration as YAML.
        loggers: Get every table of the folder under the name of its file.
        facts: For the record of the run.

    Returns:
        The text printed.
    """
    text = experiment.run(given)
    if is_first():
        write_record(given.folder, config, finished=now(), **facts)
        found = tables(given.folder)
        for logger in loggers:
            logger.log_tables(found, given.folder)
        print(f"{text.rstrip()}\n\nFiles: {given.folder}")
    return text


def tables(folder: Path) -> dict[str, Table]:
    """The tables (*.csv) of a folder by name, their numbers as numbers; those without rows too."""
    found: dict[str, Table] = {}
    for path in sorted(folder.glob("*.csv")):
        columns, *rows = csv.reader(path.read_text().splitlines(keepends=True))
        found[path.stem] = columns, [[_cell(text) for text in row] for row in rows]
    return found


def _cell(text: str) -> Cell:
    try:
        return float(text) if text else None
    except ValueError:
        return text
