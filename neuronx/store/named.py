"""What no file and no configuration of a stranger may name, since it could run programs or change files."""

import sys
from collections.abc import Iterator
from functools import partial
from types import ModuleType
from typing import Any

from neuronx.errors import UserError

_PROGRAMS = """
os posix nt subprocess _posixsubprocess pty popen2 commands shutil sys runpy importlib imp pkgutil ctypes _ctypes socket
_socket webbrowser antigravity code codeop pdb bdb pydoc pickle _pickle cPickle dill cloudpickle marshal multiprocessing
threading _thread asyncio signal
"""
PROGRAMS = frozenset(_PROGRAMS.split())
"""Modules that no data consist of."""

_CALLS = "exec eval execfile compile open file __import__ breakpoint input raw_input apply reload delattr setattr"
CALLS = frozenset(_CALLS.split())
"""Functions of `builtins` that no data consist of."""

_TOOLS = """
pip setuptools pkg_resources wheel distutils hydra omegaconf IPython ipykernel pytest _pytest dill cloudpickle joblib
psutil pexpect sh plumbum fabric paramiko cffi pybind11 requests urllib3 httpx aiohttp fsspec huggingface_hub wandb git
jinja2 yaml ruamel PIL numba cupy tensorboard
"""
_PARTS = """
torch.hub torch.serialization torch.load torch.save torch.package torch.jit torch.ops torch._ops torch.classes
torch.multiprocessing
torch.distributed torch.utils torch.testing torch.library torch.onnx torch.export torch.compiler
torch._dynamo torch._inductor torch._C torch._classes torch.backends torch.profiler torch.monitor torch.futures
torchvision.datasets.utils torchvision.io torchvision.utils torchvision.extension
numpy.load numpy.save numpy.savez numpy.savez_compressed numpy.savetxt numpy.loadtxt numpy.fromfile numpy.genfromtxt
numpy.memmap numpy.lib numpy.f2py numpy.distutils numpy.testing numpy.ctypeslib numpy.core numpy._core numpy.tests
pandas.io pandas.core.computation pandas.eval pandas.read_pickle scipy.io
timm.utils timm.models.load_checkpoint timm.models.helpers timm.models._hub
lightning.fabric.utilities lightning.pytorch.utilities lightning.pytorch.cli lightning.fabric.cli
neuronx.milannotations.write neuronx.store neuronx.command
neuronx.tables neuronx.report neuronx.errors neuronx.api neuronx.configs
"""
_NEVER = frozenset(_TOOLS.split()) | frozenset(_PARTS.split()) | sys.stdlib_module_names | PROGRAMS | {"__builtin__"}
_NEEDED = frozenset({"neuronx.report.loggers", "neuronx.command.checked.taken", "torch.utils.data"})


def runs_programs(module: str, name: str) -> bool:
    """Whether `name` of `module` could run programs or change files if it were called."""
    root = module.split(".")[0]
    return root in PROGRAMS or (root in ("builtins", "__builtin__", "io", "_io") and name.split(".")[0] in CALLS)


def check_path(path: str) -> None:
    """Raises UserError for an import path to what no network, method or data need: Python itself, tools, files."""
    if never_needed(path):
        raise _refusal(path, path)


def check_callable(found: Any, path: str) -> None:
    """Raises UserError for an object that is defined where nothing is needed, by whatever path it was reached."""
    for place in _defined(found):
        if never_needed(place):
            raise _refusal(path, place)
    if not callable(found):
        raise UserError(f"`{path}` is a {type(found).__name__}; a class or function is needed.")


def never_needed(path: str) -> bool:
    """Whether an import path lies where no network, method or data are.

    The standard library makes none of them; what of it changes nothing is not missed.
    """
    parts = path.split(".")
    places = {".".join(parts[: n + 1]) for n in range(len(parts))}
    return bool(places & _NEVER) and not places & _NEEDED


def _defined(found: Any) -> Iterator[str]:
    """Where an object is defined, and what it is bound to."""
    if isinstance(found, ModuleType):
        yield found.__name__
        return
    if isinstance(found, partial):
        yield from _defined(found.func)
        return
    name = getattr(found, "__qualname__", "") or type(found).__qualname__
    module = getattr(found, "__module__", None)
    if isinstance(module, str):
        yield f"{module}.{name}"
    for owner in (getattr(found, "__self__", None), getattr(found, "__objclass__", None)):
        if owner is not None and owner is not found:
            yield from _defined(owner)


def _refusal(path: str, place: str) -> UserError:
    where = "" if path == place else f" ({place})"
    return UserError(
        f"`{path}`{where} is not called: a configuration names networks, methods and data, and none of them lies there."
    )
