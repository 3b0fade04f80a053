"""Scores of captions as people read them, and as a file."""

import math
from collections.abc import Mapping
from pathlib import Path

from rich.markup import escape
from rich.table import Column

from neuronx.metrics.captions import CaptionScores
from neuronx.report.inventory import as_text, plain_table
from neuronx.tables.csv import write_csv

SCORES = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-1", "ROUGE-2", "ROUGE-L", "BERTScore")


def caption_table(rows: Mapping[str, CaptionScores], title: str | None = None, first: str = "captions") -> str:
    """One row for each kind of caption. Scores are shown times 100; BERTScore only where it was computed."""
    judged = any(not math.isnan(row.bert) for row in rows.values())
    names = SCORES if judged else SCORES[:-1]
    right = [Column(name, justify="right") for name in (*names, "n")]
    table = plain_table(first, *right, title=title and escape(title))
    for name, row in rows.items():
        shown = numbers(row)[: len(names)]
        cells = ["—" if math.isnan(number) else f"{100 * number:.1f}" for number in shown]
        table.add_row(escape(name), *cells, str(row.n))
    return as_text(table)


def write_caption_scores(path: str | Path, rows: Mapping[str, CaptionScores]) -> Path:
    """Writes one line for each kind of caption: captions, n, and a column for each score."""
    return write_csv(path, ["captions", "n", *SCORES], [[name, row.n, *numbers(row)] for name, row in rows.items()])


def numbers(row: CaptionScores) -> list[float]:
    """The scores in the order of `SCORES`."""
    return [*row.bleu, row.rouge1, row.rouge2, row.rougel, row.bert]
