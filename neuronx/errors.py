"""Mistakes a user can mend: one sentence that says what is wrong, where, and what would be right."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in what the user gave us. The command line prints it as one line and exits with code 2."""


class Unsuitable(UserError):
    """The images or the network lack what a method needs, such as labels or masks; other methods may do."""


def unknown(kind: str, name: str, known: Iterable[str], hint: str = "") -> UserError:
    """Builds the error for a name that does not exist, with the nearest names that do.

    Args:
        kind: What the name should have named, such as "layer".
        name: What the user wrote.
        known: All names that exist.
        hint: One more sentence, such as where to see the full list.
    """
    known = list(known)
    near = difflib.get_close_matches(name, known, n=5, cutoff=0.4) or known[:5]
    nearest = f" Nearest: {', '.join(near)}." if near else ""
    return UserError(f"There is no {kind} `{name}`.{nearest}{' ' + hint if hint else ''}")
