"""Tables from the scores that published files bring along: no images, no network, nothing is computed anew."""

import math
from collections.abc import Sequence

from neuronx.errors import UserError
from neuronx.tables.explanations import ExplanationFile, by_method
from neuronx.tables.schemas import STORED
from neuronx.types import UNKNOWN, Score, Scores


class Stored:
    """Turns stored scores into rows: their `score` is stored, their `judge` the column that they stand in.

    Who judged, on which images and how many, and the pooling are not recorded in such files; those cells stay unknown.
    """

    name = "stored"

    def score(self, files: Sequence[ExplanationFile]) -> Scores:
        """Reads the columns that start with `sim ` (`sim correlation`, `sim ablation(optim)`, `sim ablation(norm)`).

        A unit without a number in a column that others of its file have is unjudged. Files without such columns are
        left out.

        Raises:
            UserError: When no file has such a column, or two explain the same unit of one network in the name of one
                method.
        """
        kept = [(file, columns) for file in files if (columns := _columns(file))]
        if not kept:
            raise UserError(
                f"None of the {len(files)} files stores scores; expected columns such as `sim correlation`. "
                "Score them anew with sim=correlation."
            )
        for target in dict.fromkeys(file.target for file, _ in kept):
            by_method([file for file, _ in kept if file.target == target])
        return Scores([score for file, columns in kept for column in columns for score in _scores(file, column)])


def _columns(file: ExplanationFile) -> list[str]:
    names = (name for explanation in file.explanations for name, _ in explanation.notes if name.startswith(STORED))
    return list(dict.fromkeys(names))


def _scores(file: ExplanationFile, column: str) -> list[Score]:
    return [
        Score(
            target=file.target or UNKNOWN,
            pool=UNKNOWN,
            unit=explanation.unit,
            method=file.method,
            score=Stored.name,
            value=dict(explanation.notes).get(column, math.nan),
            sem=math.nan,
            n=0,
            status="ok" if column in dict(explanation.notes) else "unjudged",
            explanation=str(explanation),
            judge=column,
            images=UNKNOWN,
        )
        for explanation in file.explanations
    ]
