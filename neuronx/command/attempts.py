"""The parts of a run, one after another: what fails late does not take along what is done."""

import logging
import traceback
from collections.abc import Callable
from typing import TypeVar

from neuronx.command.mistakes import Unfinished, explain_mistake

T = TypeVar("T")

log = logging.getLogger(__name__)


class Attempts:
    """Runs parts; the first one must succeed, and later ones may fail.

    Attributes:
        failed: What failed, and a line that says why.
    """

    def __init__(self) -> None:
        self.done = 0
        self.failed: dict[str, str] = {}

    def run(self, what: str, part: Callable[[], T]) -> T | None:
        """The result of a part; None where it failed after others were done.

        In a run of several processes all parts must succeed, since the others would wait for one that failed alone.
        """
        try:
            result = part()
        except Exception as error:
            if not self.done or _several():
                raise
            line = explain_mistake(error)
            if line is None:
                traceback.print_exception(error)
            self.failed[what] = line or "a fault of ours, see above"
            log.warning("%s failed: %s", what, self.failed[what])
            return None
        self.done += 1
        return result

    def close(self, folder: object) -> None:
        """Raises Unfinished where parts failed; what the others found is in the folder by now."""
        if self.failed:
            missing = "; ".join(f"{what} ({why.rstrip('.')})" for what, why in self.failed.items())
            raise Unfinished(f"This is missing: {missing}. What the other parts found is in {folder}.")


def _several() -> bool:
    from torch import distributed

    return distributed.is_available() and distributed.is_initialized()
