"""What a configuration calls: judged before the call, by where it is defined and not by how it is spelt."""

from collections.abc import Iterator
from typing import Any

import hydra
from omegaconf import OmegaConf

from neuronx.errors import UserError, first_line
from neuronx.store.named import check_callable, check_path


def named(path: str) -> Any:
    """The object of an import path.

    Raises:
        UserError: As `check_callable`; or there is no such object.
    """
    check_path(path)
    try:
        found = hydra.utils.get_object(path)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"`{path}` cannot be imported: {first_line(error.__cause__ or error)}.") from error  # type: ignore[arg-type]
    check_callable(found, path)
    return found


def check_names(content: Any) -> None:
    """Looks at the import paths in a configuration without importing them.

    Raises:
        UserError: As `check_path`.
    """
    for place in _places(content):
        check_path(place)


def check_calls(node: Any) -> None:
    """Looks at everything that a part of the configuration would call, however deep.

    Raises:
        UserError: As `named`.
    """
    resolved = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    for place in dict.fromkeys(_places(resolved)):
        named(place)


def _places(content: Any) -> Iterator[str]:
    if isinstance(content, dict):
        place = content.get("_target_")
        if isinstance(place, str):
            yield place
        elif "_target_" in content:
            raise UserError(f"_target_={place!r} is no import path such as mypackage.mymodule.MyClass.")
    for value in content.values() if isinstance(content, dict) else content if isinstance(content, list) else ():
        yield from _places(value)
