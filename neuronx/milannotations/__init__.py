"""MILANNOTATIONS: exemplars of units as images and masks on disk, in the layout of their authors, with descriptions."""

from functools import partial

from neuronx import first_used

# Imported when first used, since some read pictures of networks and others only tables.
_PUBLIC = {
    "Milannotations": "dataset",
    "Sample": "dataset",
    "attach": "reattach",
    "clean": "cleaning",
    "clean_answers": "cleaning",
    "download": "published",
    "join": "dataset",
    "load": "reading",
    "read": "reading",
    "read_descriptions": "reading",
    "write_hits": "hits",
}
__all__ = sorted(_PUBLIC)
__getattr__ = partial(first_used, __name__, _PUBLIC)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
