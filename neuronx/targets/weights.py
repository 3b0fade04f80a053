"""Reading weights: safetensors or torch files of plain tensors, never a pickle of code."""

import os
import pickle
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from neuronx.errors import UserError
from neuronx.store.cache import data_root
from neuronx.store.download import fetch


def load_weights(path: str | Path) -> dict[str, Tensor]:
    """Reads the tensors of a file by name.

    The tensors may lie under `state_dict` or `model`, and their names may start with `module.`, as data-parallel
    training leaves them; both are undone.

    Raises:
        UserError: No such file, a pickle of code, a damaged file, or a file without tensors.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(f"There is no weights file {path}.")
    try:
        state = _read(path)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} is a pickle that would run code, so it is not read; save plain tensors instead: "
            "torch.save(model.state_dict(), path), or safetensors."
        ) from error
    except Exception as error:
        raise UserError(
            f"{path} cannot be read as weights ({_line(error)}); it is damaged or of another kind."
        ) from error
    while isinstance(state, Mapping) and (inner := _nested(state)) is not None:
        state = inner
    tensors = {str(k): v for k, v in state.items() if isinstance(v, Tensor)} if isinstance(state, Mapping) else {}
    if not tensors:
        raise UserError(f"{path} holds no tensors by name; a state dict is needed.")
    if all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): value for name, value in tensors.items()}
    return tensors


def fill(module: nn.Module, path: str | Path) -> nn.Module:
    """Loads a file into a module, every tensor of both, and returns the module.

    Raises:
        UserError: As `load_weights`, or names or shapes differ.
    """
    state, own = load_weights(path), module.state_dict()
    wrong = [f"{name} is missing" for name in own if name not in state and not name.endswith("num_batches_tracked")]
    wrong += [f"{name} is not a part of it" for name in state if name not in own]
    wrong += [
        f"{name} has shape {tuple(value.shape)}, not {tuple(own[name].shape)}"
        for name, value in state.items()
        if name in own and value.shape != own[name].shape
    ]
    if wrong:
        more = f", and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise UserError(f"{path} does not fit {type(module).__name__}: {'; '.join(wrong[:3])}{more}.")
    module.load_state_dict(state, strict=False)
    return module


def weights_file(weights: str | Path, hint: str = "") -> Path:
    """The file itself, or the download of a URL into the folder of data.

    By torch's convention a file name may end in `-` and the first digits of its sha256; they are checked then.

    Raises:
        UserError: As `fetch`.
    """
    if not re.match(r"https?://", str(weights)):
        return Path(weights).expanduser()
    name = str(weights).split("?")[0].rsplit("/", 1)[-1]
    return fetch(str(weights), data_root() / "weights" / name, sha256=hash_in(name), hint=hint)


def hash_in(name: str) -> str | None:
    """The digits of a sha256 in a file name such as `resnet50-0676ba61.pth`; None where there are none."""
    match = re.search(r"-([0-9a-f]{8,64})\.", name)
    return match[1] if match else None


@contextmanager
def environment(**variables: str) -> Iterator[None]:
    """Sets environment variables for a while."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def plain_tensors_only() -> AbstractContextManager[None]:
    """Within it no library's `torch.load` unpickles code, even where the library asks for that."""
    return environment(TORCH_FORCE_WEIGHTS_ONLY_LOAD="1")


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def _nested(state: Mapping[Any, Any]) -> Any:
    for name in ("state_dict", "model_state_dict", "model"):
        if isinstance(state.get(name), Mapping):
            return state[name]
    return None


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160]
