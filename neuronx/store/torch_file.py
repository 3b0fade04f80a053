"""Files of `torch.save`, of every age, and pickles: read as containers, numbers, texts and tensors; nothing runs.

A pickle names the classes and functions that it wants called. Nothing is imported here, and nothing of the file's
choosing is called: tensors and arrays are built from the file's raw numbers by functions of this module, and any other
name stands for a `Foreign`, which keeps what the file says of an object (arguments, items, state) and does nothing.
A file that names what runs programs, such as `os.system`, is refused altogether.
"""

import io
import json
import pickle
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from neuronx.errors import UserError, first_line
from neuronx.store.given_file import given_file
from neuronx.store.named import runs_programs

_MAGIC = 0x1950A86A20F9469CFC6C  # begins the files of a torch before 1.6


class Foreign(dict):
    """An object of a class that is not read: a dictionary of its items, with what else the file says of it.

    Attributes:
        name: The class or function, with its module.
        args: It was to be called with these.
        state: Its attributes.
        listed: Its items where it was a list or a set.
    """

    name = ""
    args: tuple[Any, ...]
    state: Any
    listed: list[Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> "Foreign":
        """Keeps the arguments."""
        made = super().__new__(cls)
        made.args, made.state, made.listed = args, None, []
        return made

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __call__(self, *args: Any, **kwargs: Any) -> "Foreign":
        """What a call would give is foreign, too."""
        return Foreign(*args)

    __hash__ = object.__hash__  # type: ignore[assignment]  # it may be a key

    def append(self, item: Any) -> None:
        """Takes an item of a list."""
        self.listed.append(item)

    def extend(self, items: Any) -> None:
        """Takes items of a list."""
        self.listed.extend(items)

    add = append


def _typed(data: np.ndarray, dtype: torch.dtype) -> Tensor:
    """Bytes as numbers."""
    return torch.from_numpy(data).view(dtype) if len(data) else torch.empty(0, dtype=dtype)


def _tensor(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *rest: Any) -> Tensor:
    return torch.as_strided(storage, size, stride, offset + storage.storage_offset())


def _tensor_of_bytes(
    storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], grad: bool, hooks: Any, dtype: Any
) -> Tensor:
    return torch.as_strided(storage.view(dtype), size, stride, offset)


def _quantised(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], how: Any, *_: Any) -> Any:
    whole = _tensor(storage, offset, size, stride)
    if isinstance(how[1], Tensor):
        return torch._make_per_channel_quantized_tensor(whole, how[1], how[2], how[3])
    return torch._make_per_tensor_quantized_tensor(whole, how[1], how[2])


def _parameter(data: Tensor, *rest: Any) -> Tensor:
    return data


def _of_type(function: Callable[..., Any], kind: Any, args: tuple[Any, ...], state: Any) -> Any:
    return function(*args)


def _encode(text: str, encoding: str) -> bytes:
    """How the pickles of torch spell bytes."""
    return text.encode("latin1")


class ForeignArray(Foreign):
    """An array of numpy, which the pickle describes after it has named it."""

    @property
    def tensor(self) -> Tensor | None:
        """Its numbers; None where they are no numbers, or not those described."""
        try:
            shape, dtype, columns, data = self.state[-4:]
            kind = np.dtype(str(dtype.args[0]))
            kind = kind.newbyteorder(">") if dtype.state and dtype.state[1] == ">" else kind
            data = data.encode("latin1") if isinstance(data, str) else data
            array = np.frombuffer(data, kind)
            array = array.reshape(shape, order="F" if columns else "C")
            return torch.from_numpy(array.astype(kind.newbyteorder("="), order="C", copy=True))
        except (AttributeError, IndexError, TypeError, ValueError):
            return None


_STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "QInt8Storage": torch.int8,
    "QUInt8Storage": torch.uint8,
    "QInt32Storage": torch.int32,
    "UntypedStorage": torch.uint8,
}

KNOWN: dict[str, Any] = {
    "collections.OrderedDict": OrderedDict,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_bytes,
    "torch._utils._rebuild_qtensor": _quantised,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._tensor._rebuild_from_type_v2": _of_type,
    "numpy.core.multiarray._reconstruct": ForeignArray,
    "numpy._core.multiarray._reconstruct": ForeignArray,
    "_codecs.encode": _encode,
    "__builtin__.bytes": lambda: b"",
    "builtins.bytes": lambda: b"",
    **{f"torch.{str(dtype).removeprefix('torch.')}": dtype for dtype in set(_STORAGES.values())},
    **{f"torch.{place}{name}": dtype for name, dtype in _STORAGES.items() for place in ("", "cuda.", "storage.")},
    **{
        f"torch.{name}": getattr(torch, name) for name in ("float8_e4m3fn", "float8_e5m2", "uint16", "uint32", "uint64")
    },
}
"""What a file may name, and what stands for it."""


def read_torch_file(path: str | Path, what: str = "weights file") -> Any:
    """What a file of `torch.save`, or a pickle, holds: containers, numbers, texts, tensors and `Foreign` objects.

    Raises:
        UserError: As `given_file`; a file of another kind or cut short; or one that names what runs programs.
    """
    path = given_file(path, what)
    try:
        with path.open("rb") as file:
            head = file.read(4)
            if head[:2] == b"PK" or (head[:1] == b"{" and json_header(path) is not None):
                return _read_zip(path, what)
            if head[:1] not in (b"\x80", b"(", b"c", b"}", b"]"):
                raise UserError(f"{path} is no {what}: it is {_kind(head)}, neither safetensors nor of torch.save.")
            file.seek(0)
            return _read_pickles(path, file)
    except UserError:
        raise
    except Exception as error:  # a pickle can go wrong in any way
        raise UserError(f"{path} cannot be read ({_why(error)}); it is damaged, or no {what}.") from error


def json_header(path: Path) -> dict[str, Any] | None:
    """The JSON of a first line before what torch.save wrote, as saev writes its files; None where there is none."""
    with path.open("rb") as file:
        if file.read(1) != b"{":
            return None
        file.seek(0)
        try:
            header = json.loads(file.readline(2**20))
        except ValueError:
            return None
        return header if isinstance(header, dict) and file.read(2) == b"PK" else None


def _why(error: Exception) -> str:
    return {"EOFError": "it ends too early", "MemoryError": "it asks for too much memory"}.get(
        type(error).__name__, first_line(error)
    )


def _kind(head: bytes) -> str:
    kinds = {b"<": "a web page", b"\x89HDF": "an HDF5 file", b"\x93NUM": "an array of numpy", b"{": "JSON"}
    return next((kind for start, kind in kinds.items() if head.startswith(start)), "of another kind")


class _Reader(pickle.Unpickler):
    """Reads one pickle: names by `KNOWN`, tensors by `numbers`."""

    def __init__(self, file: Any, path: Path, numbers: Callable[..., Tensor] | None = None) -> None:
        super().__init__(file, encoding="latin1")
        self.path, self.numbers = path, numbers

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a name."""
        if runs_programs(module, name):
            raise UserError(
                f"{self.path} is a pickle that would run code of its own, {module}.{name}: it is not read. Save plain "
                "tensors: torch.save(model.state_dict(), path), or safetensors."
            )
        found = KNOWN.get(f"{module}.{name}")
        if found is None:
            return type("Foreign", (Foreign,), {"name": f"{module}.{name}"})
        if isinstance(found, FunctionType):  # a copy: a pickle can set attributes of whatever it gets
            return lambda *arguments: found(*arguments)
        return type("Array", (ForeignArray,), {"name": f"{module}.{name}"}) if found is ForeignArray else found

    def persistent_load(self, pid: Any) -> Any:
        """The numbers of a tensor, one-dimensional; or a class that comes with its source code, which is left alone."""
        if pid[0] == "module":
            return pid[1]
        _, dtype, key, _, count, *view = pid
        if pid[0] != "storage" or not isinstance(dtype, torch.dtype) or self.numbers is None:
            raise pickle.UnpicklingError(f"{str(pid[0])[:40]} is no storage")
        return self.numbers(dtype, str(key), int(count), *view)


def _read_zip(path: Path, what: str) -> Any:
    if not zipfile.is_zipfile(path):
        raise UserError(f"{path} is cut short: it begins as a file of torch.save does, and its end is missing.")
    storages: dict[str, Tensor] = {}
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        names = archive.namelist()
        content = [name for name in names if name.endswith("/data.pkl")]
        if len(content) != 1:
            raise UserError(f"{path} is a zip file, but not one of torch.save: it has no data.pkl.")
        folder = content[0].removesuffix("data.pkl")
        if f"{folder}constants.pkl" in names:
            raise UserError(f"{path} is a network that torch.jit.save wrote, not a {what} with names and tensors.")
        if any(archive.getinfo(name).compress_type for name in names):
            raise UserError(f"{path} is compressed, which files of torch.save are not; save it again.")

        def record(name: str) -> np.ndarray:
            info = archive.getinfo(name)
            file.seek(info.header_offset + 26)  # where the header before the bytes says how long it is
            file.seek(int(np.frombuffer(file.read(4), "<u2").sum()), 1)
            data = np.fromfile(file, np.uint8, info.file_size)
            if len(data) != info.file_size or info.CRC not in (0, zlib.crc32(data.data)):  # torch can leave the CRC out
                raise pickle.UnpicklingError(f"by its CRC, {name} is not as it was written")
            return data

        def numbers(dtype: torch.dtype, key: str, count: int) -> Tensor:
            if key not in storages:
                data = record(f"{folder}data/{key}")
                if len(data) != count * dtype.itemsize:
                    raise pickle.UnpicklingError(f"storage {key} has {len(data)} bytes, not {count} x {dtype.itemsize}")
                storages[key] = _typed(data, dtype)
            return storages[key]

        return _Reader(io.BytesIO(record(content[0]).tobytes()), path, numbers).load()


def _read_pickles(path: Path, file: BinaryIO) -> Any:
    """A plain pickle, or a file of a torch before 1.6: pickles one after the other, then the numbers."""
    size = path.stat().st_size
    first = _Reader(file, path).load()
    if first != _MAGIC:
        return first
    for _ in range(2):  # the version and the machine
        _Reader(file, path).load()
    storages: dict[str, Tensor] = {}

    def numbers(dtype: torch.dtype, key: str, count: int, view: Any = None) -> Tensor:
        if key not in storages:
            if not 0 <= count * dtype.itemsize <= size:
                raise pickle.UnpicklingError(f"storage {key} is larger than the file")
            storages[key] = _typed(np.zeros(count * dtype.itemsize, np.uint8), dtype)
        return storages[key] if view is None else storages[key][view[1] : view[1] + view[2]]

    start = file.tell()
    _Reader(file, path, numbers).load()  # names the storages, whose numbers come after it
    for key in _Reader(file, path).load():
        storage = storages[str(key)]
        count = int(np.fromfile(file, "<i8", 1)[0])
        data = np.fromfile(file, np.uint8, len(storage) * storage.itemsize)
        if count != len(storage) or len(data) != len(storage) * storage.itemsize:
            raise UserError(f"{path} is cut short: the numbers of its tensors are not all there.")
        storage.view(torch.uint8).copy_(torch.from_numpy(data))
    file.seek(start)
    return _Reader(file, path, numbers).load()
