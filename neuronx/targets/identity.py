"""What a network or a transform does, as a digest: equal for equal computations, and stable from process to process."""

import inspect
import logging
import re
import sys
from collections.abc import Iterable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from neuronx.store.cache import UNKEYED
from neuronx.store.processes import process

log = logging.getLogger(__name__)

_LIBRARIES = frozenset({"torch", "torchvision", "timm", "transformers", "open_clip", "lightning", "numpy", "PIL"})
_PLAIN = (bool, int, float, complex, str, bytes, type(None), type(...), torch.dtype, torch.device, np.generic, Path)
_LIBRARY, _INSTALLED, _OWN = "library", "installed", "own"
_OF_EVERY_MODULE = (vars(nn.Module()).keys() - {"_forward_hooks", "_forward_pre_hooks"}) | {"_trainer", "_fabric"}

_unkeyed: dict[int, Any] = {}
"""What could not be keyed, kept alive so that nothing else gets its id."""


def module_digest(module: nn.Module) -> str:
    """Sha256 (64 hex digits) of a network; it begins with `unkeyed-` where it holds something that cannot be told.

    It covers the class path, the printed architecture, all parameters and buffers, plain attributes and hooks of every
    module in it, and the source of the files that define those that do not come from a library.
    """
    return _digest(module, f"The network {type(module).__name__}", strict=False)


def weights_digest(module: nn.Module) -> str:
    """Sha256 (64 hex digits) of the parameters and buffers alone, for cards: the code around them may be reworded."""
    total = sha256()
    for name, value in sorted(module.state_dict().items()):
        flat = value.detach().cpu().contiguous().reshape(-1)
        total.update(f"{name} {tuple(value.shape)} {value.dtype}\0".encode())
        total.update(flat.view(torch.uint8).numpy().data)
    return total.hexdigest()


def transform_digest(transform: Any) -> str:
    """The same for whatever turns pictures into inputs: the fields of an object, the code and closure of a function."""
    return _digest(transform, "The transform", strict=True)


def prefix_tokens(module: nn.Module) -> int:
    """How many tokens of a transformer come before its patches: class, distillation and register tokens.

    timm says so itself; elsewhere they are counted by the parameters that hold them. 0 for a network without any.
    """
    known = getattr(module, "num_prefix_tokens", None)
    if isinstance(known, int):
        return known
    pattern = re.compile(r"(.*\.)?(cls|class|dist|distillation|reg|register)(_?(tokens?|embedding))?")
    found = [parameter for name, parameter in module.named_parameters() if pattern.fullmatch(name)]
    return sum(parameter.shape[-2] if parameter.ndim > 1 else 1 for parameter in found)


def _digest(value: Any, what: str, strict: bool) -> str:
    content = _Content(strict)
    try:
        content.add(value)
    except (_UnkeyableError, RecursionError) as error:
        if id(value) not in _unkeyed:
            _unkeyed[id(value)] = value
            log.warning("%s cannot be keyed (%s): nothing that is made with it is kept in the store.", what, error)
        return f"{UNKEYED}{process()}-{id(value)}"
    return content.sha.hexdigest()


class _UnkeyableError(Exception):
    """Something whose content cannot be read: an open file, a generator, a lock."""


class _Content:
    """Reads what an object is made of, piece by piece, into one digest.

    Args:
        strict: Whether everything that is found must be read. Otherwise attributes of modules from libraries, and what
            methods refer to, are left out where they cannot be.
    """

    def __init__(self, strict: bool) -> None:
        self.sha, self.strict = sha256(), strict
        self.known: dict[int, tuple[int, Any]] = {}
        self.classes: set[type] = set()

    def add(self, value: Any) -> None:
        """Reads one value, whatever it is."""
        kind = type(value)
        if isinstance(value, _PLAIN):
            return self._text(kind.__qualname__, repr(value))
        if kind is tuple:
            return self._all("tuple", value)
        if id(value) in self.known:
            return self._text("again", str(self.known[id(value)][0]))
        self.known[id(value)] = len(self.known), value  # kept: a value that is freed gives its id to another
        if isinstance(value, Tensor | np.ndarray):
            self._tensor(torch.from_numpy(value) if isinstance(value, np.ndarray) else value)
        elif isinstance(value, nn.Module):
            self._network(value)
        elif isinstance(value, set | frozenset):
            self._all("set", sorted(self._apart(element) for element in value))
        elif kind is list:
            self._all("list", value)
        elif kind is dict:
            self._all("dict", [part for pair in value.items() for part in pair])
        elif isinstance(value, type):
            self._class(value)
        elif isinstance(value, FunctionType):
            self._function(value)
        elif isinstance(value, MethodType):
            self._all("method", [value.__func__, value.__self__])
        elif isinstance(value, BuiltinFunctionType):
            self._text("function", str(value.__module__), value.__qualname__)
            if not isinstance(value.__self__, ModuleType):  # bound to an object
                self.add(value.__self__)
        elif isinstance(value, ModuleType):
            self._text("module", value.__name__, _source(value) if _level(value.__name__) == _OWN else "")
        elif isinstance(value, staticmethod | classmethod):
            self._all(kind.__name__, [value.__func__])
        elif isinstance(value, property):
            self._all("property", [value.fget])
        else:
            self._object(value)

    def _text(self, *words: str) -> None:
        for word in words:
            data = word.encode(errors="surrogatepass")
            self.sha.update(f"{len(data)} ".encode() + data)

    def _all(self, kind: str, values: Iterable[Any]) -> None:
        values = list(values)
        self._text(kind, str(len(values)))
        for value in values:
            self.add(value)

    def _apart(self, value: Any) -> str:
        """The digest of a value that may turn out to be unreadable, or whose place is not known yet."""
        content = _Content(self.strict)
        content.known, content.classes = self.known, self.classes
        content.add(value)
        return content.sha.hexdigest()

    def _leniently(self, value: Any) -> None:
        if self.strict:
            return self.add(value)
        with suppress(_UnkeyableError):
            self._text(self._apart(value))

    def _tensor(self, value: Tensor) -> None:
        try:
            flat = value.detach().cpu().contiguous().reshape(-1)
            self._text("tensor", str(tuple(value.shape)), str(value.dtype))
            self.sha.update(flat.view(torch.uint8).numpy().data)
        except (RuntimeError, NotImplementedError, TypeError) as error:
            raise _UnkeyableError(f"it holds a tensor of layout {value.layout} on {value.device}") from error

    def _network(self, network: nn.Module) -> None:
        self._text("network", re.sub(r" at 0x[0-9a-f]+", "", repr(network)))
        for name, module in network.named_modules():
            self.known.setdefault(id(module), (len(self.known), module))
            self._text(name)
            self._class(type(module))
            if isinstance(module, torch.jit.ScriptModule | torch.fx.GraphModule):
                with suppress(AttributeError, RuntimeError):  # of a part without a forward
                    self._text(str(module.code))
                continue
            library = _level(type(module).__module__) == _LIBRARY
            for key, value in sorted(vars(module).items()):
                hooks = key in ("_forward_hooks", "_forward_pre_hooks")
                if key not in _OF_EVERY_MODULE and not (hooks and not value):
                    self._text(key)
                    add = self._leniently if library and key != "forward" and not hooks else self.add
                    add(list(value.values()) if hooks else value)
        for name, value in [*network.named_parameters(), *network.named_buffers()]:
            self._text(name)
            self.add(value)
        for name, value in sorted(network.state_dict().items()):
            if not isinstance(value, Tensor):
                self._text(name)
                self._leniently(value)

    def _class(self, kind: type) -> None:
        self._text("class", kind.__module__, kind.__qualname__)
        for cls in kind.__mro__:
            level = _level(cls.__module__)
            if level == _LIBRARY or cls in self.classes:
                continue
            self.classes.add(cls)
            self._text(_source(cls, whole_file=level == _OWN))
            for name, value in sorted(vars(cls).items()) if level == _OWN else ():
                if isinstance(value, FunctionType) or not name.startswith(("__", "_abc_")):
                    self._text(name)
                    self._leniently(value)

    def _function(self, function: FunctionType) -> None:
        level = _level(function.__module__)
        self._text("function", *([function.__module__, function.__qualname__] if level == _LIBRARY else []))
        add = self._leniently if level == _LIBRARY else self.add
        add([function.__defaults__, function.__kwdefaults__])
        for cell in function.__closure__ or ():
            with suppress(ValueError):  # not filled yet
                add(cell.cell_contents)
        if level != _LIBRARY:
            self._code(function.__code__)
        if level == _OWN:
            for name in sorted(_names(function.__code__) & function.__globals__.keys()):
                self._text(name)
                self._leniently(function.__globals__[name])

    def _code(self, code: CodeType) -> None:
        self._all("code", [code.co_code, code.co_names, code.co_argcount, code.co_kwonlyargcount, code.co_flags])
        for constant in code.co_consts:
            self._code(constant) if isinstance(constant, CodeType) else self.add(constant)

    def _object(self, value: Any) -> None:
        """Reads an object by what would be needed to make a copy of it."""
        try:
            made = value.__reduce_ex__(4)
        except Exception as error:
            raise _UnkeyableError(f"it holds an object of type {type(value).__qualname__}") from error
        self._class(type(value))
        if isinstance(made, str):
            return self._text(made)
        _, arguments, state, items, pairs = (*made, None, None, None)[:5]
        self._all("object", [arguments, state, list(items or ()), list(pairs or ())])


def _level(module: str | None) -> str:
    """What of the classes and functions in a module counts: their names, their source, or all that they refer to."""
    package = str(module).split(".")[0]
    if package in _LIBRARIES or (package in sys.stdlib_module_names and package != "__main__"):
        return _LIBRARY
    file = str(getattr(sys.modules.get(str(module)), "__file__", None))
    return _INSTALLED if package == "neuronx" or "site-packages" in file else _OWN


def _source(thing: Any, whole_file: bool = True) -> str:
    """The source of a class or of the file that defines it; nothing where it was typed at a prompt."""
    try:
        return Path(str(inspect.getsourcefile(thing))).read_text() if whole_file else inspect.getsource(thing)
    except (OSError, TypeError):
        return ""


def _names(code: CodeType) -> set[str]:
    """The global names that a function refers to."""
    inner = (_names(constant) for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*inner)
