"""Options of a part of the configuration, compared with the annotations of what the part calls, before the call."""

import pydoc
import re
from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import InterpolationKeyError

from neuronx.errors import UserError, unknown
from neuronx.options import check, parameters, said


def check_options(node: Any) -> None:
    """Raises UserError for the first option, of the part or of parts in it, that its function or class cannot take.

    The message names the option as the user types it: `data.size`, or `milan.weights` for an option that refers to it.
    """
    if not OmegaConf.is_config(node):
        return
    if not isinstance(node, DictConfig) or "_target_" not in node:
        for _, value in _items(node):
            check_options(value)
        return
    if node.get("_args_") is None:
        _check_part(node)
    for key, value in _items(node):
        if key != "_args_":
            check_options(value)


def _check_part(node: DictConfig) -> None:
    call = node._target_
    if isinstance(call, str):
        try:
            call = pydoc.locate(call)
        except Exception:  # building it says what is wrong
            return
    if not callable(call):
        return
    known, takes_any = parameters(call)
    names = [str(key) for key in node if not str(key).startswith("_")]
    for name in names:
        where = node._get_full_key(name)
        if name not in known and not takes_any:
            raise unknown("option", where, [node._get_full_key(one) for one in known])
        if OmegaConf.is_missing(node, name):
            wanted = f"; it must be {said(known[name].annotation)}" if name in known else ""
            raise UserError(f"`{where}=` must be given{wanted}.")
        value = _unwrapped(_value(node, name))
        if name in known and not _is_made(value):
            check(_typed(node, name), _plain(value), known[name].annotation)
    if node.get("_partial_"):
        return
    for name, parameter in known.items():
        if parameter.default is parameter.empty and name not in names:
            raise UserError(f"`{node._get_full_key(name)}=` must be given; `{node._target_}` needs it.")


class Held:
    """An object of the caller's on its way through OmegaConf, which would make a config of a dataclass."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __deepcopy__(self, memo: dict[int, Any]) -> "Held":
        return self


def taken(held: Held) -> Any:
    """The object itself, once its place is reached."""
    return held.value


def hold(value: Any) -> dict[str, Any]:
    """What becomes the object when the configuration is built."""
    return {"_target_": f"{__name__}.taken", "held": Held(value)}


def _items(node: Any) -> Iterator[tuple[Any, Any]]:
    keys: Any = range(len(node)) if isinstance(node, ListConfig) else list(node)
    for key in keys:
        if not OmegaConf.is_missing(node, key):
            yield key, _value(node, key)


def _value(node: Any, key: Any) -> Any:
    try:
        return node[key]
    except InterpolationKeyError as error:
        raise UserError(f"`{node._get_full_key(key)}` refers to an option that is not there: {error.msg}.") from error


def _unwrapped(value: Any) -> Any:
    """An object that Python gave, out of what carries it through the configuration."""
    held = value.get("held") if isinstance(value, DictConfig) else None
    return held.value if isinstance(held, Held) else value


def _is_made(value: Any) -> bool:
    """Whether a value is, or holds, parts that are yet to be built."""
    if not OmegaConf.is_config(value):
        return False
    if isinstance(value, DictConfig) and "_target_" in value:
        return True
    return any(_is_made(inner) for _, inner in _items(value))


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def _typed(node: DictConfig, name: str) -> str:
    """What the user types to set an option."""
    written = node._get_node(name)
    raw = written._value() if written is not None else None
    reference = re.fullmatch(r"\$\{([\w.]+)\}", raw) if isinstance(raw, str) else None
    return reference[1] if reference else node._get_full_key(name)
