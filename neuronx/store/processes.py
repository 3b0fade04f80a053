"""Which of the processes of a run this is."""

from lightning.pytorch.utilities import rank_zero_only


def is_first() -> bool:
    """Whether this is the first of all processes, the one that writes and prints."""
    return getattr(rank_zero_only, "rank", 0) in (0, None)
