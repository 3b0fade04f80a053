"""Public names of a package whose modules are imported when they are first used."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any


def first_used(package: str, public: Mapping[str, str], name: str) -> Any:
    """What a package's `__getattr__` returns (PEP 562).

    Args:
        package: Its dotted name.
        public: Name -> the module, below the package, that defines it.
        name: What is asked for.

    Raises:
        AttributeError: There is no such name.
    """
    if name not in public:
        raise AttributeError(f"module `{package}` has no attribute `{name}`")
    return getattr(import_module(f"{package}.{public[name]}"), name)
