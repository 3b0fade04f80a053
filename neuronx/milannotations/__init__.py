"""MILANNOTATIONS: exemplars of units as images and masks on disk, in the layout of their authors, with descriptions."""

from importlib import import_module
from typing import Any

# Imported when first used, since some read pictures of networks and others only tables.
_PUBLIC = {
    "Milannotations": "dataset",
    "Sample": "dataset",
    "attach": "reattach",
    "clean": "cleaning",
    "clean_answers": "cleaning",
    "download": "zips",
    "join": "dataset",
    "load": "loading",
    "read": "reading",
    "read_descriptions": "descriptions",
    "write_hits": "hits",
}
__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module `neuronx.milannotations` has no attribute `{name}`")
    return getattr(import_module(f"neuronx.milannotations.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
