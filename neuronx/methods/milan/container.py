"""Reads torch's zip files that hold more than tensors, without running what strangers pickled.

A pickle names the classes and functions that it wants called. Here every name stands for something of ours, on the list
`ALLOWED`, or the file is refused; nothing is imported and nothing of the file's choosing is called. Tensors are built
from the file's raw numbers.
"""

import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from neuronx.errors import UserError


class _Dict(dict):
    """A dictionary that was of a class of its own, whose further attributes are forgotten."""

    def __setstate__(self, state: Any) -> None:
        pass


def _encode(text: str, encoding: str) -> bytes:
    """How the pickles of torch spell bytes."""
    return text.encode("latin1")


def _tensor(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *rest: Any) -> Tensor:
    return torch.as_strided(storage, size, stride, offset)


def _parameter(data: Tensor, *rest: Any) -> Tensor:
    return data


_STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}

ALLOWED: dict[str, Any] = {
    "collections.OrderedDict": OrderedDict,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "_codecs.encode": _encode,
    "__builtin__.bytes": lambda: b"",
    "builtins.bytes": lambda: b"",
    "thinc.config.Config": _Dict,
    "confection.Config": _Dict,
    "confection._config.Config": _Dict,
    **{f"torch.{name}": dtype for name, dtype in _STORAGES.items()},
}
"""What a file may name, and what stands for it: containers, tensors, and spaCy's configuration as a dictionary."""


def read_container(path: str | Path) -> Any:
    """What `torch.save` wrote: containers, numbers, texts and tensors (in memory, on the CPU).

    Raises:
        UserError: No such file, one of another kind or cut short, or one that names a class that is not `ALLOWED`.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(f"There is no file {path}.")
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            head = file.read(4)
        if head[:2] == b"PK":
            raise UserError(f"{path} is cut short: it begins as a file of torch.save does, and its end is missing.")
        kind = "a pickle, or of a torch before 1.6" if head[:1] == b"\x80" else "of another kind"
        raise UserError(f"{path} is not a file in the zip format of torch.save; it is {kind}.")
    try:
        with zipfile.ZipFile(path) as archive:
            return _Reader(path, archive).load()
    except UserError:
        raise
    except Exception as error:  # a pickle can go wrong in any way
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        raise UserError(f"{path} cannot be read ({reason}); it is damaged, or not a file of torch.save.") from error


class _Reader(pickle.Unpickler):
    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        content = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(content) != 1:
            raise UserError(f"{path} is a zip file, but not one of torch.save: it has no data.pkl.")
        super().__init__(archive.open(content[0]))
        self.path, self.archive, self.folder = path, archive, content[0].removesuffix("data.pkl")
        self.storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a name, if it is allowed."""
        if f"{module}.{name}" not in ALLOWED:
            raise UserError(f"{self.path} would run code of its own, {module}.{name}: it is not read.")
        found = ALLOWED[f"{module}.{name}"]
        if isinstance(found, FunctionType):  # a copy: a pickle can set attributes of whatever it gets
            return lambda *arguments: found(*arguments)
        return found

    def persistent_load(self, pid: Any) -> Tensor:
        """The numbers of a tensor, one-dimensional."""
        kind, dtype, key, _, count = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError(f"{kind} is no storage")
        if key not in self.storages:
            data = bytearray(self.archive.read(f"{self.folder}data/{key}"))
            if len(data) != count * dtype.itemsize:
                raise pickle.UnpicklingError(f"storage {key} has {len(data)} bytes, not {count} x {dtype.itemsize}")
            self.storages[key] = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
        return self.storages[key]
